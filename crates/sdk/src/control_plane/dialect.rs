//! One description and one snapshot in the words of the three dialects. What a dialect has no field for travels as
//! metadata (`health_endpoint`, `max_inflight` in v1; `name`, `version`, `description` in the legacy one), under the keys
//! that the real server reads.

use std::collections::BTreeMap;
use std::time::SystemTime;

use flowctl_proto::flowctl as legacy;
use flowctl_proto::flowctl::registry::v1 as registry;
use flowctl_proto::flowctl::v1;

use super::{Health, Registration, Role, Snapshot};

/// How heartbeats travel; the best that the server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// A stream of ours.
    Stream,
    /// `flowctl.v1`.
    V1,
    /// `flowctl`.
    Legacy,
}

/// A registration in the words of v1, which has no type for a whole pipeline.
pub(super) fn register_v1(it: &Registration, id: Option<&str>) -> v1::RegisterRequest {
    let mut metadata = it.metadata.clone();
    let extras = [
        ("health_endpoint", it.health_endpoint.clone()),
        (
            "max_inflight",
            it.max_inflight.map(|most| most.to_string()).unwrap_or_default(),
        ),
    ];
    add(&mut metadata, extras);
    let id = id.unwrap_or_default().to_owned();
    let kind = match it.role {
        Role::Source => v1::ComponentType::Source,
        Role::Processor => v1::ComponentType::Processor,
        Role::Sink => v1::ComponentType::Consumer,
        Role::Pipeline => v1::ComponentType::Unspecified,
    };
    let component = v1::ComponentInfo {
        id: id.clone(),
        name: it.name.clone(),
        description: it.description.clone(),
        version: it.version.clone(),
        r#type: kind.into(),
        input_event_types: it.input_event_types.clone(),
        output_event_types: it.output_event_types.clone(),
        endpoint: it.endpoint.clone(),
        metadata,
    };
    v1::RegisterRequest {
        component: Some(component),
        component_id: id,
    }
}

/// A registration in the words of the legacy dialect.
pub(super) fn register_legacy(it: &Registration, id: Option<&str>) -> legacy::ServiceInfo {
    let mut metadata = it.metadata.clone();
    let extras = [
        ("name", it.name.clone()),
        ("version", it.version.clone()),
        ("description", it.description.clone()),
        ("endpoint", it.endpoint.clone()),
    ];
    add(&mut metadata, extras);
    let id = id.unwrap_or_default().to_owned();
    let kind = match it.role {
        Role::Source => legacy::ServiceType::Source,
        Role::Processor => legacy::ServiceType::Processor,
        Role::Sink => legacy::ServiceType::Sink,
        Role::Pipeline => legacy::ServiceType::Pipeline,
    };
    legacy::ServiceInfo {
        service_id: id.clone(),
        service_type: kind.into(),
        input_event_types: it.input_event_types.clone(),
        output_event_types: it.output_event_types.clone(),
        health_endpoint: it.health_endpoint.clone(),
        max_inflight: it
            .max_inflight
            .map_or(0, |most| i32::try_from(most).unwrap_or(i32::MAX)),
        metadata,
        component_id: id,
    }
}

pub(super) fn beat_streamed(id: &str, snapshot: Snapshot) -> registry::Heartbeat {
    registry::Heartbeat {
        service_id: id.to_owned(),
        status: health(snapshot.health).into(),
        metrics: finite(snapshot.numbers).collect(),
        text_metrics: snapshot.texts,
    }
}

/// Numbers are texts in v1.
pub(super) fn beat_v1(id: &str, snapshot: Snapshot) -> v1::HeartbeatRequest {
    let mut metrics = snapshot.texts;
    metrics.extend(finite(snapshot.numbers).map(|(key, value)| (key, value.to_string())));
    v1::HeartbeatRequest {
        service_id: id.to_owned(),
        status: health(snapshot.health).into(),
        metrics,
    }
}

/// The legacy dialect has no status and no texts.
pub(super) fn beat_legacy(id: &str, snapshot: Snapshot) -> legacy::ServiceHeartbeat {
    legacy::ServiceHeartbeat {
        service_id: id.to_owned(),
        timestamp: Some(SystemTime::now().into()),
        metrics: finite(snapshot.numbers).collect(),
    }
}

fn health(health: Health) -> v1::HealthStatus {
    match health {
        Health::Healthy => v1::HealthStatus::Healthy,
        Health::Starting => v1::HealthStatus::Starting,
        Health::Degraded => v1::HealthStatus::Degraded,
        Health::Unhealthy => v1::HealthStatus::Unhealthy,
        Health::Stopping => v1::HealthStatus::Stopping,
    }
}

fn finite(numbers: BTreeMap<String, f64>) -> impl Iterator<Item = (String, f64)> {
    numbers.into_iter().filter(|(_, value)| value.is_finite())
}

/// What the author set himself stays.
fn add<const N: usize>(metadata: &mut BTreeMap<String, String>, extras: [(&str, String); N]) {
    for (key, value) in extras {
        if !value.is_empty() {
            metadata.entry(key.to_owned()).or_insert(value);
        }
    }
}
