//! From the wire to the registry's words. What a message lacks or has too much of is refused here or by the registry,
//! never passed over in silence; enumerations that this version does not know count as not said.

use std::collections::BTreeMap;

use flowctl_proto::flowctl as legacy;
use flowctl_proto::flowctl::ServiceType;
use flowctl_proto::flowctl::v1;
use prost_types::Timestamp;
use tonic::Status;

use crate::registry::{Origin, Registration, Value};

/// A legacy registration. Name, version and description have no fields there: clients put them among the properties.
pub(crate) fn legacy_registration(info: legacy::ServiceInfo) -> Registration {
    let property = |kind: &str| {
        let keys = ["processor_", "source_", "sink_", ""].map(|role| format!("{role}{kind}"));
        let found = keys.iter().find_map(|key| info.metadata.get(key));
        found.cloned().unwrap_or_default()
    };
    let (name, version, description) = (property("name"), property("version"), property("description"));
    Registration {
        service_type: info.service_type(),
        service_id: info.service_id,
        component_id: info.component_id,
        name,
        description,
        version,
        input_event_types: info.input_event_types,
        output_event_types: info.output_event_types,
        endpoint: info.health_endpoint,
        max_inflight: info.max_inflight,
        metadata: info.metadata,
        origin: Origin::Legacy,
    }
}

/// A registration of the current dialect.
pub(crate) fn registration(request: v1::RegisterRequest) -> Result<Registration, Status> {
    let info = request
        .component
        .ok_or_else(|| Status::invalid_argument("component is missing"))?;
    let service_type = match info.r#type() {
        v1::ComponentType::Unspecified => ServiceType::Unspecified,
        v1::ComponentType::Source => ServiceType::Source,
        v1::ComponentType::Processor => ServiceType::Processor,
        v1::ComponentType::Consumer => ServiceType::Sink,
    };
    Ok(Registration {
        service_id: request.component_id,
        component_id: info.id,
        service_type,
        name: info.name,
        description: info.description,
        version: info.version,
        input_event_types: info.input_event_types,
        output_event_types: info.output_event_types,
        endpoint: info.endpoint,
        max_inflight: 0,
        metadata: info.metadata,
        origin: Origin::V1,
    })
}

/// Topics for output types, in their order: `<type>.v1`, and a type that has a version already is its own topic.
pub(crate) fn topics(registration: &Registration) -> Vec<String> {
    match registration.service_type {
        ServiceType::Source | ServiceType::Processor => {
            let types = registration.output_event_types.iter();
            types
                .map(|kind| match kind.ends_with(".v1") {
                    true => kind.clone(),
                    false => format!("{kind}.v1"),
                })
                .collect()
        }
        ServiceType::Unspecified | ServiceType::Sink | ServiceType::Pipeline => Vec::new(),
    }
}

pub(crate) fn numbers(metrics: &BTreeMap<String, f64>) -> impl Iterator<Item = (&str, Value<'_>)> {
    metrics
        .iter()
        .map(|(name, number)| (name.as_str(), Value::Number(*number)))
}

pub(crate) fn texts(metrics: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, Value<'_>)> {
    metrics.iter().map(|(name, text)| (name.as_str(), Value::Text(text)))
}

/// A sender's clock may be wrong and changes nothing; what is no time at all is a mistake in the sender, and is told.
pub(crate) fn check_time(timestamp: Option<&Timestamp>) -> Result<(), Status> {
    // 0001-01-01 to 9999-12-31, as google.protobuf.Timestamp has it.
    const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    let is_time =
        timestamp.is_none_or(|time| SECONDS.contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos));
    match is_time {
        true => Ok(()),
        false => Err(Status::invalid_argument(
            "timestamp is not valid: it must lie between the years 1 and 9999, with 0 to 999999999 nanos",
        )),
    }
}
