//! What a session counts, so that an outage of the control plane can be seen on the host's `/metrics`.

use flowctl_runtime::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// Metrics of one session, shared by clones.
#[derive(Clone, Debug, Default)]
pub struct SessionMetrics {
    /// 1 while registered.
    pub(super) registered: Gauge,
    /// Registrations that the server took.
    pub(super) registrations: Counter,
    /// Heartbeats that the server took.
    pub(super) heartbeats: Counter,
    /// Calls that failed.
    pub(super) errors: Counter,
}

// === impl SessionMetrics ===

impl SessionMetrics {
    /// Adds them to a registry under `flowctl_client_`.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("flowctl_client");
            registry.register(
                "registered",
                "Whether the control plane has this service registered",
                this.registered.clone(),
            );
            registry.register(
                "registrations",
                "Registrations that the control plane took",
                this.registrations.clone(),
            );
            registry.register(
                "heartbeats",
                "Heartbeats that the control plane took",
                this.heartbeats.clone(),
            );
            registry.register(
                "errors",
                "Registrations and heartbeats that failed",
                this.errors.clone(),
            );
        });
        this
    }
}
