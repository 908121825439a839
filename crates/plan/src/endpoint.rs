//! Where an ExternalProcessor is reached: a pure function of its name, namespace and spec. Nothing waits for a Service or
//! a pod to exist, so a pipeline can be wired, and shown, before its processors run.

use flowctl_api::external_processor::{Balancing, ClientAuth};
use flowctl_api::{ExternalProcessor, Protocol};

use crate::{Settings, names};

/// How callers reach an ExternalProcessor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port`.
    pub address: String,
    /// What is spoken there.
    pub protocol: Protocol,
    /// TLS, when it is encrypted.
    pub tls: Option<EndpointTls>,
}

/// What a caller must know about TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointTls {
    /// PEM certificates that sign the server's; `None`: the system's authorities.
    pub ca_bundle: Option<String>,
    /// Whether a caller must show a certificate.
    pub client_auth: ClientAuth,
}

/// The endpoint of an ExternalProcessor; `None` when its spec names none, which the schema excludes.
pub fn of(target: &ExternalProcessor, settings: &Settings) -> Option<Endpoint> {
    let spec = &target.spec;
    let address = match (&spec.external, spec.port) {
        (Some(external), _) => external.endpoint.clone(),
        (None, Some(port)) => {
            let name = target.metadata.name.as_deref()?;
            let namespace = target.metadata.namespace.as_deref()?;
            let balancing = spec.service.as_ref().and_then(|service| service.balancing);
            let service = match balancing.unwrap_or_default() {
                Balancing::PerPod => names::processor_pods(name),
                Balancing::ClusterIp => names::processor(name),
            };
            format!("{service}.{namespace}.svc.{}:{port}", settings.cluster_domain)
        }
        (None, None) => return None,
    };
    let tls = spec.tls.as_ref().map(|tls| EndpointTls {
        ca_bundle: tls.ca_bundle.clone(),
        client_auth: tls.client_auth.unwrap_or_default(),
    });
    Some(Endpoint {
        address,
        protocol: spec.protocol.unwrap_or(Protocol::PipelineV1),
        tls,
    })
}

// === impl Endpoint ===

impl Endpoint {
    /// The host without the port and without the brackets of an IPv6 address: the name that a certificate must carry.
    pub fn host(&self) -> &str {
        let host = self
            .address
            .rsplit_once(':')
            .map_or(self.address.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}
