//! grpc.health.v1: what `/readyz` says, for the whole server (the name "") and for each of its protocols.

use flowctl_proto::flowctl::control_plane_server;
use flowctl_proto::flowctl::registry::v1::registry_service_server;
use flowctl_proto::flowctl::v1::control_plane_service_server;
use flowctl_runtime::{Changes, Readiness};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};

/// Tells probes.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProbeHealth(HealthReporter);

/// The protocols of the registry, by their gRPC names.
pub(crate) const PROTOCOLS: [&str; 3] = [
    control_plane_server::SERVICE_NAME,
    control_plane_service_server::SERVICE_NAME,
    registry_service_server::SERVICE_NAME,
];

// === impl ProbeHealth ===

impl ProbeHealth {
    /// The gRPC service that probes call.
    pub(crate) fn service(&self) -> HealthService {
        HealthService::from_health_reporter(self.0.clone())
    }

    /// Says what `readiness` says now.
    pub(crate) async fn publish(&self, readiness: &Readiness) {
        let status = match readiness.is_ready() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        for name in names() {
            self.0.set_service_status(name, status).await;
        }
    }

    /// Says what `readiness` says, at every one of its `changes`, for ever.
    pub(crate) async fn follow(self, readiness: Readiness, mut changes: Changes) {
        loop {
            changes.changed().await;
            self.publish(&readiness).await;
        }
    }

    /// Ends every Watch call, which would otherwise keep its connection open.
    pub(crate) async fn end(mut self) {
        for name in names() {
            self.0.clear_service_status(name).await;
        }
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once("").chain(PROTOCOLS)
}
