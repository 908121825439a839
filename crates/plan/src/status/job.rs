//! What a live Job and its pods show: whether the batch run goes on, is complete, or failed, and of what.

use flowctl_api::Reason;
use k8s_openapi::api::{
    batch::v1::{Job, JobCondition},
    core::v1::{ContainerStateTerminated, Pod},
};

use super::{
    container::{self, MAIN},
    pods::{self, Place},
    text::{count, quote},
    verdict::{Verdict, child_reference, pod_reference},
    workload::{PodCount, Running},
};
use crate::{ChildKind, ChildRef};

/// What a failed run needs.
const AGAIN: &str = "a new value of spec.restartedAt runs it again";

/// Whether the Job came to its end, so that nothing can be suspended or started any more.
pub(super) fn is_finished(job: &Job) -> bool {
    condition(job, "Complete").is_some() || condition(job, "Failed").is_some()
}

/// Looks at a Job that is meant to run.
pub(super) fn look(job: &Job, live: &[&Pod], place: &Place<'_>) -> Running {
    let ready = live
        .iter()
        .filter(|pod| pods::is_ready(pod) && !pods::is_ending(pod))
        .count();
    let failed =
        usize::try_from(job.status.as_ref().and_then(|status| status.failed).unwrap_or_default()).unwrap_or_default();
    let available = verdict(job, live, ready, failed, place);
    let finished = is_finished(job);
    let going_on = (available.is_bad() && !finished).then(|| "the batch run starts".to_owned());
    let wanted = usize::from(!finished);
    Running {
        available,
        going_on,
        stuck: None,
        pods: Some(PodCount {
            ready: ready.min(wanted),
            wanted,
        }),
        replicas: None,
    }
}

fn verdict(job: &Job, live: &[&Pod], ready: usize, failed: usize, place: &Place<'_>) -> Verdict {
    if condition(job, "Complete").is_some() {
        let tries = if failed > 0 {
            format!(", after {}", count(failed, "failed try").replace("trys", "tries"))
        } else {
            String::new()
        };
        return Verdict::good(Reason::Complete, format!("the batch run is complete{tries}"));
    }
    if let Some(end) = condition(job, "Failed").or_else(|| condition(job, "FailureTarget")) {
        return failure(job, end, live, place);
    }
    let tries = tries(job, failed);
    let succeeded =
        condition(job, "SuccessCriteriaMet").is_some() || live.iter().any(|pod| pods::phase(pod) == "Succeeded");
    if ready > 0 || succeeded {
        return Verdict::good(Reason::Running, format!("the batch run goes on{tries}"));
    }
    if let Some(cause) = pods::cause(live.iter().copied(), place) {
        return cause;
    }
    let detail = pods::progress(live.iter().copied())
        .map(|detail| format!("; {detail}"))
        .unwrap_or_default();
    let Some((pod, end)) = last_failure(live).filter(|_| failed > 0) else {
        return Verdict::bad(Reason::Progressing, format!("the batch run starts{tries}{detail}")).about(reference(job));
    };
    let (reason, words) = if container::out_of_memory(end) {
        (Reason::OOMKilled, container::memory_in_words(pod, MAIN, place))
    } else if failed > 1 {
        (Reason::CrashLoopBackOff, container::end_in_words(end))
    } else {
        (Reason::Progressing, container::end_in_words(end))
    };
    Verdict::bad(
        reason,
        format!("pod {} {words}; tried again{tries}{detail}", pods::name(pod)),
    )
    .about(pod_reference(pod))
}

fn failure(job: &Job, end: &JobCondition, live: &[&Pod], place: &Place<'_>) -> Verdict {
    let reason = end.reason.as_deref().unwrap_or("Failed");
    let message = quote(end.message.as_deref().unwrap_or_default());
    let verdict = match last_failure(live) {
        Some((pod, end)) => {
            let words = if container::out_of_memory(end) {
                container::memory_in_words(pod, MAIN, place)
            } else {
                container::end_in_words(end)
            };
            let text = format!(
                "the batch run failed: pod {} {words} ({reason}: {message}); {AGAIN}",
                pods::name(pod)
            );
            Verdict::bad(Reason::Failed, text).about(pod_reference(pod))
        }
        None => {
            let text = format!("the batch run failed: {reason}: {message}; {AGAIN}");
            Verdict::bad(Reason::Failed, text).about(reference(job))
        }
    };
    verdict.for_a_person()
}

/// `, try 2 of 4`, once a try has failed.
fn tries(job: &Job, failed: usize) -> String {
    let limit = job.spec.as_ref().and_then(|spec| spec.backoff_limit);
    match limit.and_then(|limit| usize::try_from(limit).ok()) {
        Some(limit) if failed > 0 => format!(", try {} of {}", failed.min(limit) + 1, limit + 1),
        None if failed > 0 => format!(", try {}", failed + 1),
        _ => String::new(),
    }
}

/// The end of the container that failed last.
fn last_failure<'p>(live: &[&'p Pod]) -> Option<(&'p Pod, &'p ContainerStateTerminated)> {
    live.iter()
        .filter_map(|pod| {
            let status = pod.status.as_ref()?;
            let end = status
                .container_statuses
                .iter()
                .flatten()
                .chain(status.init_container_statuses.iter().flatten())
                .filter_map(|container| container.state.as_ref()?.terminated.as_ref())
                .find(|end| end.exit_code != 0)?;
            Some((*pod, end))
        })
        .max_by_key(|(pod, end)| (end.finished_at.as_ref().map(|at| at.0), pods::name(pod)))
}

fn condition<'j>(job: &'j Job, kind: &str) -> Option<&'j JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == "True")
}

fn reference(job: &Job) -> k8s_openapi::api::core::v1::ObjectReference {
    let name = job.metadata.name.clone().unwrap_or_default();
    child_reference(
        &ChildRef {
            kind: ChildKind::Job,
            name,
        },
        job.metadata.namespace.as_deref(),
    )
}
