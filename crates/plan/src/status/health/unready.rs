//! Pods that are not ready although no container is in trouble: those that start, those that stopped answering a moment ago,
//! and those that have not answered for long. A process that hangs behind a probe is one of the last.

use flowctl_api::Reason;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::{GRACE, table::Kube};
use crate::status::{deployment::YOUNG, pods::Place, verdict::Verdict};

/// The kubelet may write so long after a container's start that the pod was not ready before it.
const LAG: SignedDuration = SignedDuration::from_secs(10);

/// A pod that is not ready.
#[derive(Clone, Debug)]
pub(super) struct Unready {
    pub(super) kube: Kube,
    /// When its containers began to run; `None`: they do not, or their startup probe has not passed.
    pub(super) started: Option<Timestamp>,
    /// How long until it is held against it; `None`: it is, or time alone changes nothing.
    pub(super) left: Option<SignedDuration>,
    /// What to say when it is held against it.
    pub(super) trouble: Verdict,
}

/// Looks at a pod that is not ready.
pub(super) fn look(pod: &Pod, place: &Place<'_>) -> Unready {
    let started = started(pod);
    let lapsed = started.and_then(|started| {
        let unready = unready_since(pod)?;
        (unready.duration_since(started) > LAG).then_some(unready)
    });
    let held = match (lapsed, started) {
        (Some(lapsed), _) => Some((Kube::Lapsed, lapsed, GRACE)),
        // It opens its own probe only when those that it waits for answer.
        (None, _) if place.upstream.is_some() => None,
        (None, Some(started)) => Some((Kube::Starting, started, YOUNG)),
        (None, None) => None,
    };
    let left = held.map(|(_, since, patience)| patience.saturating_sub(place.now.duration_since(since)));
    let kube = match (held, left) {
        (_, Some(left)) if !left.is_positive() => Kube::Failing,
        (Some((kube, ..)), _) => kube,
        (None, _) => Kube::Starting,
    };
    Unready {
        kube,
        started,
        left: left.filter(|left| left.is_positive()),
        trouble: Verdict::bad(Reason::PodNotReady, words(pod, started, lapsed)),
    }
}

fn words(pod: &Pod, started: Option<Timestamp>, lapsed: Option<Timestamp>) -> String {
    let since = |at: Option<Timestamp>| at.map(|at| format!(" since {at}")).unwrap_or_default();
    match (containers(pod).find(|status| !status.ready), lapsed) {
        (Some(status), Some(lapsed)) => format!(
            "container {} runs, and its readiness probe has failed since {lapsed}",
            status.name
        ),
        (Some(status), None) => format!(
            "container {} has run{}, and its readiness probe has not passed yet",
            status.name,
            since(started)
        ),
        (None, lapsed) => format!(
            "its containers are ready, and it has not been{}: its node does not answer, or a readiness gate is shut",
            since(lapsed)
        ),
    }
}

/// When the last of its containers began to run, if all of them do.
pub(super) fn started(pod: &Pod) -> Option<Timestamp> {
    let begun = containers(pod).map(|status| {
        let running = status.state.as_ref()?.running.as_ref()?;
        // Until its startup probe passes, nobody asks the other one.
        let at = running.started_at.as_ref().filter(|_| status.started != Some(false))?;
        Some(at.0)
    });
    begun.collect::<Option<Vec<Timestamp>>>()?.into_iter().max()
}

fn unready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some(ready.last_transition_time.as_ref()?.0)
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
}
