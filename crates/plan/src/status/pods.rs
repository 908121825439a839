//! The first cause among the pods of a workload. Only pods of the wanted revision are asked: what an older one shows is
//! being replaced.

use flowctl_api::{Reason, labels::REVISION};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::{
    container,
    text::{count, quote},
    verdict::{Verdict, pod_reference},
};

use crate::{Children, heartbeat};

/// What the causes need to know about where they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The instant of the pass.
    pub(super) now: Timestamp,
    /// The field that describes the pods: `spec.runtime` or `spec.workload`.
    pub(super) field: &'a str,
    /// Why exit code 0 is no success here, with the repair.
    pub(super) must_run: &'a str,
    /// What the pods wait for outside the object, when that is known: a step's processor that is not ready.
    pub(super) upstream: Option<&'a str>,
    /// Ready pods as they were published, when that was called available.
    pub(super) served: Option<usize>,
}

/// Pods that neither end nor have ended, sorted by name.
pub(super) fn live(children: &Children) -> Vec<&Pod> {
    let mut live: Vec<&Pod> = children
        .pods
        .iter()
        .map(std::sync::Arc::as_ref)
        .filter(|pod| heartbeat::is_live(pod))
        .collect();
    live.sort_by_key(|pod| name(pod));
    live
}

/// Whether the pod serves.
pub(super) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|(status, ..)| status == "True")
}

/// Whether the pod is being deleted.
pub(super) fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether all containers of the pod ended, for good or bad.
pub(super) fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// The pod's phase.
pub(super) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// Whether the pod runs that revision.
pub(super) fn runs(pod: &Pod, revision: &str) -> bool {
    pod.metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(REVISION))
        .is_some_and(|label| label == revision)
}

/// The most definite cause that keeps a pod from serving, if there is one.
pub(super) fn cause<'p>(pods: impl IntoIterator<Item = &'p Pod>, place: &Place<'_>) -> Option<Verdict> {
    let mut found: Vec<(u8, &str, Verdict)> = pods
        .into_iter()
        .filter(|pod| !is_ending(pod) && !has_ended(pod))
        .filter_map(|pod| {
            let verdict = trouble(pod, place)?;
            Some((rank(verdict.reason), name(pod), verdict))
        })
        .collect();
    found.sort_by_key(|(rank, name, _)| (*rank, *name));
    let reason = found.first()?.2.reason;
    let others = found.iter().filter(|(.., verdict)| verdict.reason == reason).count() - 1;
    let (_, name, mut first) = found.into_iter().next()?;
    let more = if others > 0 {
        format!(", and {} more", count(others, "pod"))
    } else {
        String::new()
    };
    first.message = format!("pod {name}{more}: {}", first.message);
    Some(first)
}

/// What the first pod that is not ready is doing, when nothing is wrong with it.
pub(super) fn progress<'p>(pods: impl IntoIterator<Item = &'p Pod>) -> Option<String> {
    let mut waiting: Vec<&Pod> = pods
        .into_iter()
        .filter(|pod| !is_ending(pod) && !has_ended(pod) && !is_ready(pod))
        .collect();
    waiting.sort_by_key(|pod| name(pod));
    let pod = waiting.first()?;
    let detail = statuses(pod)
        .find_map(|status| container::progress(pod, status))
        .unwrap_or_else(|| match phase(pod) {
            "" | "Pending" => "waits for a node".to_owned(),
            _ => "is not ready yet".to_owned(),
        });
    Some(format!("pod {}: {detail}", name(pod)))
}

/// The pod's name; empty for an object that never was in a cluster.
pub(super) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// What is wrong with a pod, whether it is ready at the moment or not. One that ends without an error and is started again for
/// ever is ready in between, when nothing probes it.
pub(super) fn trouble(pod: &Pod, place: &Place<'_>) -> Option<Verdict> {
    if !is_ready(pod) {
        return pod_cause(pod, place);
    }
    let verdict = statuses(pod).find_map(|status| container::restless(pod, status, place))?;
    Some(verdict.about(pod_reference(pod)))
}

/// Whether the pod is ready, and likely to stay so.
pub(super) fn serves(pod: &Pod, place: &Place<'_>) -> bool {
    is_ready(pod) && trouble(pod, place).is_none()
}

/// When the trouble of a pod that is ready is over, if it does not end again.
pub(super) fn settles(pod: &Pod, place: &Place<'_>) -> Option<SignedDuration> {
    let mut restless =
        statuses(pod).filter(|status| is_ready(pod) && container::restless(pod, status, place).is_some());
    restless.find_map(|status| container::settles(status, place))
}

/// Since when the pod serves; `None`: it does not, or nobody knows.
pub(super) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some(
        ready
            .last_transition_time
            .as_ref()
            .filter(|_| ready.status == "True")?
            .0,
    )
}

fn pod_cause(pod: &Pod, place: &Place<'_>) -> Option<Verdict> {
    let verdict = match condition(pod, "PodScheduled") {
        Some(("False", "Unschedulable" | "SchedulerError", message)) => Some(Verdict::bad(
            Reason::Unschedulable,
            format!("no node takes it: {}", quote(message)),
        )),
        Some(("False", "SchedulingGated", _)) => Some(Verdict::bad(
            Reason::Unschedulable,
            "another program holds it back with a scheduling gate",
        )),
        _ => statuses(pod)
            .filter_map(|status| container::trouble(pod, status, place))
            .min_by_key(|verdict| rank(verdict.reason)),
    };
    verdict.map(|verdict| verdict.about(pod_reference(pod)))
}

/// What comes first when pods show different things: what will not pass by itself.
const fn rank(reason: Reason) -> u8 {
    match reason {
        Reason::CreateContainerConfigError => 0,
        Reason::ImagePullBackOff => 1,
        Reason::OOMKilled => 2,
        Reason::CrashLoopBackOff => 3,
        Reason::ExitedWithoutError => 4,
        _ => 5,
    }
}

/// Init containers that did their work are no longer asked.
fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let init = pod
        .status
        .iter()
        .flat_map(|status| status.init_container_statuses.iter().flatten())
        .filter(|status| {
            let end = status.state.as_ref().and_then(|state| state.terminated.as_ref());
            end.is_none_or(|end| end.exit_code != 0)
        });
    init.chain(
        pod.status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten()),
    )
}

/// Status, reason and message of one of the pod's conditions.
fn condition<'p>(pod: &'p Pod, kind: &str) -> Option<(&'p str, &'p str, &'p str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((
        found.status.as_str(),
        found.reason.as_deref().unwrap_or_default(),
        found.message.as_deref().unwrap_or_default(),
    ))
}
