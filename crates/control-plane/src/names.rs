//! Words for people and machines that read no protobuf: in JSON, in metrics, in alerts.

use flowctl_proto::flowctl::ServiceType;
use flowctl_proto::flowctl::v1::HealthStatus;

use crate::registry::Liveness;

pub(crate) const TYPES: [ServiceType; 5] = [
    ServiceType::Unspecified,
    ServiceType::Source,
    ServiceType::Processor,
    ServiceType::Sink,
    ServiceType::Pipeline,
];

pub(crate) const STATUSES: [HealthStatus; 6] = [
    HealthStatus::Unknown,
    HealthStatus::Starting,
    HealthStatus::Healthy,
    HealthStatus::Degraded,
    HealthStatus::Unhealthy,
    HealthStatus::Stopping,
];

pub(crate) fn type_name(kind: ServiceType) -> &'static str {
    match kind {
        ServiceType::Unspecified => "unspecified",
        ServiceType::Source => "source",
        ServiceType::Processor => "processor",
        ServiceType::Sink => "sink",
        ServiceType::Pipeline => "pipeline",
    }
}

pub(crate) fn status_name(status: HealthStatus) -> &'static str {
    match status {
        HealthStatus::Unknown => "unknown",
        HealthStatus::Starting => "starting",
        HealthStatus::Healthy => "healthy",
        HealthStatus::Degraded => "degraded",
        HealthStatus::Unhealthy => "unhealthy",
        HealthStatus::Stopping => "stopping",
    }
}

pub(crate) fn liveness_name(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Registered => "registered",
        Liveness::Live => "live",
        Liveness::Restored => "restored",
        Liveness::Expired => "expired",
    }
}
