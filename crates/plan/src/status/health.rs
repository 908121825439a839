//! The condition Healthy: what heartbeats and the pods themselves prove, per pod, then for the object. What was published
//! stands as long as too little was heard; nothing here may move with time alone, so the instants in messages are taken from
//! what was published where the verdict is the same.

mod published;
mod table;
mod tally;
mod unready;
mod words;

use std::time::Duration;

use flowctl_api::{
    HeartbeatPolicy, Reason, Status,
    status::{HeartbeatStatus, ServiceStatus},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};

pub(crate) use self::published::verdict as published_verdict;
use self::{
    table::{Age, Asked, Kube, Row, Standing},
    tally::Tally,
    unready::Unready,
};
use super::{
    conditions::whole_seconds,
    pods::{self, Place},
    text::count,
    verdict::{Verdict, pod_reference},
};
use crate::heartbeat::{Heartbeats, IdEvidence, ObjectEvidence, Sign};

/// So long a pod may be ready before it is held against it that nothing was heard of it, and so long one that was ready may
/// be without readiness.
const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// Ids that the status lists, at most.
const LISTED: usize = 16;

/// What health is told from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene<'a> {
    pub(super) policy: HeartbeatPolicy,
    pub(super) heartbeats: &'a Heartbeats,
    /// Pods that neither end nor have ended.
    pub(super) pods: &'a [&'a Pod],
    pub(super) place: &'a Place<'a>,
    pub(super) published: Option<&'a Status>,
    /// When the object was made, for one whose pods are not ours.
    pub(super) created: Option<Timestamp>,
}

/// What is told.
#[derive(Clone, Debug)]
pub(super) struct Health {
    pub(super) verdict: Verdict,
    pub(super) heartbeat: Option<HeartbeatStatus>,
    /// Pods that are ready, and not known to be unhealthy; `None`: nobody looked at pods.
    pub(super) fit: Option<usize>,
    /// When the verdict may be another although nothing was heard.
    pub(super) wake_after: Option<Duration>,
}

/// One pod, or whoever beats under the id.
#[derive(Clone, Debug)]
struct Judged {
    name: Option<String>,
    kube: Kube,
    row: Row,
    /// What is the matter, when a container is.
    trouble: Option<Verdict>,
    service: ServiceStatus,
    related: Option<ObjectReference>,
    due: Option<SignedDuration>,
}

/// Judges an object.
pub(super) fn judge(scene: &Scene<'_>) -> Health {
    match (scene.policy, scene.heartbeats) {
        (HeartbeatPolicy::Off, _) => not_read(scene, "heartbeat.policy is Off: heartbeats are not looked at"),
        (HeartbeatPolicy::Auto | HeartbeatPolicy::Required, Heartbeats::NotRead) => not_read(
            scene,
            "no control plane is read for it; Ready is told from the pods alone",
        ),
        (HeartbeatPolicy::Auto | HeartbeatPolicy::Required, Heartbeats::Read { plane, evidence }) => {
            read(scene, plane, evidence)
        }
    }
}

fn not_read(scene: &Scene<'_>, message: &str) -> Health {
    let settles = scene
        .pods
        .iter()
        .filter_map(|pod| pods::settles(pod, scene.place))
        .min();
    Health {
        verdict: Verdict::unknown(Reason::NotConfigured, message),
        heartbeat: None,
        fit: None,
        wake_after: settles.map(|settles| Duration::try_from(settles).unwrap_or_default()),
    }
}

fn read(scene: &Scene<'_>, plane: &str, evidence: &ObjectEvidence) -> Health {
    let judged = scene.judged(evidence);
    let wake = judged.iter().filter_map(|judged| judged.due).min();
    let services = services(&judged);
    let fresh = services.iter().filter(|service| is_fresh(service)).count();
    let tally = Tally {
        fresh,
        expected: services.len(),
        plane,
        is_shared: evidence.is_shared,
    };
    let verdict = tally.verdict(&judged, &services);
    let heartbeat = (!services.is_empty()).then(|| HeartbeatStatus {
        expected: number(services.len()),
        fresh: number(fresh),
        shared: evidence.is_shared,
        services: services.into_iter().take(LISTED).collect(),
    });
    let fit = |judged: &&Judged| {
        judged.kube == Kube::Ready && !matches!(judged.row.standing, Standing::Unhealthy | Standing::Degraded)
    };
    Health {
        verdict,
        heartbeat,
        fit: (!scene.pods.is_empty()).then(|| judged.iter().filter(fit).count()),
        wake_after: wake.map(|wake| Duration::try_from(wake).unwrap_or_default()),
    }
}

/// The ids with what is thought of each, those with trouble first.
fn services(judged: &[Judged]) -> Vec<ServiceStatus> {
    let mut sorted: Vec<(u8, &ServiceStatus)> = judged
        .iter()
        .map(|judged| (rank(judged.row), &judged.service))
        .collect();
    sorted.sort_by_key(|(rank, service)| (*rank, service.id.clone()));
    // With a shared id every pod tells of the same.
    let mut all: Vec<ServiceStatus> = Vec::new();
    for (_, service) in sorted {
        if all.iter().all(|known| known.id != service.id) {
            all.push(service.clone());
        }
    }
    all
}

fn is_fresh(service: &ServiceStatus) -> bool {
    Reason::parse(&service.verdict).is_some_and(table::is_fresh)
}

/// The worst first; what the pods themselves show is the most definite.
fn rank(row: Row) -> u8 {
    match (row.standing, row.reason) {
        (Standing::Unhealthy, Reason::HeartbeatStale) => 1,
        (Standing::Unhealthy, Reason::ReportedUnhealthy) => 2,
        (Standing::Unhealthy, Reason::NeverRegistered) => 3,
        (Standing::Unhealthy, _) => 0,
        (Standing::Degraded, _) => 4,
        (Standing::Unknown, _) => 5,
        (Standing::Uncounted, _) => 6,
        (Standing::Healthy, _) => 7,
    }
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

// === impl Scene ===

impl Scene<'_> {
    fn judged(&self, evidence: &ObjectEvidence) -> Vec<Judged> {
        let shared = evidence.ids.first().filter(|_| evidence.is_shared);
        if self.pods.is_empty() {
            // Somebody else's pods stand behind it.
            return shared
                .map(|id| self.judge_one(None, Some(id), evidence.stale_after))
                .into_iter()
                .collect();
        }
        self.pods
            .iter()
            .map(|pod| {
                let own = || {
                    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                    evidence.ids.iter().find(|id| id.pod_uid.as_deref() == Some(uid))
                };
                self.judge_one(Some(pod), shared.or_else(own), evidence.stale_after)
            })
            .collect()
    }

    fn judge_one(&self, pod: Option<&Pod>, id: Option<&IdEvidence>, stale_after: Duration) -> Judged {
        let name = pod.map(|pod| pods::name(pod).to_owned());
        let trouble = pod.and_then(|pod| pods::trouble(pod, self.place));
        let unready = pod
            .filter(|pod| trouble.is_none() && !pods::is_ready(pod))
            .map(|pod| unready::look(pod, self.place));
        let kube = match (&trouble, &unready) {
            (Some(trouble), _) => Kube::Broken(trouble.reason),
            (None, Some(unready)) => unready.kube,
            (None, None) => Kube::Ready,
        };
        let undecided = Sign::Undecided;
        let sign = id.map_or(&undecided, |id| &id.sign);
        let key = id.map_or_else(|| name.clone().unwrap_or_default(), |id| id.id.clone());
        let published = self.published_of(&key);
        let began = self.began(pod, unready.as_ref());
        let left = began.and_then(|began| self.grace_left(began, pod));
        let silent_since = published
            .as_ref()
            .filter(|service| service.verdict == Reason::HeartbeatStale.as_str())
            .and_then(|service| service.since.as_ref());
        let row = table::judge(Asked {
            kube,
            sign,
            age: if left.is_some() { Age::InGrace } else { Age::Old },
            // Before its containers run, nothing that is heard is its own; since then all of it is, also before it was ready.
            fell_silent: pod
                .and_then(unready::started)
                .or(began)
                .map_or(kube != Kube::Starting, |runs| self.fell_silent(runs, id, stale_after)),
            was_silent: silent_since
                .is_some_and(|since| began.map_or(kube != Kube::Starting, |began| began <= since.0)),
            policy: self.policy,
            published: published.as_ref(),
        });
        let settles = pod.and_then(|pod| pods::settles(pod, self.place));
        let waits = matches!(
            row.reason,
            Reason::WaitingForRegistration | Reason::Starting | Reason::IdentityNotHonoured
        ) && matches!(kube, Kube::Ready | Kube::Lapsed);
        let fails = unready.as_ref().and_then(|unready| unready.left);
        Judged {
            name,
            kube,
            row,
            trouble: trouble.or_else(|| {
                let fails = unready.filter(|_| row.reason == Reason::PodNotReady);
                fails.map(|unready| unready.trouble)
            }),
            service: self.service(key, row, id, published.as_ref()),
            related: pod.map(pod_reference),
            due: settles.into_iter().chain(fails).chain(left.filter(|_| waits)).min(),
        }
    }

    fn service(
        &self,
        id: String,
        row: Row,
        evidence: Option<&IdEvidence>,
        published: Option<&ServiceStatus>,
    ) -> ServiceStatus {
        let sign = evidence.map(|evidence| &evidence.sign);
        let same = published.filter(|published| published.verdict == row.reason.as_str());
        let has_instant = matches!(
            row.reason,
            Reason::HeartbeatStale
                | Reason::ControlPlaneUnreachable
                | Reason::ControlPlaneSuspect
                | Reason::RegistryReset
                | Reason::RegistrationLost
        );
        let began = || {
            let silent = evidence?.silent_for?;
            let began = self
                .place
                .now
                .checked_sub(SignedDuration::try_from(silent).ok()?)
                .ok()?;
            Some(Time(whole_seconds(began)))
        };
        let registered_as = match sign {
            Some(Sign::Elsewhere { id }) => Some(id.clone()),
            Some(Sign::Undecided) => same.and_then(|same| same.registered_as.clone()),
            _ => None,
        };
        let never_registered = match sign {
            Some(Sign::Absent | Sign::Elsewhere { .. } | Sign::Undecided | Sign::Unreachable) | None => {
                published.is_none_or(|published| published.never_registered)
            }
            Some(_) => false,
        };
        ServiceStatus {
            id,
            verdict: row.reason.as_str().to_owned(),
            since: same
                .and_then(|same| same.since.clone())
                .or_else(began)
                .filter(|_| has_instant),
            registered_as: registered_as.filter(|_| row.reason == Reason::IdentityNotHonoured),
            never_registered,
            unverified: match (sign, evidence.and_then(|evidence| evidence.verified)) {
                (Some(Sign::Undecided) | None, None) => published.is_some_and(|published| published.unverified),
                (_, verified) => verified == Some(false),
            },
        }
    }

    /// What was published of an id.
    fn published_of(&self, id: &str) -> Option<ServiceStatus> {
        published::of(self.published?.heartbeat.as_ref()?, id)
    }

    /// Since when it is what it is now: ready, or running without being ready; `None`: nobody knows.
    fn began(&self, pod: Option<&Pod>, unready: Option<&Unready>) -> Option<Timestamp> {
        match (pod, unready) {
            (_, Some(unready)) => unready.started,
            (Some(pod), None) => pods::ready_since(pod),
            (None, None) => self.created,
        }
    }

    /// Whether it gave a sign of life since then, and none for a whole stale time after.
    fn fell_silent(&self, then: Timestamp, id: Option<&IdEvidence>, stale_after: Duration) -> bool {
        let Some(silent) = id.and_then(|id| id.silent_for) else {
            return false;
        };
        let age = Duration::try_from(self.place.now.duration_since(then)).unwrap_or_default();
        (stale_after..=age).contains(&silent)
    }

    /// What is left of the time in which nothing needs to be heard.
    fn grace_left(&self, began: Timestamp, pod: Option<&Pod>) -> Option<SignedDuration> {
        // A node whose clock is far ahead would give time without end: the apiserver's tells then.
        let is_far_ahead = began.duration_since(self.place.now) > GRACE;
        let made = pod.and_then(|pod| pod.metadata.creation_timestamp.as_ref());
        let since = made.filter(|_| is_far_ahead).map_or(began, |made| made.0);
        let left = GRACE.saturating_sub(self.place.now.duration_since(since));
        left.is_positive().then_some(left)
    }
}
