//! What an object expects of a control plane: which ids, how often, from which pods. It is told from the object and the pods
//! that live, so that a pass judges just what it sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use flowctl_api::{
    ControlPlane, ExternalProcessor, Heartbeat, HeartbeatPolicy, Pipeline, Reason, Status, pipeline::Flavor,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::{Settings, env, pod::MAIN, status::published_verdict, validate::dialled};

/// Without `staleAfterSeconds`: three intervals, and no less than this.
const LEAST_STALE_AFTER: i32 = 30;
/// The longest interval that can be asked for, in seconds; what pods say of themselves is believed no further.
const LONGEST_INTERVAL: i32 = 60;

/// Verdicts on who has not registered by what was heard.
const UNHEARD: [Reason; 3] = [
    Reason::WaitingForRegistration,
    Reason::NotRegistered,
    Reason::NeverRegistered,
];

/// What an object asks of which control plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The control plane that its pods report to, as it is dialled.
    pub plane: ControlPlane,
    /// What it is asked.
    pub expectation: Expectation,
}

/// The ids that an object expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    pub(super) pace: Pace,
    /// What its component may be called.
    pub(super) names: Vec<String>,
    /// One id for all pods, or one for each.
    pub(super) is_shared: bool,
    /// Each id with the pods that should beat under it.
    pub(super) ids: BTreeMap<String, Vec<ExpectedPod>>,
    /// The uids of all pods that live, whether something is expected of them or not.
    pub(super) live: BTreeSet<String>,
    /// Ids that are published as silent: an operator that starts does not take them for healthy.
    pub(super) published_stale: BTreeSet<String>,
    /// Ids that are published as not registered yet: what is registered when an operator starts may be another's.
    pub(super) published_unheard: BTreeSet<String>,
}

/// How often an id should beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) interval: Duration,
    pub(super) stale_after: Duration,
}

/// A pod that should beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExpectedPod {
    pub(super) uid: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) is_ready: bool,
}

/// What a Pipeline asks; `None`: nothing is read for it.
pub fn asked_by_pipeline(object: &Pipeline, pods: &[Arc<Pod>], settings: &Settings) -> Option<Asked> {
    let spec = &object.spec;
    let flavor = spec
        .runtime
        .as_ref()
        .and_then(|runtime| runtime.flavor)
        .unwrap_or_default();
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let shared = match flavor {
        Flavor::Runner => shared_id(spec.heartbeat.as_ref()),
        // The Go binary takes no id: it registers under its pipeline's name.
        Flavor::Cdp => Some(format!("cdp-{namespace}.{name}")),
    };
    let asking = Asking {
        namespace: &namespace,
        name: &name,
        heartbeat: spec.heartbeat.as_ref(),
        plane: spec.control_plane.as_ref(),
        shared,
        place: Place::Here,
        status: object.status.as_ref(),
        settings,
    };
    asking.asked(pods)
}

/// What an ExternalProcessor asks; `None`: nothing is read for it. One that runs elsewhere can be asked for by a fixed id
/// only.
pub fn asked_by_processor(object: &ExternalProcessor, pods: &[Arc<Pod>], settings: &Settings) -> Option<Asked> {
    let spec = &object.spec;
    let shared = shared_id(spec.heartbeat.as_ref());
    let place = match spec.external {
        Some(_) if shared.is_none() => return None,
        Some(_) => Place::Elsewhere,
        None => Place::Here,
    };
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let asking = Asking {
        namespace: &namespace,
        name: &name,
        heartbeat: spec.heartbeat.as_ref(),
        plane: spec.control_plane.as_ref(),
        shared,
        place,
        status: object.status.as_ref(),
        settings,
    };
    asking.asked(pods)
}

/// The id that a pod is told to register under.
fn pod_id(namespace: &str, name: &str, pod: &str) -> String {
    format!("{namespace}.{name}.{pod}")
}

/// Whether the pod counts: neither being deleted nor over.
pub(crate) fn is_live(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

fn shared_id(heartbeat: Option<&Heartbeat>) -> Option<String> {
    heartbeat.and_then(|heartbeat| heartbeat.component_id.clone())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What is asked about the pods of an object.
#[derive(Debug)]
struct Asking<'a> {
    namespace: &'a str,
    name: &'a str,
    heartbeat: Option<&'a Heartbeat>,
    plane: Option<&'a ControlPlane>,
    shared: Option<String>,
    place: Place,
    status: Option<&'a Status>,
    settings: &'a Settings,
}

/// Where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In pods of ours.
    Here,
    Elsewhere,
}

// === impl Asking ===

impl Asking<'_> {
    fn asked(&self, pods: &[Arc<Pod>]) -> Option<Asked> {
        let mut live: Vec<&Pod> = pods.iter().map(Arc::as_ref).filter(|pod| is_live(pod)).collect();
        let plane = self.reported_to(&mut live)?;
        let heartbeat = self.heartbeat.cloned().unwrap_or_default();
        let wanted = heartbeat.interval_seconds.unwrap_or(env::DEFAULT_HEARTBEAT_SECONDS);
        // Pods beat as they were told when they were made, until they are rolled.
        let told = live.iter().filter_map(|pod| interval_of(pod)).max();
        let interval = wanted.max(told.unwrap_or(wanted)).clamp(1, LONGEST_INTERVAL);
        let stale_after = heartbeat
            .stale_after_seconds
            .unwrap_or(LEAST_STALE_AFTER)
            .max(interval.saturating_mul(3));
        let ids = match (heartbeat.policy.unwrap_or_default(), &self.shared) {
            // The control plane is asked how components prove who they are, and for nothing else.
            (HeartbeatPolicy::Off, _) => BTreeMap::new(),
            (HeartbeatPolicy::Auto | HeartbeatPolicy::Required, Some(id)) => {
                let expected = !live.is_empty() || self.place == Place::Elsewhere;
                let pods = live.iter().map(|pod| ExpectedPod::new(pod)).collect();
                expected.then(|| (id.clone(), pods)).into_iter().collect()
            }
            (HeartbeatPolicy::Auto | HeartbeatPolicy::Required, None) => live
                .iter()
                .map(|pod| {
                    let id = pod_id(self.namespace, self.name, &pod.name_any());
                    (id, vec![ExpectedPod::new(pod)])
                })
                .collect(),
        };
        Some(Asked {
            plane,
            expectation: Expectation {
                pace: Pace {
                    interval: seconds(interval),
                    stale_after: seconds(stale_after),
                },
                names: vec![self.name.to_owned(), format!("{}.{}", self.namespace, self.name)],
                is_shared: self.shared.is_some(),
                live: live.iter().filter_map(|pod| pod.uid()).collect(),
                published_stale: self.published_as(&ids, &[Reason::HeartbeatStale]),
                published_unheard: self.published_as(&ids, &UNHEARD),
                ids,
            },
        })
    }

    /// The control plane that the pods were told when they were made, which may be another one than today's. It is dialled
    /// only if the object may name it. While pods are rolled from one to another, it is the one of most pods that are ready;
    /// the others are dropped from `live`: nothing that it says is about them, and what was published of them stands.
    fn reported_to(&self, live: &mut Vec<&Pod>) -> Option<ControlPlane> {
        let dial = |endpoint: &str| dialled(endpoint, self.namespace, self.settings);
        let wanted = match self.plane {
            Some(plane) => ControlPlane {
                endpoint: dial(&plane.endpoint)?,
                tls: plane.tls.clone(),
            },
            None => self.settings.control_plane.clone()?,
        };
        let named = |pod: &Pod| endpoint_of(pod).unwrap_or(&wanted.endpoint).to_owned();
        let mut votes: BTreeMap<String, (usize, bool, usize)> = BTreeMap::new();
        for pod in live.iter() {
            let endpoint = named(pod);
            let is_wanted = endpoint == wanted.endpoint;
            let (ready, of_today, all) = votes.entry(endpoint).or_default();
            *ready += usize::from(is_ready(pod));
            *of_today = is_wanted;
            *all += 1;
        }
        let told = votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(told, _)| told);
        if let Some(told) = &told {
            live.retain(|pod| named(pod) == *told);
        }
        match told {
            Some(told) if told != wanted.endpoint => Some(ControlPlane {
                endpoint: dial(&told)?,
                ..wanted
            }),
            Some(_) | None => Some(wanted),
        }
    }

    /// The ids that are published with one of these verdicts.
    fn published_as(&self, ids: &BTreeMap<String, Vec<ExpectedPod>>, verdicts: &[Reason]) -> BTreeSet<String> {
        let Some(heartbeat) = self.status.and_then(|status| status.heartbeat.as_ref()) else {
            return BTreeSet::new();
        };
        let is_published =
            |id: &&String| published_verdict(heartbeat, id).is_some_and(|verdict| verdicts.contains(&verdict));
        ids.keys().filter(is_published).cloned().collect()
    }
}

// === impl ExpectedPod ===

impl ExpectedPod {
    fn new(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let listed = status
            .iter()
            .flat_map(|status| status.pod_ips.iter().flatten())
            .map(|ip| ip.ip.as_str());
        let mut addresses: Vec<IpAddr> = status
            .and_then(|status| status.pod_ip.as_deref())
            .into_iter()
            .chain(listed)
            .filter_map(|address| address.parse().ok())
            .collect();
        addresses.sort();
        addresses.dedup();
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            addresses,
            is_ready: is_ready(pod),
        }
    }
}

fn endpoint_of(pod: &Pod) -> Option<&str> {
    variable(pod, "FLOWCTL_ENDPOINT")
}

/// How often the pod was told to beat, in seconds.
fn interval_of(pod: &Pod) -> Option<i32> {
    variable(pod, "HEARTBEAT_INTERVAL_SECONDS")?.parse().ok()
}

/// What the pod's own environment says, unless it comes from somewhere that is not read.
fn variable<'p>(pod: &'p Pod, name: &str) -> Option<&'p str> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let main = containers.into_iter().find(|container| container.name == MAIN)?;
    let variable = main.env.iter().flatten().find(|variable| variable.name == name)?;
    variable.value.as_deref().filter(|value| !value.is_empty())
}

fn seconds(number: i32) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or_default())
}
