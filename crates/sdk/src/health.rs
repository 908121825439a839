//! One truth about health, in three dialects: `/readyz` (served by the runtime), pipeline.v1's HealthCheck, and
//! grpc.health.v1 for probes. The truth is the [`Readiness`] registry.

use std::collections::BTreeMap;

use flowctl_proto::pipeline::v1::{HealthCheckResponse, HealthStatus};
use flowctl_runtime::{Changes, Readiness};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};

/// What a service says about itself.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) readiness: Readiness,
}

/// Tells grpc.health.v1 what [`Readiness`] says, for the whole server (the name "") and its service.
#[derive(Debug, Clone)]
pub(crate) struct ProbeHealth {
    reporter: HealthReporter,
    names: [&'static str; 2],
}

// === impl About ===

impl About {
    /// pipeline.v1's answer. DEGRADED is never said: a service takes messages or it does not.
    pub(crate) fn check(&self) -> HealthCheckResponse {
        let (status, message) = match self.readiness.state() {
            Ok(()) => (HealthStatus::Healthy, format!("{} is healthy", self.name)),
            Err(waiting) => {
                let parts: Vec<String> = waiting.0.iter().map(|(name, why)| format!("{name}: {why}")).collect();
                (
                    HealthStatus::Unhealthy,
                    format!("{} is not ready: {}", self.name, parts.join("; ")),
                )
            }
        };
        let metadata = BTreeMap::from([
            ("name".to_owned(), self.name.to_owned()),
            ("version".to_owned(), self.version.to_owned()),
        ]);
        HealthCheckResponse {
            status: status.into(),
            message,
            metadata,
        }
    }
}

// === impl ProbeHealth ===

impl ProbeHealth {
    pub(crate) fn new(service: &'static str) -> Self {
        Self {
            reporter: HealthReporter::new(),
            names: ["", service],
        }
    }

    /// The gRPC service that probes call.
    pub(crate) fn service(&self) -> HealthService {
        HealthService::from_health_reporter(self.reporter.clone())
    }

    /// Says what `readiness` says now.
    pub(crate) async fn publish(&self, readiness: &Readiness) {
        let status = if readiness.is_ready() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for name in self.names {
            self.reporter.set_service_status(name, status).await;
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
        for name in self.names {
            self.reporter.clear_service_status(name).await;
        }
    }
}
