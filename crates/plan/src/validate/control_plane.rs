//! Which control planes an object may name, and what is dialled for it. The operator and the pods dial it with their own
//! network identity, so a spec must not be able to send them anywhere: a Service inside the cluster, always by its full
//! name (a short one is looked up in search domains, which may lead out), or a host that the administrator allowed.

use flowctl_api::ControlPlane;

use super::{Problems, host_of, is_namespace_name, is_service_name};
use crate::Settings;

/// Checks `spec.controlPlane`.
pub(super) fn check(control_plane: &ControlPlane, settings: &Settings, problems: &mut Problems) {
    if let Some(bundle) = control_plane.tls.as_ref().and_then(|tls| tls.ca_bundle.as_deref()) {
        super::tls::check_bundle(bundle, "spec.controlPlane.tls.caBundle", problems);
    }
    let field = "spec.controlPlane.endpoint";
    let Some(host) = host_of(&control_plane.endpoint, field, problems) else {
        return;
    };
    // Whichever namespace it is.
    if dialled(&control_plane.endpoint, "default", settings).is_none() {
        let domain = &settings.cluster_domain;
        problems.invalid(
            field,
            format!(
                "{host:?} is neither a Service in the cluster (name, name.namespace, name.namespace.svc or \
                 name.namespace.svc.{domain}) nor a host that the operator allows; use one of these, or add the host to the \
                 operator's --allow-control-plane"
            ),
        );
    }
}

/// What is dialled for an endpoint in the spec of an object of that namespace: the operator's own and an allowed host as
/// they are, a Service by its full name. `None`: it may not be named.
pub(crate) fn dialled(endpoint: &str, namespace: &str, settings: &Settings) -> Option<String> {
    let (host, port) = endpoint.rsplit_once(':')?;
    let own = settings.control_plane.as_ref();
    if own.is_some_and(|own| own.endpoint == endpoint) || is_allowed(host, settings) {
        return Some(endpoint.to_owned());
    }
    let domain = &settings.cluster_domain;
    service(host, namespace, domain).map(|(name, namespace)| format!("{name}.{namespace}.svc.{domain}:{port}"))
}

/// The Service that a host means, with its namespace.
fn service<'h>(host: &'h str, own: &'h str, domain: &str) -> Option<(&'h str, &'h str)> {
    let full = host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
    let labels: Vec<_> = full.unwrap_or(host).split('.').collect();
    let (name, namespace) = match (labels.as_slice(), full) {
        // The operator's own loopback, whoever asks.
        (["localhost"], _) => return None,
        ([name], None) => (*name, own),
        ([name, namespace], None) | ([name, namespace, "svc"], _) => (*name, *namespace),
        _ => return None,
    };
    (is_service_name(name) && is_namespace_name(namespace)).then_some((name, namespace))
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
        for (host, found) in [
            ("flowctl", ("flowctl", "stellar")),
            ("flowctl.ns", ("flowctl", "ns")),
            ("flowctl.1ns.svc", ("flowctl", "1ns")),
            ("flowctl.ns.svc.cluster.local", ("flowctl", "ns")),
            // Not the host of that name in the world, but a Service of a namespace that is called so.
            ("evil.com", ("evil", "com")),
        ] {
            assert_eq!(service(host, "stellar", "cluster.local"), Some(found), "{host}");
        }
        for host in [
            "localhost",
            "169.254.169.254",
            "10.1",
            "a.b.c",
            "cluster.local.",
            "flowctl.cluster.local",
            "flowctl.ns.cluster.local",
            "flowctl.ns.svccluster.local",
            "metadata.google.internal",
            "x.y.svc.other.domain",
            "a.b.svc.svc.cluster.local.evil.com",
        ] {
            assert_eq!(service(host, "stellar", "cluster.local"), None, "{host}");
        }
    }
}
