//! What the three dialects say, in the words of `plan::heartbeat`. Where a dialect has no field nothing is made up. Whatever
//! cannot be meant (an id of a megabyte, a status that no version has) is left out or unknown, never an error: one
//! component must not hide the others.

use std::collections::BTreeMap;

use flowctl_bridge::Endpoint;
use flowctl_plan::heartbeat::{Beat, Identity, IdentityMode, Mark, Reported, Service};
use flowctl_proto::flowctl::{
    ServiceStatus,
    registry::v1::{self as registry, Liveness, metric_value::Value},
    v1::{ComponentStatusResponse, HealthStatus},
};
use prost_types::Timestamp;

/// Longer texts are nobody's id: Kubernetes' names, joined, have at most 317 bytes.
const LONGEST: usize = 512;
/// Numbers of one component that are looked at.
pub(super) const MOST_NUMBERS: usize = 64;
/// Names of measurements that our own server takes with a watch, and their bytes.
const MOST_KEYS: usize = 32;
const LONGEST_KEY: usize = 128;

/// Which of a component's measurements are shown in `/metrics`; a name that ends with `*` stands for all that begin so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(Vec<String>);

/// Measurements by their key.
pub(super) type Numbers = BTreeMap<String, f64>;

// === impl Keys ===

impl Keys {
    /// An allow-list: of these names those that have at most 128 bytes, and the first 32.
    #[must_use]
    pub fn new(mut names: Vec<String>) -> Self {
        names.retain(|name| name.len() <= LONGEST_KEY);
        names.truncate(MOST_KEYS);
        Self(names)
    }

    /// As a watch asks for them.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.clone()
    }

    pub(super) fn allow(&self, key: &str) -> bool {
        self.0.iter().any(|name| match name.strip_suffix('*') {
            Some(beginning) => key.starts_with(beginning),
            None => key == name,
        })
    }

    fn choose<K: AsRef<str>>(&self, all: impl IntoIterator<Item = (K, Option<f64>)>) -> Numbers {
        let chosen = all.into_iter().filter(|(key, _)| self.allow(key.as_ref()));
        let numbers = chosen.filter_map(|(key, value)| Some((key.as_ref().to_owned(), value?)));
        let finite = numbers.filter(|(key, value)| value.is_finite() && key.len() <= LONGEST);
        finite.take(MOST_NUMBERS).collect()
    }
}

/// A component in a list of `flowctl.v1`: under its own id, which is not always the one that it beats with; empty for one
/// that gave none. `None`: it is none.
pub(super) fn component(component: ComponentStatusResponse, keys: &Keys) -> Option<(Service, Numbers)> {
    let reported = reported(component.status);
    let info = component.component.filter(|info| info.id.len() <= LONGEST)?;
    let numbers = component.metrics.iter();
    let numbers = keys.choose(numbers.map(|(key, value)| (key, value.parse().ok())));
    let service = Service {
        address: Endpoint::parse(&info.endpoint)
            .ok()
            .and_then(|endpoint| endpoint.host().parse().ok()),
        component_id: info.id.clone(),
        id: info.id,
        name: short(info.name),
        pod_uid: None,
        registered_at: component.registered_at.as_ref().map(time),
        beat: component.last_heartbeat.as_ref().map(time),
        reported,
        expired: None,
        verified: None,
    };
    Some((service, numbers))
}

/// A service in a list of the legacy dialect, which knows no report: `is_healthy` is expiry, where it is filled at all.
pub(super) fn legacy(status: ServiceStatus) -> Option<Service> {
    let is_id = |id: &String| id.len() <= LONGEST;
    Some(Service {
        id: Some(status.service_id).filter(is_id)?,
        component_id: short(status.component_id),
        name: String::new(),
        address: None,
        pod_uid: None,
        registered_at: None,
        beat: status.last_heartbeat.as_ref().map(time),
        reported: Reported::Unspecified,
        expired: None,
        verified: None,
    })
}

/// A service of our own registry. `asks`: the server looks at tokens.
pub(super) fn registered(service: registry::Service, asks: bool, keys: &Keys) -> Option<(Service, Numbers)> {
    if service.service_id.len() > LONGEST {
        return None;
    }
    let (reported, liveness) = (reported(service.reported_status), service.liveness());
    let numbers = service.metrics.iter().map(|(key, value)| (key, number(value)));
    let numbers = keys.choose(numbers);
    let verified = asks.then_some(service.identity.is_some() && service.last_heartbeat_verified);
    let said = || Endpoint::parse(&service.endpoint).ok()?.host().parse().ok();
    let translated = Service {
        address: service.peer_address.parse().ok().or_else(said),
        beat: mark(service.last_heartbeat.as_ref(), service.heartbeats),
        id: service.service_id,
        component_id: short(service.component_id),
        name: short(service.name),
        pod_uid: service.identity.map(|who| who.pod_uid).filter(|uid| !uid.is_empty()),
        registered_at: service.registered_at.as_ref().map(time),
        reported,
        expired: Some(liveness == Liveness::Expired),
        verified,
    };
    Some((translated, numbers))
}

/// A beat in our own stream, with what it measured.
pub(super) fn beat(beat: registry::Beat, asks: bool, keys: &Keys) -> Option<(Beat, Numbers)> {
    let numbers = beat.metrics.iter().map(|(key, value)| (key, Some(*value)));
    let numbers = keys.choose(numbers);
    let translated = Beat {
        mark: mark(beat.last_heartbeat.as_ref(), beat.heartbeats)?,
        verified: asks.then_some(beat.verified),
        id: beat.service_id,
    };
    Some((translated, numbers))
}

/// Whom our own server believes.
pub(super) fn identity(started: &registry::WatchStarted) -> Option<Identity> {
    let mode = match started.identity_mode() {
        registry::IdentityMode::Unspecified => return None,
        registry::IdentityMode::Off => IdentityMode::Off,
        registry::IdentityMode::Permissive => IdentityMode::Permissive,
        registry::IdentityMode::Required => IdentityMode::Required,
    };
    let audience = Some(started.token_audience.clone()).filter(|audience| !audience.is_empty());
    Some(Identity { mode, audience })
}

/// The server's count of beats, where it counts them; else the time of the last one. Before the first one that this
/// server process took there is only the time.
fn mark(last: Option<&Timestamp>, beats: u64) -> Option<Mark> {
    match i64::try_from(beats) {
        Ok(beats) if beats > 0 => Some(Mark(beats)),
        Ok(_) | Err(_) => last.map(time),
    }
}

/// A server's time, for which only one question is allowed: whether it is the same.
fn time(time: &Timestamp) -> Mark {
    let nanos = time.seconds.saturating_mul(1_000_000_000);
    Mark(nanos.saturating_add(time.nanos.into()))
}

fn reported(status: i32) -> Reported {
    match HealthStatus::try_from(status) {
        Ok(HealthStatus::Unknown) => Reported::Unknown,
        Ok(HealthStatus::Starting) => Reported::Starting,
        Ok(HealthStatus::Healthy) => Reported::Healthy,
        Ok(HealthStatus::Degraded) => Reported::Degraded,
        Ok(HealthStatus::Unhealthy) => Reported::Unhealthy,
        Ok(HealthStatus::Stopping) => Reported::Stopping,
        Err(_) => Reported::Unspecified,
    }
}

fn number(value: &registry::MetricValue) -> Option<f64> {
    match value.value.as_ref()? {
        Value::Number(number) => Some(*number),
        Value::Text(_) => None,
    }
}

/// A text that is not too long to be kept; a longer one is nothing.
fn short(text: String) -> String {
    if text.len() > LONGEST { String::new() } else { text }
}
