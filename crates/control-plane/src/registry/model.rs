//! What goes into the registry and what is read from it. The wire's own types are used where they say it all
//! (`ServiceType`, `HealthStatus`, `PipelineRun`).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use flowctl_proto::flowctl::ServiceType;
use flowctl_proto::flowctl::v1::{ComponentType, HealthStatus};

use super::error::RegistryError;
use super::metrics::bound;
use crate::limits::Limits;

/// How a service describes itself when it registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The id that it is registered under. Empty: `component_id`, or else one that the registry makes.
    pub service_id: String,
    /// The component that it is an instance of. Empty: `service_id`.
    pub component_id: String,
    /// What it does.
    pub service_type: ServiceType,
    /// A name for people.
    pub name: String,
    /// A sentence for people.
    pub description: String,
    /// Its version.
    pub version: String,
    /// Types of events that it reads.
    pub input_event_types: Vec<String>,
    /// Types of events that it produces.
    pub output_event_types: Vec<String>,
    /// Where it is reached; read from the registry, it is completed with `Service::peer` if it has no host.
    pub endpoint: String,
    /// How many events it takes at a time; 0 if it did not say.
    pub max_inflight: i32,
    /// Properties.
    pub metadata: BTreeMap<String, String>,
    /// How it came here.
    pub origin: Origin,
}

/// How a registration came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// `flowctl.ControlPlane/Register`.
    #[default]
    Legacy,
    /// `flowctl.v1.ControlPlaneService/RegisterComponent`.
    V1,
    /// A beat of an unknown id, on a server that adopts such ids.
    Adopted,
}

/// Who calls, as far as the transport knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller<'a> {
    /// The address that the call came from.
    pub peer: Option<IpAddr>,
    /// Who it was proved to be.
    pub identity: Option<&'a Identity>,
}

/// A Kubernetes identity, as the apiserver confirmed it. A token that is bound to no pod leaves the last two empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// `system:serviceaccount:<namespace>:<name>`.
    pub username: String,
    /// The namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's uid.
    pub pod_uid: String,
}

/// A sign of life. Everything is borrowed: a beat whose metrics have the same names as the one before allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct Beat<'a> {
    /// Who.
    pub service_id: &'a str,
    /// How it says that it is; `Unknown` leaves that as it was.
    pub status: HealthStatus,
    /// What it measures, added to what it reported before. A name that comes twice counts once, with its last value.
    pub metrics: &'a [(&'a str, Value<'a>)],
}

/// A measurement on its way in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Of the legacy dialect.
    Number(f64),
    /// Of `flowctl.v1`. Texts that are numbers are read as numbers by legacy clients, and kept as they were written.
    Text(&'a str),
}

/// What became of a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beaten {
    /// How long the service had been silent (or registered).
    pub gap: Duration,
    /// What it was until now.
    pub was: Liveness,
    /// Metrics that were left out, because a bound was exceeded or the name is empty.
    pub left_out: usize,
}

/// What the registry knows of a service's signs of life, whatever the service says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Liveness {
    /// Registered at most one TTL ago, and has not beaten yet.
    Registered,
    /// Beat at most one TTL ago.
    Live,
    /// Read from disk at most one TTL ago, and has not beaten since.
    Restored,
    /// Silent for more than one TTL. The next beat ends it.
    Expired,
}

/// A service as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// How it described itself; ids and endpoint are filled in.
    pub registration: Registration,
    /// Who was proved to have registered it.
    pub identity: Option<Identity>,
    /// The address that the registration came from, IPv4 where it is one.
    pub peer: Option<IpAddr>,
    /// Whether it gives signs of life.
    pub liveness: Liveness,
    /// What it said last about its health; `Unknown` if it never did. Untouched by expiry.
    pub reported: HealthStatus,
    /// When it registered, to the millisecond.
    pub registered_at: SystemTime,
    /// When it last beat, to the millisecond; `None` if it has not since it registered.
    pub last_heartbeat: Option<SystemTime>,
    /// Beats that this process took since it registered.
    pub heartbeats: u64,
    /// Whether whoever sent the last beat was proved to be who registered.
    pub is_beat_verified: bool,
    /// What it measures.
    pub metrics: BTreeMap<String, Metric>,
    /// Whether metrics of the last beat that brought any were left out, because a bound was exceeded or a name is empty.
    pub are_metrics_truncated: bool,
}

/// The last sign of life of a service, without the cost of reading it whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Sign {
    /// The last beat, to the millisecond.
    pub at: SystemTime,
    /// Beats that this process took since the service registered.
    pub heartbeats: u64,
    /// Whether whoever sent it was proved to be who registered.
    pub is_verified: bool,
    /// The numbers that were asked for, sorted by name.
    pub numbers: Vec<(String, f64)>,
}

/// A measurement on its way out.
#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    /// Reported as a number, or as a text that is one in its shortest form.
    Number(f64),
    /// Reported as any other text.
    Text(String),
}

/// The little that is needed to count services, without the cost of reading them whole.
#[derive(Clone, Copy, Debug)]
pub struct Brief {
    /// What it does.
    pub service_type: ServiceType,
    /// Whether it gives signs of life.
    pub liveness: Liveness,
    /// What it said last about its health.
    pub reported: HealthStatus,
    /// How long it has been silent.
    pub silent_for: Duration,
}

/// Numbers over time, by metric; each series has the oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Sorted by name.
    pub series: BTreeMap<String, Vec<(SystemTime, f64)>>,
}

/// A pipeline that has runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// The newest, without its pipeline file.
    pub latest_run: flowctl_proto::flowctl::PipelineRun,
    /// How many are kept.
    pub runs: u32,
    /// How many of them have not ended.
    pub active_runs: u32,
}

// === impl Registration ===

impl Registration {
    /// The type as `flowctl.v1` has it: a pipeline is UNSPECIFIED there.
    #[must_use]
    pub fn component_type(&self) -> ComponentType {
        match self.service_type {
            ServiceType::Source => ComponentType::Source,
            ServiceType::Processor => ComponentType::Processor,
            ServiceType::Sink => ComponentType::Consumer,
            ServiceType::Unspecified | ServiceType::Pipeline => ComponentType::Unspecified,
        }
    }

    /// Topics for the output types, as a v1 client is told: sources and processors have one for each. A type that has a
    /// version is its own topic (the existing server doubles the ".v1").
    #[must_use]
    pub fn topics(&self) -> Vec<String> {
        let topic = |event_type: &String| match event_type.ends_with(".v1") {
            true => event_type.clone(),
            false => format!("{event_type}.v1"),
        };
        match self.service_type {
            ServiceType::Source | ServiceType::Processor => self.output_event_types.iter().map(topic).collect(),
            ServiceType::Unspecified | ServiceType::Sink | ServiceType::Pipeline => Vec::new(),
        }
    }

    /// What ids that the registry makes begin with: the existing server's words.
    pub(super) fn type_name(&self) -> &'static str {
        match self.service_type {
            ServiceType::Pipeline => self.service_type.as_str_name(),
            ServiceType::Unspecified | ServiceType::Source | ServiceType::Processor | ServiceType::Sink => {
                self.component_type().as_str_name()
            }
        }
    }

    pub(super) fn check(&self, limits: &Limits) -> Result<(), RegistryError> {
        for (what, id) in [
            ("bytes of service_id", &self.service_id),
            ("bytes of component_id", &self.component_id),
        ] {
            bound(what, id.len(), limits.id_bytes)?;
        }
        if self.service_id.chars().any(char::is_control) {
            return Err(RegistryError::Invalid {
                what: "service_id",
                why: "it has control characters",
            });
        }
        let entries = limits.registration_entries;
        bound("entries of metadata", self.metadata.len(), entries)?;
        bound("input event types", self.input_event_types.len(), entries)?;
        bound("output event types", self.output_event_types.len(), entries)?;
        let texts = [&self.name, &self.description, &self.version, &self.endpoint];
        let event_types = self.input_event_types.iter().chain(&self.output_event_types);
        let metadata = self.metadata.iter().flat_map(|(key, value)| [key, value]);
        let bytes = texts
            .into_iter()
            .chain(event_types)
            .chain(metadata)
            .map(String::len)
            .sum();
        bound("bytes of the registration", bytes, limits.registration_bytes)
    }

    /// A registration that says nothing but its id.
    #[must_use]
    pub fn of(service_id: impl Into<String>) -> Self {
        Self {
            service_id: service_id.into(),
            component_id: String::new(),
            service_type: ServiceType::Unspecified,
            name: String::new(),
            description: String::new(),
            version: String::new(),
            input_event_types: Vec::new(),
            output_event_types: Vec::new(),
            endpoint: String::new(),
            max_inflight: 0,
            metadata: BTreeMap::new(),
            origin: Origin::default(),
        }
    }
}

// === impl Service ===

impl Service {
    /// The one status that `flowctl.v1` has room for: UNHEALTHY while it is expired, else what it said, and HEALTHY if
    /// it said nothing.
    #[must_use]
    pub fn status(&self) -> HealthStatus {
        match (self.liveness, self.reported) {
            (Liveness::Expired, _) => HealthStatus::Unhealthy,
            (_, HealthStatus::Unknown) => HealthStatus::Healthy,
            (_, reported) => reported,
        }
    }

    /// The last sign of life: the last beat, or the registration.
    #[must_use]
    pub fn last_seen(&self) -> SystemTime {
        self.last_heartbeat.unwrap_or(self.registered_at)
    }
}

// === impl Metric ===

impl Metric {
    /// As legacy clients read it; `None` if it is no number.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => super::metrics::number(text),
        }
    }
}

/// As `flowctl.v1` clients read it.
impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => f.write_str(&super::metrics::text(*number)),
            Self::Text(text) => f.write_str(text),
        }
    }
}
