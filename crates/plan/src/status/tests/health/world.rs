//! A scripted cluster second by second: clients that beat, a control plane that speaks as the real one does (or as ours), and
//! an operator that is woken only by what it asked for. It is long because it plays everybody's part.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::super::*;
use crate::{
    Event,
    heartbeat::{
        Beat, Evidence, Heard, Heartbeats, Identity, IdentityMode, Mark, PlaneState, Reported, Service as Heartbeater,
        Tick, asked_by_processor,
    },
};

/// Where the control plane listens.
pub(super) const PLANE: &str = "flowctl.flowctl-system:8080";
/// Seconds between two heartbeats.
pub(super) const INTERVAL: u64 = 10;
/// The control plane's clock is a fortnight ahead of ours.
const SKEW: i64 = 14 * 86_400;
/// Seconds after which the Go server writes UNHEALTHY over what was said.
const TTL: u64 = 30;

/// Which control plane it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// The Go server, polled: expiry is written over the report, and an UNKNOWN beat does not take it back.
    Go,
    /// A server that speaks the legacy dialect only, polled: it tells of no registration, and of no report.
    Legacy,
    /// Ours, watched.
    Ours,
}

/// What runs in a pod, as the control plane meets it.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// The id that it registers under; `None`: it never registers.
    pub(super) id: Option<String>,
    pub(super) name: String,
    /// What it says with each beat.
    pub(super) says: Reported,
    /// SIGSTOP and SIGCONT.
    pub(super) is_stopped: bool,
    /// It registers, and never beats.
    pub(super) is_mute: bool,
    /// Whether it registers again when it is not known; the Go SDK does not.
    pub(super) is_persistent: bool,
    /// Seconds between two heartbeats.
    pub(super) interval: u64,
    is_registered: bool,
    next: u64,
}

/// A pod of the object.
#[derive(Clone, Debug)]
pub(super) struct PodSim {
    pub(super) name: String,
    pub(super) address: String,
    /// When its process began.
    started: u64,
    ready_since: Option<u64>,
    unready_since: Option<u64>,
    /// A probe asks the process: who is stopped is not ready.
    pub(super) is_probed: bool,
    /// Seconds for which the probe's answer has been another than what is shown.
    doubted: u64,
    /// How far the clock of its node is ahead.
    pub(super) ahead: i64,
    /// The main container's state when it is not simply ready.
    status: Option<Value>,
    pub(super) client: Client,
}

/// One ExternalProcessor.
#[derive(Clone, Debug)]
pub(super) struct Managed {
    pub(super) object: ExternalProcessor,
    pub(super) pods: Vec<PodSim>,
    pub(super) events: Vec<Event>,
    pub(super) writes: usize,
    /// Each status of Healthy that was published, with its second.
    pub(super) flips: Vec<(u64, String)>,
    wake_at: Option<u64>,
    dirty: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    address: String,
    registered: u64,
    beat: Option<u64>,
    said: Reported,
    is_expired: bool,
    is_verified: bool,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) second: u64,
    pub(super) dialect: Dialect,
    /// Seconds between two words of the control plane.
    pub(super) period: u64,
    pub(super) is_reachable: bool,
    pub(super) identity: Option<Identity>,
    pub(super) planes: Vec<PlaneState>,
    instance: u32,
    must_start: bool,
    registry: BTreeMap<String, Entry>,
    pub(super) objects: BTreeMap<String, Managed>,
    evidence: Evidence<String>,
    beaten: BTreeSet<String>,
    changed: BTreeSet<String>,
    serial: u64,
}

// === impl World ===

impl World {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            second: 0,
            dialect,
            period: 5,
            is_reachable: true,
            identity: None,
            planes: Vec::new(),
            instance: 1,
            must_start: true,
            registry: BTreeMap::new(),
            objects: BTreeMap::new(),
            evidence: Evidence::new(Tick(std::time::Duration::ZERO)),
            beaten: BTreeSet::new(),
            changed: BTreeSet::new(),
            serial: 0,
        }
    }

    /// Adds an ExternalProcessor with that many pods, ready from now on.
    pub(super) fn add(&mut self, name: &str, pods: usize, heartbeat: Value) -> &mut Managed {
        let object = read(json!({
            "apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor",
            "metadata": {"name": name, "namespace": "stellar", "generation": 7},
            "spec": {
                "role": "Processor", "port": 50051, "workload": {"image": "ttp:1", "replicas": pods}, "heartbeat": heartbeat,
            },
        }));
        let pods = (0..pods).map(|_| self.pod(name)).collect();
        let managed = Managed {
            object,
            pods,
            events: Vec::new(),
            writes: 0,
            flips: Vec::new(),
            wake_at: None,
            dirty: true,
        };
        self.objects.entry(name.to_owned()).or_insert(managed)
    }

    /// A new pod that is ready and has not registered yet.
    pub(super) fn pod(&mut self, owner: &str) -> PodSim {
        self.serial += 1;
        let name = format!("{owner}-processor-{}", self.serial);
        PodSim {
            client: Client {
                id: Some(format!("stellar.{owner}.{name}")),
                name: owner.to_owned(),
                says: Reported::Unknown,
                is_stopped: false,
                is_mute: false,
                is_persistent: true,
                interval: INTERVAL,
                is_registered: false,
                next: self.second + 1 + self.serial % INTERVAL,
            },
            address: format!("10.0.{}.{}", self.serial / 250, self.serial % 250 + 1),
            started: self.second,
            ready_since: Some(self.second),
            unready_since: None,
            is_probed: false,
            doubted: 0,
            ahead: 0,
            status: None,
            name,
        }
    }

    pub(super) fn of(&mut self, name: &str) -> &mut Managed {
        self.objects.get_mut(name).unwrap()
    }

    /// A pod goes, and another comes.
    pub(super) fn replace(&mut self, name: &str, index: usize) {
        let pod = self.pod(name);
        let managed = self.of(name);
        managed.pods[index] = pod;
        managed.dirty = true;
    }

    /// Its author changed it.
    pub(super) fn touch(&mut self, name: &str) {
        self.of(name).dirty = true;
    }

    /// All pods go: gives them, as they were.
    pub(super) fn leave(&mut self, name: &str) -> Vec<PodSim> {
        let managed = self.of(name);
        managed.dirty = true;
        std::mem::take(&mut managed.pods)
    }

    /// Another pod comes.
    pub(super) fn arrive(&mut self, name: &str) -> &mut PodSim {
        let pod = self.pod(name);
        let managed = self.of(name);
        managed.dirty = true;
        managed.pods.push(pod);
        managed.pods.last_mut().unwrap()
    }

    /// The main container of a pod crashes again and again.
    pub(super) fn crash(&mut self, name: &str, index: usize) {
        let managed = self.of(name);
        let pod = &mut managed.pods[index];
        pod.ready_since = None;
        pod.unready_since = None;
        pod.client.is_stopped = true;
        pod.status = Some(json!({
            "phase": "Running", "podIP": pod.address, "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [container(
                json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}), 4,
                json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "boom"}}), false)],
        }));
        managed.dirty = true;
    }

    /// A pod shows just this.
    pub(super) fn show(&mut self, name: &str, index: usize, status: Value) {
        let managed = self.of(name);
        managed.pods[index].status = Some(status);
        managed.dirty = true;
    }

    /// A crashed pod works again.
    pub(super) fn recover(&mut self, name: &str, index: usize) {
        let second = self.second;
        let managed = self.of(name);
        let pod = &mut managed.pods[index];
        pod.started = second;
        pod.ready_since = Some(second);
        pod.status = None;
        pod.client.is_stopped = false;
        pod.client.is_registered = false;
        managed.dirty = true;
    }

    /// A crashed pod runs again, and is not ready yet.
    pub(super) fn start(&mut self, name: &str, index: usize) {
        self.recover(name, index);
        let second = self.second;
        let pod = &mut self.of(name).pods[index];
        pod.ready_since = None;
        pod.unready_since = Some(second);
    }

    /// The probe of a pod fails from now on, though its process runs.
    pub(super) fn lapse(&mut self, name: &str, index: usize) {
        let second = self.second;
        let managed = self.of(name);
        managed.pods[index].ready_since = None;
        managed.pods[index].unready_since = Some(second);
        managed.dirty = true;
    }

    /// The operator's process ends, and another begins.
    pub(super) fn restart_operator(&mut self) {
        self.evidence = Evidence::new(self.tick());
        self.must_start = true;
        for managed in self.objects.values_mut() {
            managed.dirty = true;
            managed.wake_at = None;
        }
    }

    /// The control plane's process ends, and another begins, with or without what it knew.
    pub(super) fn restart_plane(&mut self, keeps: bool) {
        self.instance += 1;
        self.must_start = true;
        if !keeps {
            self.registry.clear();
        }
    }

    /// The control plane forgets the registrations of one object.
    pub(super) fn unregister(&mut self, name: &str) {
        for pod in &self.objects[name].pods {
            if let Some(id) = &pod.client.id {
                self.registry.remove(id);
                self.changed.insert(id.clone());
            }
        }
    }

    /// One heartbeat reaches the control plane, though the process is stopped.
    pub(super) fn beat_once(&mut self, name: &str) {
        for pod in &self.objects[name].pods {
            let Some(id) = pod.client.id.clone() else { continue };
            if let Some(entry) = self.registry.get_mut(&id) {
                entry.beat = Some(self.second);
                self.beaten.insert(id);
            }
        }
    }

    /// Every client waits so long before it tries again.
    pub(super) fn delay_all(&mut self, seconds: u64) {
        for managed in self.objects.values_mut() {
            for pod in &mut managed.pods {
                pod.client.next = self.second + seconds;
            }
        }
    }

    pub(super) fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.step();
        }
    }

    /// A pod that runs is ready from now on.
    pub(super) fn get_ready(&mut self, name: &str, index: usize) {
        let second = self.second;
        let managed = self.of(name);
        managed.pods[index].ready_since = Some(second);
        managed.dirty = true;
    }

    /// Scales to that many pods; those that come are new.
    pub(super) fn scale(&mut self, name: &str, pods: usize) {
        let new: Vec<PodSim> = (0..pods).map(|_| self.pod(name)).collect();
        let managed = self.of(name);
        managed.pods = new;
        managed.dirty = true;
    }

    /// Whether the process that runs in the first pod has registered and beaten, as far as the control plane knows.
    pub(super) fn has_beaten(&self, name: &str) -> bool {
        let Some(pod) = self.objects[name].pods.first() else {
            return false;
        };
        let entry = pod.client.id.as_ref().and_then(|id| self.registry.get(id));
        entry.is_some_and(|entry| entry.registered >= pod.started && entry.beat.is_some())
    }

    pub(super) fn is_ready(&self, name: &str) -> bool {
        self.objects[name].pods.iter().all(|pod| pod.ready_since.is_some())
    }

    /// Runs until Healthy of the object is told so; gives the seconds that it took.
    pub(super) fn until(&mut self, name: &str, told: &str, at_most: u64) -> u64 {
        let began = self.second;
        while self.healthy(name) != told {
            assert!(
                self.second - began < at_most,
                "{name} is {} after {at_most} s, and should be {told}",
                self.healthy(name)
            );
            self.step();
        }
        self.second - began
    }

    /// `True/HeartbeatFresh`, and the like.
    pub(super) fn healthy(&self, name: &str) -> String {
        self.told(name, ConditionType::Healthy)
    }

    pub(super) fn ready(&self, name: &str) -> String {
        self.told(name, ConditionType::Ready)
    }

    pub(super) fn told(&self, name: &str, kind: ConditionType) -> String {
        self.objects[name]
            .object
            .status
            .as_ref()
            .map(|status| super::super::told(status, kind))
            .unwrap_or_default()
    }

    pub(super) fn status(&self, name: &str) -> &Status {
        self.objects[name].object.status.as_ref().unwrap()
    }

    pub(super) fn message(&self, name: &str) -> String {
        condition(self.status(name), ConditionType::Healthy).message.clone()
    }

    /// Nothing was written, and no event sent, in that time.
    pub(super) fn is_quiet_for(&mut self, seconds: u64) {
        let before: Vec<_> = self
            .objects
            .values()
            .map(|one| (one.writes, one.events.len()))
            .collect();
        self.run(seconds);
        let after: Vec<_> = self
            .objects
            .values()
            .map(|one| (one.writes, one.events.len()))
            .collect();
        assert_eq!(before, after);
    }

    pub(super) fn now(&self) -> Timestamp {
        now() + SignedDuration::from_secs(i64::try_from(self.second).unwrap())
    }

    fn tick(&self) -> Tick {
        Tick(std::time::Duration::from_secs(self.second))
    }

    fn step(&mut self) {
        self.second += 1;
        self.probes();
        self.clients();
        if self.dialect == Dialect::Go {
            self.janitor();
        }
        let mut woken = BTreeSet::new();
        for heard in self.speak() {
            let tick = self.tick();
            let turned = self.evidence.hear(heard, tick);
            woken.extend(turned.owners);
            self.planes.extend(turned.plane);
        }
        let turned = self.evidence.pass_time(self.tick());
        woken.extend(turned.owners);
        self.planes.extend(turned.plane);
        for (name, managed) in &self.objects {
            if managed.dirty || managed.wake_at.is_some_and(|at| at <= self.second) {
                woken.insert(name.clone());
            }
        }
        for name in woken {
            self.pass(&name);
        }
    }

    /// The kubelet's: every 5 s, and three failures make a pod unready.
    fn probes(&mut self) {
        let second = self.second;
        for managed in self.objects.values_mut() {
            for pod in managed
                .pods
                .iter_mut()
                .filter(|pod| pod.is_probed && pod.status.is_none())
            {
                let (answers, is_ready) = (!pod.client.is_stopped, pod.ready_since.is_some());
                pod.doubted = if answers == is_ready { 0 } else { pod.doubted + 1 };
                let is_over = pod.doubted >= if answers { 5 } else { 15 };
                if is_over {
                    pod.doubted = 0;
                    pod.ready_since = answers.then_some(second);
                    pod.unready_since = (!answers).then_some(second);
                    managed.dirty = true;
                }
            }
        }
    }

    fn clients(&mut self) {
        let second = self.second;
        for managed in self.objects.values_mut() {
            for pod in &mut managed.pods {
                let client = &mut pod.client;
                let Some(id) = client.id.clone() else { continue };
                if client.is_stopped || second < client.next {
                    continue;
                }
                client.next = second + client.interval;
                if !self.is_reachable {
                    continue;
                }
                let known = self.registry.contains_key(&id);
                if !client.is_registered || (!known && client.is_persistent) {
                    client.is_registered = true;
                    self.registry.insert(
                        id.clone(),
                        Entry {
                            name: client.name.clone(),
                            address: pod.address.clone(),
                            registered: second,
                            beat: None,
                            said: Reported::Healthy,
                            is_expired: false,
                            is_verified: self.identity.is_none(),
                        },
                    );
                    self.changed.insert(id.clone());
                    // The first beat follows in a second.
                    client.next = second + 1;
                    continue;
                }
                let Some(entry) = self.registry.get_mut(&id).filter(|_| !client.is_mute) else {
                    continue;
                };
                entry.beat = Some(second);
                self.beaten.insert(id.clone());
                if client.says != Reported::Unknown && entry.said != client.says {
                    entry.said = client.says;
                    entry.is_expired = false;
                    self.changed.insert(id);
                }
            }
        }
    }

    /// The Go server's: expiry stays until somebody says HEALTHY.
    fn janitor(&mut self) {
        for entry in self.registry.values_mut() {
            let seen = entry.beat.unwrap_or(entry.registered);
            if self.second - seen > TTL && entry.said == Reported::Healthy {
                entry.said = Reported::Unhealthy;
            }
        }
    }

    fn speak(&mut self) -> Vec<Heard> {
        let is_watched_anew = self.dialect == Dialect::Ours && self.must_start;
        if !self.second.is_multiple_of(self.period) && !is_watched_anew {
            return Vec::new();
        }
        if !self.is_reachable {
            self.must_start = true;
            return vec![Heard::Lost {
                message: format!("connection refused, try {}", self.second),
            }];
        }
        let all: Vec<String> = self.registry.keys().cloned().collect();
        let started = Heard::Started {
            instance: (self.dialect == Dialect::Ours).then(|| self.instance.to_string()),
            persistent: false,
            identity: self.identity.clone(),
        };
        if self.dialect != Dialect::Ours || std::mem::take(&mut self.must_start) {
            self.changed.clear();
            self.beaten.clear();
            let services = all.iter().map(|id| Heard::Service(self.service(id)));
            return std::iter::once(started)
                .chain(services)
                .chain([Heard::Synced])
                .collect();
        }
        let changed = std::mem::take(&mut self.changed);
        let mut said: Vec<Heard> = changed
            .into_iter()
            .map(|id| match self.registry.contains_key(&id) {
                true => Heard::Service(self.service(&id)),
                false => Heard::Removed { id },
            })
            .collect();
        let beats: Vec<Beat> = std::mem::take(&mut self.beaten)
            .into_iter()
            .filter_map(|id| {
                Some(Beat {
                    mark: mark(self.registry.get(&id)?.beat?),
                    verified: self.identity.as_ref().map(|_| self.registry[&id].is_verified),
                    id,
                })
            })
            .collect();
        said.push(if beats.is_empty() {
            Heard::Alive
        } else {
            Heard::Beats(beats)
        });
        said
    }

    fn service(&self, id: &str) -> Heartbeater {
        let entry = &self.registry[id];
        let registered = mark(entry.registered);
        let is_ours = self.dialect == Dialect::Ours;
        Heartbeater {
            // The Go server lists what the client called itself.
            id: id.strip_prefix("COMPONENT_TYPE_").map_or(id, |_| "").to_owned(),
            component_id: String::new(),
            name: entry.name.clone(),
            address: is_ours.then(|| entry.address.parse().unwrap()),
            pod_uid: None,
            registered_at: (self.dialect != Dialect::Legacy).then_some(registered),
            beat: match (entry.beat, self.dialect) {
                (Some(beat), _) => Some(mark(beat)),
                // A registration is the last sign of life there.
                (None, Dialect::Go | Dialect::Legacy) => Some(registered),
                (None, Dialect::Ours) => None,
            },
            reported: match self.dialect {
                Dialect::Legacy => Reported::Unspecified,
                Dialect::Go | Dialect::Ours => entry.said,
            },
            expired: is_ours.then_some(entry.is_expired),
            verified: self.identity.as_ref().map(|_| entry.is_verified),
        }
    }

    fn pass(&mut self, name: &str) {
        let publication = self.publish(name);
        let second = self.second;
        let managed = self.of(name);
        managed.dirty = false;
        managed.wake_at = publication
            .wake_after
            .map(|wait| second + wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        managed.events.extend(publication.events);
        if managed.object.status.as_ref() == Some(&publication.status) {
            return;
        }
        managed.writes += 1;
        managed.object.status = Some(stored(publication.status));
        let truth = condition(managed.object.status.as_ref().unwrap(), ConditionType::Healthy)
            .status
            .clone();
        if managed.flips.last().is_none_or(|(_, last)| *last != truth) {
            managed.flips.push((second, truth));
        }
    }

    /// What a pass would publish now.
    pub(super) fn publish(&mut self, name: &str) -> Publication {
        let tick = self.tick();
        let managed = &self.objects[name];
        let pods: Vec<Arc<Pod>> = managed.pods.iter().map(|pod| pod.live()).collect();
        let mut settings = (*settings()).clone();
        settings.control_plane = Some(flowctl_api::ControlPlane {
            endpoint: PLANE.to_owned(),
            tls: None,
        });
        let heartbeats = match asked_by_processor(&managed.object, &pods, &settings) {
            None => Heartbeats::NotRead,
            Some(asked) => {
                self.evidence.expect(name.to_owned(), asked.expectation, tick);
                Heartbeats::Read {
                    plane: asked.plane.endpoint,
                    evidence: self.evidence.of(&name.to_owned(), tick),
                }
            }
        };
        let ready = pods.iter().filter(|pod| crate::status::pods::is_ready(pod)).count();
        let wanted = i32::try_from(pods.len()).unwrap();
        let mut status = if ready == pods.len() {
            settled(wanted)
        } else {
            unsettled(wanted)
        };
        status["availableReplicas"] = json!(ready);
        let observed = ProcessorObserved {
            object: Arc::new(managed.object.clone()),
            upstreams: BTreeMap::new(),
            unread: BTreeSet::new(),
            used_by: 0,
            children: Children::default(),
            heartbeats,
            settings: Arc::new(settings),
            now: self.now(),
        };
        let mut plan = service().plan;
        if managed.object.spec.external.is_some() {
            plan.present.clear();
            plan.revision = None;
        }
        let applied = Applied {
            children: Children {
                deployments: vec![Arc::new(deployment("ttp-processor", wanted, "RollingUpdate", status))],
                pods,
                ..Children::default()
            },
            failures: Vec::new(),
        };
        processor(&observed, &plan, &applied)
    }
}

/// An instant of the control plane's clock.
fn mark(second: u64) -> Mark {
    Mark((i64::try_from(second).unwrap() + SKEW) * 1_000_000_000)
}

/// The control plane asks who calls.
pub(super) fn asks() -> Identity {
    Identity {
        mode: IdentityMode::Permissive,
        audience: Some("flowctl".to_owned()),
    }
}

// === impl PodSim ===

impl PodSim {
    fn live(&self) -> Arc<Pod> {
        let since =
            |second: u64| (now() + SignedDuration::from_secs(i64::try_from(second).unwrap() + self.ahead)).to_string();
        let status = self.status.clone().unwrap_or_else(|| {
            json!({
                "phase": "Running", "podIP": self.address,
                "conditions": [{
                    "type": "Ready", "status": if self.ready_since.is_some() { "True" } else { "False" },
                    "lastTransitionTime": self.ready_since.or(self.unready_since).map(since),
                }],
                "containerStatuses": [container(
                    json!({"running": {"startedAt": since(self.started)}}), 0, json!({}), self.ready_since.is_some())],
            })
        });
        let mut pod = Pod::clone(&pod(&self.name, REVISION, status));
        let made = now() + SignedDuration::from_secs(i64::try_from(self.started).unwrap());
        pod.metadata.creation_timestamp = Some(read(json!(made.to_string())));
        let interval = read(json!([{"name": "HEARTBEAT_INTERVAL_SECONDS", "value": self.client.interval.to_string()}]));
        pod.spec.as_mut().unwrap().containers[0].env = interval;
        Arc::new(pod)
    }
}
