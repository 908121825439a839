//! Which control plane: where it listens and whose signature it must show. Two objects that name the same one share its
//! connection; an object that trusts another authority does not.

use flowctl_api::ControlPlane;

/// What tells two control planes apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    /// `host:port`, as it is dialled.
    pub(super) endpoint: String,
    pub(super) trust: Trust,
}

/// How a control plane proves itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Trust {
    /// Not at all: no TLS.
    Plain,
    /// By an authority of the operator's own system.
    System,
    /// By one of these, PEM.
    Only(String),
}

// === impl Address ===

impl Address {
    pub(super) fn of(plane: &ControlPlane) -> Self {
        let trust = match &plane.tls {
            None => Trust::Plain,
            Some(tls) => tls.ca_bundle.clone().map_or(Trust::System, Trust::Only),
        };
        Self {
            endpoint: plane.endpoint.clone(),
            trust,
        }
    }
}
