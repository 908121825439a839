//! A service as it is shown: the same names as `/api/services` of the server has.

use std::collections::BTreeMap;
use std::time::Duration;

use flowctl_proto::flowctl::ServiceType;
use flowctl_proto::flowctl::registry::v1::metric_value::Value;
use flowctl_proto::flowctl::registry::v1::{Liveness, Service};
use flowctl_proto::flowctl::v1::{ComponentStatusResponse, ComponentType, HealthStatus};
use serde::Serialize;

use crate::time::{ago, rfc3339};

/// A service.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServiceView {
    pub(crate) service_id: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// What it reported, or `expired` while it is silent.
    pub(crate) status: &'static str,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<String>,
    pub(crate) uptime_seconds: Option<u64>,
    pub(crate) registered_at: Option<String>,
    pub(crate) last_heartbeat: Option<String>,
    /// Since it registered, as far as this server process took them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) heartbeats: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) liveness: Option<&'static str>,
    pub(crate) reported_status: &'static str,
    pub(crate) endpoint: String,
    /// The address that the registration came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer_address: Option<String>,
    pub(crate) max_inflight: i32,
    pub(crate) input_event_types: Vec<String>,
    pub(crate) output_event_types: Vec<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) metrics: BTreeMap<String, Number>,
    /// What components say about themselves, by `<component>_status`.
    pub(crate) health_details: BTreeMap<String, String>,
    /// Who was proved to have registered it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
    #[serde(skip)]
    pub(crate) beat_ago: Option<Duration>,
}

/// A measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Number {
    /// JSON and people write whole numbers without a point.
    Whole(i64),
    Real(f64),
    Text(String),
}

// === impl ServiceView ===

impl ServiceView {
    /// From our own service, which knows everything.
    pub(crate) fn from_registry(service: Service) -> Self {
        let liveness = service.liveness();
        let reported = service.reported_status();
        let kind = type_word(service.r#type());
        let (metrics, health_details) = split(service.metrics.into_iter().filter_map(|(key, value)| {
            let value = match value.value? {
                Value::Number(number) => Number::from(number),
                Value::Text(text) => Number::Text(text),
            };
            Some((key, value))
        }));
        Self {
            kind,
            status: status_word(liveness, reported),
            uptime_seconds: uptime(&metrics, service.registered_at.as_ref()),
            registered_at: service.registered_at.as_ref().and_then(rfc3339),
            last_heartbeat: service.last_heartbeat.as_ref().and_then(rfc3339),
            liveness: Some(liveness_word(liveness)),
            reported_status: reported_word(reported),
            beat_ago: service.last_heartbeat.as_ref().and_then(ago),
            service_id: service.service_id,
            name: service.name,
            version: service.version,
            description: service.description,
            config: service.metadata.get("config_file").cloned(),
            network: service.metadata.get("network").cloned(),
            endpoint: service.endpoint,
            peer_address: Some(service.peer_address).filter(|address| !address.is_empty()),
            heartbeats: Some(service.heartbeats),
            max_inflight: service.max_inflight,
            input_event_types: service.input_event_types,
            output_event_types: service.output_event_types,
            metadata: service.metadata,
            metrics,
            health_details,
            identity: service.identity.map(|identity| identity.username),
        }
    }

    /// From the current dialect, for servers that have no other; it does not tell the service id, only the component's.
    pub(crate) fn from_v1(status: ComponentStatusResponse) -> Self {
        let reported = status.status();
        let component = status.component.unwrap_or_default();
        let (metrics, health_details) = split(status.metrics.into_iter().map(|(key, text)| {
            let value = text.parse::<f64>().map_or(Number::Text(text), Number::from);
            (key, value)
        }));
        Self {
            kind: match component.r#type() {
                ComponentType::Unspecified => "unknown",
                ComponentType::Source => "source",
                ComponentType::Processor => "processor",
                ComponentType::Consumer => "sink",
            },
            status: reported_word(reported),
            uptime_seconds: uptime(&metrics, status.registered_at.as_ref()),
            registered_at: status.registered_at.as_ref().and_then(rfc3339),
            last_heartbeat: status.last_heartbeat.as_ref().and_then(rfc3339),
            liveness: None,
            reported_status: reported_word(reported),
            beat_ago: status.last_heartbeat.as_ref().and_then(ago),
            service_id: component.id,
            name: component.name,
            version: component.version,
            description: component.description,
            config: component.metadata.get("config_file").cloned(),
            network: component.metadata.get("network").cloned(),
            endpoint: component.endpoint,
            peer_address: None,
            heartbeats: None,
            max_inflight: 0,
            input_event_types: component.input_event_types,
            output_event_types: component.output_event_types,
            metadata: component.metadata,
            metrics,
            health_details,
            identity: None,
        }
    }

    pub(crate) fn uptime(&self) -> Option<Duration> {
        self.uptime_seconds.map(Duration::from_secs)
    }

    pub(crate) fn is_pipeline(&self) -> bool {
        self.kind == PIPELINE
    }
}

/// As seed 001 calls it.
const PIPELINE: &str = "cdp-pipeline";

fn type_word(kind: ServiceType) -> &'static str {
    match kind {
        ServiceType::Unspecified => "unknown",
        ServiceType::Source => "source",
        ServiceType::Processor => "processor",
        ServiceType::Sink => "sink",
        ServiceType::Pipeline => PIPELINE,
    }
}

/// One word: silence beats what was said; who beats and says nothing is healthy, as legacy clients do.
fn status_word(liveness: Liveness, reported: HealthStatus) -> &'static str {
    match (liveness, reported) {
        (Liveness::Expired, _) => "expired",
        (Liveness::Live, HealthStatus::Unknown) => "healthy",
        (Liveness::Registered, HealthStatus::Unknown) => "registered",
        (Liveness::Unspecified | Liveness::Registered | Liveness::Live | Liveness::Restored, reported) => {
            reported_word(reported)
        }
    }
}

fn reported_word(status: HealthStatus) -> &'static str {
    match status {
        HealthStatus::Unknown => "unknown",
        HealthStatus::Starting => "starting",
        HealthStatus::Healthy => "healthy",
        HealthStatus::Degraded => "degraded",
        HealthStatus::Unhealthy => "unhealthy",
        HealthStatus::Stopping => "stopping",
    }
}

fn liveness_word(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Unspecified => "unknown",
        Liveness::Registered => "registered",
        Liveness::Live => "live",
        Liveness::Restored => "restored",
        Liveness::Expired => "expired",
    }
}

/// What a pipeline counts itself, else the time since it registered.
fn uptime(metrics: &BTreeMap<String, Number>, registered: Option<&prost_types::Timestamp>) -> Option<u64> {
    let told = ["pipeline.uptime_seconds", "uptime_seconds"]
        .into_iter()
        .find_map(|key| match metrics.get(key)? {
            Number::Whole(seconds) => u64::try_from(*seconds).ok(),
            Number::Real(seconds) => Duration::try_from_secs_f64(*seconds)
                .ok()
                .map(|uptime| uptime.as_secs()),
            Number::Text(_) => None,
        });
    told.or_else(|| Some(ago(registered?)?.as_secs()))
}

/// Numbers, and what components say in words.
fn split(all: impl Iterator<Item = (String, Number)>) -> (BTreeMap<String, Number>, BTreeMap<String, String>) {
    let mut metrics = BTreeMap::new();
    let mut details = BTreeMap::new();
    for (key, value) in all {
        match value {
            Number::Text(text) if key.ends_with("_status") => {
                details.insert(key, text);
            }
            value => {
                metrics.insert(key, value);
            }
        }
    }
    (metrics, details)
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        // Beyond 2^53 a double does not count by ones any more.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole and within what a double counts exactly"
        )]
        if number.fract() == 0.0 && number.abs() < EXACT {
            Self::Whole(number as i64)
        } else if number.is_finite() {
            Self::Real(number)
        } else {
            Self::Text(number.to_string())
        }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(f),
            Self::Real(number) => number.fmt(f),
            Self::Text(text) => f.write_str(&crate::table::cleaned(text)),
        }
    }
}
