//! From the registry's words to the wire, in three dialects.

use std::time::{Duration, SystemTime};

use flowctl_proto::flowctl as legacy;
use flowctl_proto::flowctl::ServiceType;
use flowctl_proto::flowctl::registry::v1 as ours;
use flowctl_proto::flowctl::v1;
use flowctl_proto::flowctl::v1::HealthStatus;
use prost_types::Timestamp;

use crate::identity::IdentityMode;
use crate::registry::{Identity, Liveness, Metric, Origin, Service, Sign};

/// Property of a v1 component that says what v1's types cannot: that it is a whole pipeline.
pub(crate) const TYPE_PROPERTY: &str = "flowctl.service_type";
/// Property of a v1 component on a server that asks who calls: `verified` or `unverified`.
pub(crate) const IDENTITY_PROPERTY: &str = "flowctl.identity";

/// Whether readers are told that a service's beats were verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdentityShown {
    /// Nobody is asked, so nobody is marked.
    No,
    Yes,
}

pub(crate) fn time(time: SystemTime) -> Timestamp {
    Timestamp::from(time)
}

pub(crate) fn duration(duration: Duration) -> prost_types::Duration {
    // Durations of ours are hours at most.
    duration.try_into().unwrap_or_default()
}

// === flowctl ===

pub(crate) fn legacy_status(service: &Service) -> legacy::ServiceStatus {
    let registration = &service.registration;
    legacy::ServiceStatus {
        service_id: registration.service_id.clone(),
        service_type: registration.service_type.into(),
        is_healthy: service.status() == HealthStatus::Healthy,
        last_heartbeat: Some(time(service.last_seen())),
        metrics: service
            .metrics
            .iter()
            .filter_map(|(name, metric)| Some((name.clone(), metric.number()?)))
            .collect(),
        component_id: registration.component_id.clone(),
    }
}

// === flowctl.v1 ===

pub(crate) fn component(service: &Service, identity: IdentityShown) -> v1::ComponentInfo {
    let registration = &service.registration;
    let mut metadata = registration.metadata.clone();
    if registration.service_type == ServiceType::Pipeline {
        metadata.insert(TYPE_PROPERTY.to_owned(), "PIPELINE".to_owned());
    }
    if identity == IdentityShown::Yes {
        let marked = if service.is_beat_verified {
            "verified"
        } else {
            "unverified"
        };
        metadata.insert(IDENTITY_PROPERTY.to_owned(), marked.to_owned());
    }
    v1::ComponentInfo {
        id: registration.service_id.clone(),
        name: registration.name.clone(),
        description: registration.description.clone(),
        version: registration.version.clone(),
        r#type: registration.component_type().into(),
        input_event_types: registration.input_event_types.clone(),
        output_event_types: registration.output_event_types.clone(),
        endpoint: registration.endpoint.clone(),
        metadata,
    }
}

pub(crate) fn component_status(service: &Service, identity: IdentityShown) -> v1::ComponentStatusResponse {
    v1::ComponentStatusResponse {
        component: Some(component(service, identity)),
        status: service.status().into(),
        last_heartbeat: Some(time(service.last_seen())),
        metrics: service
            .metrics
            .iter()
            .map(|(name, metric)| (name.clone(), metric.to_string()))
            .collect(),
        registered_at: Some(time(service.registered_at)),
    }
}

// === flowctl.registry.v1 ===

pub(crate) fn liveness(liveness: Liveness) -> ours::Liveness {
    match liveness {
        Liveness::Registered => ours::Liveness::Registered,
        Liveness::Live => ours::Liveness::Live,
        Liveness::Restored => ours::Liveness::Restored,
        Liveness::Expired => ours::Liveness::Expired,
    }
}

fn origin(origin: Origin) -> ours::Origin {
    match origin {
        Origin::Legacy => ours::Origin::Legacy,
        Origin::V1 => ours::Origin::V1,
        Origin::Adopted => ours::Origin::Adopted,
    }
}

fn identity(identity: &Identity) -> ours::Identity {
    ours::Identity {
        username: identity.username.clone(),
        namespace: identity.namespace.clone(),
        pod_name: identity.pod_name.clone(),
        pod_uid: identity.pod_uid.clone(),
    }
}

fn metric(metric: &Metric) -> ours::MetricValue {
    let value = match metric {
        Metric::Number(number) => ours::metric_value::Value::Number(*number),
        Metric::Text(text) => ours::metric_value::Value::Text(text.clone()),
    };
    ours::MetricValue { value: Some(value) }
}

pub(crate) fn service(service: &Service, ttl: prost_types::Duration) -> ours::Service {
    let registration = service.registration.clone();
    ours::Service {
        service_id: registration.service_id,
        component_id: registration.component_id,
        name: registration.name,
        description: registration.description,
        version: registration.version,
        r#type: registration.service_type.into(),
        input_event_types: registration.input_event_types,
        output_event_types: registration.output_event_types,
        endpoint: registration.endpoint,
        max_inflight: registration.max_inflight,
        metadata: registration.metadata,
        liveness: liveness(service.liveness).into(),
        reported_status: service.reported.into(),
        registered_at: Some(time(service.registered_at)),
        last_heartbeat: service.last_heartbeat.map(time),
        ttl: Some(ttl),
        metrics: service
            .metrics
            .iter()
            .map(|(name, one)| (name.clone(), metric(one)))
            .collect(),
        origin: origin(registration.origin).into(),
        identity: service.identity.as_ref().map(identity),
        last_heartbeat_verified: service.is_beat_verified,
        peer_address: service.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        heartbeats: service.heartbeats,
        metrics_truncated: service.are_metrics_truncated,
    }
}

pub(crate) fn beat(service_id: String, sign: Sign) -> ours::Beat {
    ours::Beat {
        service_id,
        last_heartbeat: Some(time(sign.at)),
        heartbeats: sign.heartbeats,
        verified: sign.is_verified,
        metrics: sign.numbers.into_iter().collect(),
    }
}

pub(crate) fn identity_mode(mode: IdentityMode) -> ours::IdentityMode {
    match mode {
        IdentityMode::Off => ours::IdentityMode::Off,
        IdentityMode::Permissive => ours::IdentityMode::Permissive,
        IdentityMode::Required => ours::IdentityMode::Required,
    }
}
