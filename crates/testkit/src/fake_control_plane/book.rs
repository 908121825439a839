//! What the real Go server remembers and how it changes (flowctl at e1bf134, run and read on 2026-11-21): a registration is
//! HEALTHY and beats, a beat of status UNKNOWN lifts nothing, the janitor turns only HEALTHY into UNHEALTHY, and nothing
//! is ever forgotten. The janitor looks at every access instead of every ten seconds: what it does comes sooner, not
//! otherwise.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use flowctl_proto::flowctl::{
    ServiceInfo, ServiceType,
    v1::{ComponentInfo, ComponentType, HealthStatus, RegisterRequest},
};
use tonic::Status;

/// One registration.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) info: ComponentInfo,
    pub(super) service_type: ServiceType,
    pub(super) registered_at: SystemTime,
    pub(super) last_seen: SystemTime,
    /// Since it registered.
    pub(super) beats: u64,
    /// As the Go server tells it: what was said last, or UNHEALTHY by the janitor.
    pub(super) status: HealthStatus,
    /// What was said last; a server of ours keeps it apart from expiry.
    pub(super) reported: HealthStatus,
    pub(super) metrics: BTreeMap<String, String>,
    /// Where it called from.
    pub(super) address: Option<IpAddr>,
}

/// The registry.
#[derive(Debug)]
pub(super) struct Book {
    services: BTreeMap<String, Record>,
    ttl: Duration,
    /// Added to this machine's clock: nobody may compare the two.
    pub(super) clock_ahead: Duration,
}

// === impl Book ===

impl Book {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            services: BTreeMap::new(),
            ttl,
            clock_ahead: Duration::ZERO,
        }
    }

    pub(super) fn forget_everything(&mut self) {
        self.services.clear();
    }

    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    fn now(&self) -> SystemTime {
        SystemTime::now() + self.clock_ahead
    }

    /// All of them, by the key that they beat with.
    pub(super) fn services(&mut self) -> &BTreeMap<String, Record> {
        self.expire();
        &self.services
    }

    /// `flowctl.v1`: the request's id, else the component's, else one that is made; the component keeps the id that it gave.
    pub(super) fn register(&mut self, request: RegisterRequest, address: Option<IpAddr>) -> String {
        let info = request.component.unwrap_or_default();
        let kind = info.r#type();
        let id = first([&request.component_id, &info.id]);
        let id = id.unwrap_or_else(|| format!("{}-{}", kind.as_str_name(), nanos(self.now())));
        let service_type = match kind {
            ComponentType::Unspecified => ServiceType::Unspecified,
            ComponentType::Source => ServiceType::Source,
            ComponentType::Processor => ServiceType::Processor,
            ComponentType::Consumer => ServiceType::Sink,
        };
        self.put(id.clone(), info, service_type, address);
        id
    }

    /// `flowctl`: the service's id is the key, the component's id is what lists show; types of v1 lack PIPELINE.
    pub(super) fn register_legacy(&mut self, info: ServiceInfo, address: Option<IpAddr>) -> String {
        let service_type = info.service_type();
        let id = first([&info.service_id, &info.component_id]);
        let id = id.unwrap_or_else(|| format!("{}-{}", service_type.as_str_name(), nanos(self.now())));
        let kind = match service_type {
            ServiceType::Unspecified | ServiceType::Pipeline => ComponentType::Unspecified,
            ServiceType::Source => ComponentType::Source,
            ServiceType::Processor => ComponentType::Processor,
            ServiceType::Sink => ComponentType::Consumer,
        };
        let names = ["processor_name", "source_name", "sink_name", "name"];
        let name = names.into_iter().find_map(|key| info.metadata.get(key));
        let component = ComponentInfo {
            id: first([&info.component_id, &info.service_id]).unwrap_or_default(),
            name: name.cloned().unwrap_or_default(),
            r#type: kind.into(),
            input_event_types: info.input_event_types,
            output_event_types: info.output_event_types,
            endpoint: info.health_endpoint,
            metadata: info.metadata,
            ..ComponentInfo::default()
        };
        self.put(id.clone(), component, service_type, address);
        id
    }

    /// A registration again is a new record, HEALTHY and without metrics.
    fn put(&mut self, id: String, info: ComponentInfo, service_type: ServiceType, address: Option<IpAddr>) {
        let now = self.now();
        let record = Record {
            info,
            service_type,
            registered_at: now,
            last_seen: now,
            beats: 0,
            status: HealthStatus::Healthy,
            reported: HealthStatus::Unknown,
            metrics: BTreeMap::new(),
            address,
        };
        self.services.insert(id, record);
    }

    /// A beat of either dialect; the legacy one says neither status nor metrics.
    pub(super) fn beat(
        &mut self,
        id: &str,
        status: HealthStatus,
        metrics: BTreeMap<String, String>,
    ) -> Result<(), Status> {
        let (now, ttl) = (self.now(), self.ttl);
        let record = self.services.get_mut(id).ok_or_else(|| not_found(id))?;
        record.expire(now, ttl);
        match status {
            HealthStatus::Unknown if record.status == HealthStatus::Unknown => record.status = HealthStatus::Healthy,
            HealthStatus::Unknown => {}
            said => {
                record.status = said;
                record.reported = said;
            }
        }
        record.metrics.extend(metrics);
        record.last_seen = now;
        record.beats += 1;
        Ok(())
    }

    pub(super) fn get(&mut self, id: &str) -> Result<Record, Status> {
        self.expire();
        self.services.get(id).cloned().ok_or_else(|| not_found(id))
    }

    /// Also of an id that is not there.
    pub(super) fn unregister(&mut self, id: &str) {
        self.services.remove(id);
    }

    fn expire(&mut self) {
        let (now, ttl) = (self.now(), self.ttl);
        for record in self.services.values_mut() {
            record.expire(now, ttl);
        }
    }
}

// === impl Record ===

impl Record {
    /// What the janitor does: to HEALTHY alone.
    fn expire(&mut self, now: SystemTime, ttl: Duration) {
        let silent = now.duration_since(self.last_seen).unwrap_or_default();
        if self.status == HealthStatus::Healthy && silent > ttl {
            self.status = HealthStatus::Unhealthy;
        }
    }

    /// What a watcher of ours is told as the service, and not as its beats.
    pub(super) fn is_told_as(&self, told: &Self) -> bool {
        (self.registered_at, self.reported, &self.info, &self.address)
            == (told.registered_at, told.reported, &told.info, &told.address)
            && self.metrics.keys().eq(told.metrics.keys())
    }
}

/// A plain Go error: code UNKNOWN on the wire.
fn not_found(id: &str) -> Status {
    Status::unknown(format!("service {id} not found"))
}

fn first<const N: usize>(ids: [&String; N]) -> Option<String> {
    ids.into_iter().find(|id| !id.is_empty()).cloned()
}

fn nanos(at: SystemTime) -> u128 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}
