//! What the benchmark of the control plane (`cargo xtask bench control-plane`) sends, to every server the same.

use std::collections::BTreeMap;

use flowctl_proto::flowctl::registry::v1::Heartbeat;
use flowctl_proto::flowctl::v1::{HealthStatus, HeartbeatRequest};
use serde::{Deserialize, Serialize};

/// What a processor of the existing SDK reports.
pub const METRICS: [&str; 8] = [
    "processed_count",
    "error_count",
    "success_count",
    "processing_latency_ms",
    "last_ledger",
    "uptime_seconds",
    "total_bytes",
    "queue_depth",
];

/// How beats travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// `flowctl.v1.ControlPlaneService/Heartbeat`: a call for each.
    Unary,
    /// The same message, and it is sent back. Only the bare server knows this call.
    Echo,
    /// `flowctl.registry.v1.RegistryService/StreamHeartbeats`.
    Streamed,
}

/// What came of sending beats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beaten {
    /// Beats that were taken.
    pub beats: u64,
    /// From the first to the last answer, in seconds.
    pub seconds: f64,
}

/// The id of a service: that of a pod of a Deployment that the operator made.
#[must_use]
pub fn service_id(number: usize) -> String {
    format!("payments.token-transfers.token-transfers-processor-5d4f8c7b9d-{number:05}")
}

/// A beat of a service, for a call of its own.
#[must_use]
pub fn unary(service: usize, round: u64) -> HeartbeatRequest {
    HeartbeatRequest {
        service_id: service_id(service),
        status: HealthStatus::Healthy.into(),
        metrics: METRICS.map(|name| (name.to_owned(), round.to_string())).into(),
    }
}

/// A beat of a service, for a stream.
#[must_use]
pub fn streamed(service: usize, round: u64) -> Heartbeat {
    #[expect(clippy::cast_precision_loss, reason = "any number will do")]
    let number = round as f64;
    Heartbeat {
        service_id: service_id(service),
        status: HealthStatus::Healthy.into(),
        metrics: METRICS.map(|name| (name.to_owned(), number)).into(),
        text_metrics: BTreeMap::new(),
    }
}

// === impl Way ===

impl Way {
    /// Its name on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Echo => "echo",
            Self::Streamed => "streamed",
        }
    }

    /// The path of the call.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Unary => "/flowctl.v1.ControlPlaneService/Heartbeat",
            Self::Echo => "/flowctl.bench.Echo/Heartbeat",
            Self::Streamed => "/flowctl.registry.v1.RegistryService/StreamHeartbeats",
        }
    }
}
