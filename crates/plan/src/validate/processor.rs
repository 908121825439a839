//! An ExternalProcessor that can be built.

use std::collections::BTreeSet;

use flowctl_api::external_processor::{ClientAuth, ExternalProcessorSpec, ExtraPort, Probe, Workload};
use flowctl_api::{ControlPlane, ExternalProcessor};

use super::{
    Problems, ValidContainer, ValidHeartbeat, container, control_plane, heartbeat, host_of, owner, steps, tls,
};
use crate::body::{Owner, OwnerKind};
use crate::env::{self, entry};
use crate::{ProcessorObserved, endpoint, references};
use k8s_openapi::api::core::v1::EnvVar;

/// An ExternalProcessor that can be built.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValidProcessor {
    pub(crate) owner: Owner,
    /// What runs; `None`: it runs elsewhere, or there are problems.
    pub(crate) workload: Option<ValidWorkload>,
}

/// A workload that can be built.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValidWorkload {
    pub(crate) container: ValidContainer,
    pub(crate) args: Vec<String>,
    pub(crate) ports: Ports,
    pub(crate) probe: Option<Probe>,
    /// Secret with the server's certificate.
    pub(crate) tls_secret: Option<String>,
    pub(crate) client_auth: ClientAuth,
    /// A variable with the endpoint of each upstream.
    pub(crate) connections: Vec<EnvVar>,
    pub(crate) heartbeat: ValidHeartbeat,
    /// As the spec has it; the operator's is a default of rendering.
    pub(crate) control_plane: Option<ControlPlane>,
    pub(crate) restarted_at: Option<String>,
}

/// The ports of a processor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ports {
    pub(crate) grpc: i32,
    pub(crate) extra: Vec<ExtraPort>,
    /// Whether the gRPC port is encrypted.
    pub(crate) encrypted: bool,
}

/// Name of the gRPC port on pods and Services.
pub(crate) const GRPC: &str = "grpc";

/// The ports, when they can be put on Services: asked for even when other parts of the spec are refused, because Services
/// are kept through that. `None` for a processor that runs elsewhere.
pub(crate) fn ports(processor: &ExternalProcessor) -> Option<Ports> {
    let mut problems = Problems::default();
    let spec = &processor.spec;
    let owner = owner(OwnerKind::ExternalProcessor, &processor.metadata, &mut problems);
    let ports = check_ports(spec, &mut problems).filter(|_| spec.workload.is_some() && spec.external.is_none());
    ports.filter(|_| problems.is_empty() && !owner.name.is_empty())
}

/// Checks an ExternalProcessor. With problems there is still what can be judged further, without the connections that do
/// not resolve, unless it is too broken for that.
pub(crate) fn processor(observed: &ProcessorObserved, problems: &mut Problems) -> ValidProcessor {
    let spec = &observed.object.spec;
    let owner = owner(OwnerKind::ExternalProcessor, &observed.object.metadata, problems);
    if let Some(server) = &spec.tls {
        tls::check(server, problems);
    }
    if let Some(named) = &spec.control_plane {
        control_plane::check(named, &observed.settings, problems);
    }
    let heartbeat = heartbeat::check(spec.heartbeat.as_ref(), problems);
    let connections = connections(observed, problems);
    let workload = match (&spec.workload, &spec.external) {
        (Some(workload), None) => {
            let container = check_workload(workload, problems);
            probe(spec, problems);
            check_ports(spec, problems).map(|ports| ValidWorkload {
                container,
                args: workload.args.clone(),
                ports,
                probe: spec.probe.clone(),
                tls_secret: spec.tls.as_ref().and_then(|tls| tls.secret_name.clone()),
                client_auth: spec.tls.as_ref().and_then(|tls| tls.client_auth).unwrap_or_default(),
                connections,
                heartbeat,
                control_plane: spec.control_plane.clone(),
                restarted_at: spec.restarted_at.clone(),
            })
        }
        (None, Some(external)) => {
            host_of(&external.endpoint, "spec.external.endpoint", problems);
            if spec.port.is_some() {
                problems.invalid(
                    "spec.port",
                    "port is not used with `external`: its endpoint carries the port; remove one of the two",
                );
            }
            None
        }
        (None, None) | (Some(_), Some(_)) => {
            problems.invalid(
                "spec",
                "exactly one of `workload` (the operator runs it) and `external` (it runs elsewhere) must be set",
            );
            None
        }
    };
    ValidProcessor { owner, workload }
}

fn check_workload(workload: &Workload, problems: &mut Problems) -> ValidContainer {
    if workload.container.image.as_deref().unwrap_or_default().is_empty() {
        problems.invalid("spec.workload.image", "image is required");
    }
    if !(0..=1000).contains(&workload.replicas) {
        problems.invalid(
            "spec.workload.replicas",
            format!("{} is not within 0 and 1000", workload.replicas),
        );
    }
    container::check(&workload.container, "spec.workload", problems)
}

fn check_ports(spec: &ExternalProcessorSpec, problems: &mut Problems) -> Option<Ports> {
    let in_range = |port: i32| (1..=65535).contains(&port);
    let Some(grpc) = spec.port else {
        problems.invalid(
            "spec.port",
            "port is required: the gRPC port that the container listens on",
        );
        return None;
    };
    if !in_range(grpc) {
        problems.invalid("spec.port", format!("{grpc} is not within 1 and 65535"));
    }
    let mut seen = BTreeSet::from([grpc]);
    let mut names = BTreeSet::from([GRPC]);
    for (index, extra) in spec.extra_ports.iter().enumerate() {
        let field = format!("spec.extraPorts[{index}]");
        if !is_port_name(&extra.name) {
            problems.invalid(
                format!("{field}.name"),
                format!(
                    "{:?} is not a port name: a-z, 0-9 and '-', at least one letter, at most 15 characters",
                    extra.name
                ),
            );
        }
        if !names.insert(&extra.name) {
            problems.invalid(
                format!("{field}.name"),
                format!("{:?} is taken by another port; choose another name", extra.name),
            );
        }
        if !in_range(extra.port) {
            problems.invalid(
                format!("{field}.port"),
                format!("{} is not within 1 and 65535", extra.port),
            );
        } else if !seen.insert(extra.port) {
            problems.invalid(
                format!("{field}.port"),
                format!("{} is there already; remove one of the two", extra.port),
            );
        }
    }
    let encrypted = spec.tls.is_some();
    Some(Ports {
        grpc,
        extra: spec.extra_ports.clone(),
        encrypted,
    })
}

fn is_port_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=15).contains(&name.len())
        && name.bytes().all(allowed)
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

fn probe(spec: &ExternalProcessorSpec, problems: &mut Problems) {
    let Some(probe) = &spec.probe else { return };
    let chosen = [probe.grpc.is_some(), probe.http.is_some(), probe.tcp.is_some()];
    if chosen.into_iter().filter(|chosen| *chosen).count() != 1 {
        problems.invalid("spec.probe", "exactly one of grpc, http and tcp must be set");
    }
    if probe.grpc.is_some() && spec.tls.is_some() {
        problems.invalid(
            "spec.probe.grpc",
            "the kubelet's gRPC probes cannot speak TLS, and spec.tls is set; use http on another port, or tcp",
        );
    }
    if let Some(http) = &probe.http
        && !(1..=65535).contains(&http.port)
    {
        problems.invalid(
            "spec.probe.http.port",
            format!("{} is not within 1 and 65535", http.port),
        );
    }
}

fn connections(observed: &ProcessorObserved, problems: &mut Problems) -> Vec<EnvVar> {
    let object = &observed.object;
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mut entries = Vec::new();
    for (index, connection) in object.spec.connections.iter().enumerate() {
        let field = format!("spec.connections[{index}]");
        let name = connection.env.as_str();
        let starts_right = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts_right || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            problems.invalid(
                format!("{field}.env"),
                format!("{name:?} is not a variable: letters, digits and '_', no digit first"),
            );
        }
        if !seen.insert(name) {
            problems.invalid(
                format!("{field}.env"),
                format!("{name:?} is there twice; remove one of the two"),
            );
        }
        if env::is_ours(name) {
            problems.invalid(
                format!("{field}.env"),
                format!("the operator sets {name} itself; choose another name"),
            );
        }
        let reference = &connection.processor_ref;
        let target = references::target(reference, namespace);
        let upstream = observed.upstreams.get(&target);
        let granted = upstream.filter(|upstream| references::granted(upstream, namespace));
        match granted.and_then(|upstream| endpoint::of(upstream, &observed.settings)) {
            Some(endpoint) => entries.push(entry(name, endpoint.address)),
            None => problems.unresolved(
                format!("{field}.processorRef"),
                steps::not_found(reference, &target, namespace, &observed.settings, &observed.unread),
            ),
        }
    }
    entries
}
