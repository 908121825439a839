//! Which control planes an object may name. The operator dials them with its own network identity, so a spec must not be
//! able to send it anywhere: a Service inside the cluster, or a host that its administrator allowed.

use flowctl_api::ControlPlane;

use super::{Problems, host_of, is_namespace_name, is_service_name};
use crate::Settings;

/// Checks `spec.controlPlane`.
pub(super) fn check(control_plane: &ControlPlane, settings: &Settings, problems: &mut Problems) {
    let field = "spec.controlPlane.endpoint";
    let Some(host) = host_of(&control_plane.endpoint, field, problems) else {
        return;
    };
    let own = settings.control_plane.as_ref();
    if own.is_some_and(|own| own.endpoint == control_plane.endpoint) {
        return;
    }
    if !is_service(host, &settings.cluster_domain) && !is_allowed(host, settings) {
        problems.invalid(
            field,
            format!(
                "{host:?} is neither a Service in the cluster (name, name.namespace or name.namespace.svc) nor a host that \
                 the operator allows; use one of these, or add the host to the operator's --allow-control-plane"
            ),
        );
    }
    if let Some(bundle) = control_plane.tls.as_ref().and_then(|tls| tls.ca_bundle.as_deref()) {
        super::tls::check_bundle(bundle, "spec.controlPlane.tls.caBundle", problems);
    }
}

fn is_service(host: &str, domain: &str) -> bool {
    let host = host.strip_suffix(&format!(".svc.{domain}")).map_or(host, |name| name);
    let labels: Vec<_> = host.split('.').collect();
    match labels.as_slice() {
        // The operator's own loopback, whoever asks.
        ["localhost"] => false,
        [name] => is_service_name(name),
        [name, namespace] | [name, namespace, "svc"] => is_service_name(name) && is_namespace_name(namespace),
        _ => false,
    }
}

fn is_allowed(host: &str, settings: &Settings) -> bool {
    let host = host.to_ascii_lowercase();
    settings.allowed_control_planes.iter().any(|allowed| {
        let allowed = allowed.to_ascii_lowercase();
        match allowed.strip_prefix('*') {
            Some(suffix) => suffix.starts_with('.') && host.ends_with(suffix),
            None => host == allowed,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The operator would dial whatever a user of one namespace writes.
    #[test]
    fn only_services_of_the_cluster_pass_without_a_grant() {
        for host in [
            "flowctl",
            "flowctl.ns",
            "flowctl.1ns.svc",
            "flowctl.ns.svc.cluster.local",
        ] {
            assert!(is_service(host, "cluster.local"), "{host}");
        }
        for host in [
            "localhost",
            "169.254.169.254",
            "10.1",
            "a.b.c",
            "metadata.google.internal",
            "x.y.svc.other.domain",
            "a.b.svc.svc.cluster.local.evil.com",
        ] {
            assert!(!is_service(host, "cluster.local"), "{host}");
        }
    }
}
