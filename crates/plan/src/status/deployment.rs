//! What a live Deployment and its pods show: whether it serves, whether a roll-out goes on or is stuck, and why.

use flowctl_api::{Reason, labels::REVISION};
use jiff::SignedDuration;
use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet},
    core::v1::Pod,
};

use super::{
    pods::{self, Place},
    text::quote,
    verdict::Verdict,
    workload::{PodCount, Running},
};
use crate::{ChildKind, ChildRef, status::verdict::child_reference};

/// As long as a roll-out may take, a new pod may: the progress deadline of our Deployments.
pub(super) const YOUNG: SignedDuration = SignedDuration::from_mins(10);

/// Looks at a Deployment that is meant to run.
pub(super) fn look(deployment: &Deployment, replica_sets: &[&ReplicaSet], live: &[&Pod], place: &Place<'_>) -> Running {
    let view = View::new(deployment, live);
    let ready = live
        .iter()
        .filter(|pod| pods::serves(pod, place) && !pods::is_ending(pod))
        .count();
    let cause =
        pods::cause(view.current.iter().copied(), place).or_else(|| creation_failure(deployment, replica_sets, &view));
    let stuck = view.deadline_exceeded();
    // Until the Deployment was looked at, its status may be of when no pods were wanted: then none were enough.
    let is_told_of_now = view.observed() || ready > 0 || view.wanted == 0;
    let (available, going_on, stalled) = if is_told_of_now && view.is_available(ready, place) {
        serving(&view, ready, cause, stuck, place)
    } else {
        not_serving(&view, ready, cause, stuck, place)
    };
    let available = if available.is_bad() && available.related.is_none() {
        available.about(reference(deployment))
    } else {
        available
    };
    Running {
        available,
        going_on,
        stuck: stalled,
        pods: Some(PodCount {
            ready: ready.min(view.wanted),
            wanted: view.wanted,
        }),
        replicas: Some(view.status.replicas.unwrap_or_default()),
    }
}

type Look = (Verdict, Option<String>, Option<Verdict>);

fn serving(view: &View<'_>, ready: usize, cause: Option<Verdict>, stuck: bool, place: &Place<'_>) -> Look {
    if view.wanted == 0 {
        let verdict = Verdict::good(
            Reason::MinimumReplicasAvailable,
            "replicas is 0: nothing runs, as asked",
        );
        return (verdict, view.rolling().then(|| "pods are stopping".to_owned()), None);
    }
    let serving = view.state(ready);
    let trouble = cause
        .as_ref()
        .map(|cause| format!("; {}: {}", cause.reason, cause.message))
        .unwrap_or_default();
    let verdict = Verdict::good(Reason::MinimumReplicasAvailable, format!("{serving}{trouble}"));
    let rollout = format!(
        "{} rolls out, {}/{} pods updated{trouble}",
        view.revision(),
        view.updated(),
        view.wanted
    );
    if stuck && (cause.is_some() || place.upstream.is_none()) {
        let cause = cause.unwrap_or_else(|| {
            Verdict::bad(
                Reason::ProgressDeadlineExceeded,
                format!("{rollout}: it does not come to an end"),
            )
        });
        return (verdict, None, Some(cause.for_a_person()));
    }
    let going_on = if view.rolling() {
        Some(rollout)
    } else {
        view.is_short(ready).then(|| verdict.message.clone())
    };
    (verdict, going_on, None)
}

fn not_serving(view: &View<'_>, ready: usize, cause: Option<Verdict>, stuck: bool, place: &Place<'_>) -> Look {
    let state = view.state(ready);
    let detail = pods::progress(view.current.iter().copied())
        .map(|detail| format!("; {detail}"))
        .unwrap_or_default();
    let verdict = match (cause, stuck) {
        (Some(cause), true) => cause.for_a_person(),
        (Some(cause), false) => cause,
        // The pods only wait, and go on by themselves: nobody has anything to change here.
        (None, true) if let Some(upstream) = place.upstream => {
            Verdict::bad(Reason::Progressing, format!("{state}{detail}; it waits for {upstream}"))
        }
        (None, true) => Verdict::bad(
            Reason::ProgressDeadlineExceeded,
            format!("{state}, and the time for it is over{detail}; the pod's events say what it waits for"),
        )
        .for_a_person(),
        (None, false) if view.old_pods > 0 && view.current.is_empty() => Verdict::bad(
            Reason::Progressing,
            format!("pods of the earlier revision end before {} starts", view.revision()),
        ),
        (None, false) => Verdict::bad(Reason::Progressing, format!("{state}{detail}")),
    };
    let going_on =
        (view.rolling() && !verdict.waits_for_a_person()).then(|| format!("{} rolls out, {state}", view.revision()));
    (verdict, going_on, None)
}

/// How many pods of so many must serve: one may be missing, as the disruption budget has it.
pub(super) fn least(wanted: usize) -> usize {
    wanted.saturating_sub(1).max(1)
}

/// The apiserver's refusal of pods, if there is one.
fn creation_failure(deployment: &Deployment, replica_sets: &[&ReplicaSet], view: &View<'_>) -> Option<Verdict> {
    let of_deployment = view
        .condition("ReplicaFailure")
        .filter(|condition| condition.status == "True")
        .map(|condition| condition.message.as_deref().unwrap_or_default());
    let message = of_deployment.or_else(|| {
        replica_sets
            .iter()
            .filter(|set| {
                view.current_revision.is_none() || revision_label(set.metadata.labels.as_ref()) == view.current_revision
            })
            .flat_map(|set| set.status.iter().flat_map(|status| status.conditions.iter().flatten()))
            .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
            .and_then(|condition| condition.message.as_deref())
    })?;
    let lower = message.to_ascii_lowercase();
    let verdict = if lower.contains("exceeded quota") {
        Verdict::bad(
            Reason::QuotaExceeded,
            format!("no room for its pods: {}", quote(message)),
        )
    } else if lower.contains("forbidden") || lower.contains("denied") || lower.contains("is invalid") {
        Verdict::bad(
            Reason::PodsForbidden,
            format!("its pods are refused: {}", quote(message)),
        )
        .for_a_person()
    } else {
        // A webhook or an apiserver that does not answer may answer the next time.
        Verdict::bad(
            Reason::PodsForbidden,
            format!("its pods cannot be created: {}", quote(message)),
        )
    };
    let waits = lower.contains("failed calling webhook") || lower.contains("serviceaccount");
    let verdict = if waits {
        Verdict {
            severity: crate::Severity::Waiting,
            ..verdict
        }
    } else {
        verdict
    };
    Some(verdict.about(reference(deployment)))
}

fn reference(deployment: &Deployment) -> k8s_openapi::api::core::v1::ObjectReference {
    let name = deployment.metadata.name.clone().unwrap_or_default();
    child_reference(
        &ChildRef {
            kind: ChildKind::Deployment,
            name,
        },
        deployment.metadata.namespace.as_deref(),
    )
}

fn revision_label(labels: Option<&std::collections::BTreeMap<String, String>>) -> Option<&str> {
    labels?.get(REVISION).map(String::as_str)
}

/// The parts of a Deployment that decide.
struct View<'a> {
    wanted: usize,
    recreate: bool,
    /// Seconds for which a pod must be ready to count.
    min_ready: i32,
    generation: i64,
    status: DeploymentStatus,
    current_revision: Option<&'a str>,
    /// Pods of the revision in the template, those that end left out.
    current: Vec<&'a Pod>,
    /// How many pods of other revisions still exist.
    old_pods: usize,
}

// === impl View ===

impl<'a> View<'a> {
    fn new(deployment: &'a Deployment, live: &[&'a Pod]) -> Self {
        let spec = deployment.spec.as_ref();
        let current_revision = spec
            .and_then(|spec| spec.template.metadata.as_ref())
            .and_then(|metadata| revision_label(metadata.labels.as_ref()));
        let is_current = |pod: &&&Pod| current_revision.is_none_or(|revision| pods::runs(pod, revision));
        Self {
            wanted: usize::try_from(spec.and_then(|spec| spec.replicas).unwrap_or(1)).unwrap_or_default(),
            recreate: spec
                .and_then(|spec| spec.strategy.as_ref()?.type_.as_deref())
                .is_some_and(|strategy| strategy == "Recreate"),
            min_ready: spec.and_then(|spec| spec.min_ready_seconds).unwrap_or_default(),
            generation: deployment.metadata.generation.unwrap_or_default(),
            status: deployment.status.clone().unwrap_or_default(),
            current_revision,
            current: live
                .iter()
                .filter(is_current)
                .filter(|pod| !pods::is_ending(pod))
                .copied()
                .collect(),
            old_pods: live
                .iter()
                .filter(|pod| !is_current(pod) && !pods::has_ended(pod))
                .count(),
        }
    }

    /// With Recreate only the wanted revision counts: the old one is on its way out, whatever the Deployment still says.
    /// Otherwise one pod may be missing, as the disruption budget has it, and a scale-up takes its time; the Deployment's
    /// own condition is False in both (`maxUnavailable` is 0), and would make callers' pipelines look broken at every drain.
    fn is_available(&self, ready: usize, place: &Place<'_>) -> bool {
        if self.wanted == 0 {
            return true;
        }
        if self.recreate {
            return self.current.iter().filter(|pod| pods::serves(pod, place)).count() >= self.wanted;
        }
        self.condition("Available")
            .is_some_and(|condition| condition.status == "True")
            || ready.min(self.available_pods()) >= least(self.wanted)
            || self.grows(ready, place)
    }

    /// A scale-up leaves readiness alone, as far as the present tells one: it was available before, none of the ready pods
    /// went away since, and every pod that is not ready is too young to be told off. Two pods lost at once are no
    /// scale-up: fewer are ready than were published.
    fn grows(&self, ready: usize, place: &Place<'_>) -> bool {
        let young = |pod: &&Pod| {
            let created = pod.metadata.creation_timestamp.as_ref();
            created.is_some_and(|created| place.now.duration_since(created.0) < YOUNG)
        };
        let mut waiting = self
            .current
            .iter()
            .filter(|pod| !pods::is_ready(pod) && !pods::has_ended(pod));
        let Some(served) = place.served else { return false };
        ready > 0 && ready >= served && self.old_pods == 0 && waiting.all(young)
    }

    fn available_pods(&self) -> usize {
        usize::try_from(self.status.available_replicas.unwrap_or_default()).unwrap_or_default()
    }

    /// Whether pods are missing although enough serve.
    fn is_short(&self, ready: usize) -> bool {
        ready < self.wanted || (self.observed() && self.available_pods() < self.wanted)
    }

    /// `2/3 pods ready`, and what they still wait for when all are.
    fn state(&self, ready: usize) -> String {
        let counted = format!("{}/{} pods ready", ready.min(self.wanted), self.wanted);
        if self.min_ready > 0 && ready >= self.wanted && self.available_pods() < self.wanted {
            return format!("{counted}; each must stay ready for {} s", self.min_ready);
        }
        counted
    }

    fn rolling(&self) -> bool {
        let wanted = i32::try_from(self.wanted).unwrap_or(i32::MAX);
        let settled = self
            .condition("Progressing")
            .is_some_and(|condition| condition.reason.as_deref() == Some("NewReplicaSetAvailable"));
        !self.observed()
            || self.updated() < wanted
            || self.status.replicas.unwrap_or_default() > self.updated()
            || (!settled && self.status.available_replicas.unwrap_or_default() < wanted)
    }

    fn deadline_exceeded(&self) -> bool {
        self.observed()
            && self.condition("Progressing").is_some_and(|condition| {
                condition.status == "False" && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
            })
    }

    fn observed(&self) -> bool {
        self.status.observed_generation.unwrap_or_default() >= self.generation
    }

    fn updated(&self) -> i32 {
        self.status.updated_replicas.unwrap_or_default()
    }

    fn revision(&self) -> String {
        self.current_revision.map_or_else(
            || "the new revision".to_owned(),
            |revision| format!("revision {revision}"),
        )
    }

    fn condition(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == kind)
    }
}
