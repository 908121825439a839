//! Why a container does not run, from what the kubelet says about it, in words that say what to change. A container that
//! merely takes its time has no cause here.

use flowctl_api::Reason;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};

use super::{
    pods::Place,
    text::{count, last_words, quote},
    verdict::Verdict,
    volumes,
};

/// Name of the container that we render.
pub(super) const MAIN: &str = "main";
/// After running this long a container is no longer in a crash loop: the kubelet forgets its back-off, too.
const SETTLED: SignedDuration = SignedDuration::from_mins(10);
/// A container that ended only once may have met a dependency that was late.
const LOOP: i32 = 2;

/// What is wrong with one container of a pod that has to run for ever, or has not ended yet.
pub(super) fn trouble(pod: &Pod, status: &ContainerStatus, place: &Place<'_>) -> Option<Verdict> {
    let state = status.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let message = waiting.message.as_deref().unwrap_or_default();
        return match waiting.reason.as_deref().unwrap_or_default() {
            reason @ ("ErrImagePull"
            | "ImagePullBackOff"
            | "ErrImageNeverPull"
            | "InvalidImageName"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed") => Some(image(status, reason, message)),
            "CreateContainerConfigError" | "CreateContainerError" => Some(config(status, message, place)),
            "RunContainerError" => Some(Verdict::bad(
                Reason::CrashLoopBackOff,
                format!("container {} cannot be started: {}", status.name, quote(message)),
            )),
            "CrashLoopBackOff" => Some(match last_end(status) {
                Some(end) => ended(pod, status, end, place),
                None => Verdict::bad(
                    Reason::CrashLoopBackOff,
                    format!("container {} ends again and again: {}", status.name, quote(message)),
                ),
            }),
            _ => None,
        };
    }
    if let Some(end) = &state.terminated {
        return loops(status.restart_count + 1, end).then(|| ended(pod, status, end, place));
    }
    let started = state.running.as_ref()?.started_at.as_ref()?.0;
    let end = last_end(status)?;
    let settled = place.now.duration_since(started) >= SETTLED;
    (!status.ready && !settled && loops(status.restart_count, end)).then(|| ended(pod, status, end, place))
}

/// A container of ours that is ready, but ended without an error again and again, and has not run for long since.
pub(super) fn restless(pod: &Pod, status: &ContainerStatus, place: &Place<'_>) -> Option<Verdict> {
    let end = last_end(status).filter(|end| end.exit_code == 0 && !out_of_memory(end))?;
    let again = status.name == MAIN && loops(status.restart_count, end);
    settles(status, place)
        .filter(|_| again)
        .map(|_| ended(pod, status, end, place))
}

/// How long until a container that runs counts as settled.
pub(super) fn settles(status: &ContainerStatus, place: &Place<'_>) -> Option<SignedDuration> {
    let started = status.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0;
    let left = SETTLED.saturating_sub(place.now.duration_since(started));
    left.is_positive().then_some(left)
}

/// Why the container waits, for a pod that is merely not ready yet.
pub(super) fn progress(pod: &Pod, status: &ContainerStatus) -> Option<String> {
    let state = status.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("Waiting");
        // With init containers the kubelet calls it PodInitializing until the first one is created.
        let before_start = matches!(reason, "ContainerCreating" | "PodInitializing");
        if let Some(volumes) = volumes::awaited(pod).filter(|_| before_start) {
            return Some(format!("container {}: {reason}, {volumes}", status.name));
        }
        return Some(match waiting.message.as_deref().filter(|message| !message.is_empty()) {
            Some(message) => format!("container {}: {reason}: {}", status.name, quote(message)),
            None => format!("container {}: {reason}", status.name),
        });
    }
    if status.ready {
        return None;
    }
    match (&state.terminated, last_end(status)) {
        (Some(end), _) | (None, Some(end)) if end.exit_code != 0 => Some(format!(
            "container {} {}, and is started again",
            status.name,
            end_in_words(end)
        )),
        (None, _) => Some(format!("container {} runs, but is not ready yet", status.name)),
        (Some(_), _) => None,
    }
}

/// `ended with exit code 1: <last words>`.
pub(super) fn end_in_words(end: &ContainerStateTerminated) -> String {
    let words = last_words(end.message.as_deref().unwrap_or_default());
    let separator = if words.is_empty() { "" } else { ": " };
    match end.signal.filter(|signal| *signal != 0) {
        Some(signal) => format!("was killed by signal {signal}{separator}{words}"),
        None => format!("ended with exit code {}{separator}{words}", end.exit_code),
    }
}

/// Whether the kernel killed the container for its memory.
pub(super) fn out_of_memory(end: &ContainerStateTerminated) -> bool {
    end.reason.as_deref() == Some("OOMKilled")
}

/// What to say about a container that used too much memory.
pub(super) fn memory_in_words(pod: &Pod, container: &str, place: &Place<'_>) -> String {
    let limit = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .find(|candidate| candidate.name == container)
        .and_then(|candidate| candidate.resources.as_ref()?.limits.as_ref()?.get("memory"))
        .map_or_else(String::new, |limit| format!(" of {}", limit.0));
    format!(
        "container {container} used more memory than its limit{limit} and was killed; raise {}.resources.limits.memory",
        place.field
    )
}

fn last_end(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status
        .last_state
        .as_ref()
        .and_then(|ContainerState { terminated, .. }| terminated.as_ref())
}

fn loops(ends: i32, end: &ContainerStateTerminated) -> bool {
    ends >= LOOP || (ends > 0 && out_of_memory(end))
}

fn ended(pod: &Pod, status: &ContainerStatus, end: &ContainerStateTerminated, place: &Place<'_>) -> Verdict {
    let name = &status.name;
    let restarts = count(usize::try_from(status.restart_count).unwrap_or_default(), "restart");
    if out_of_memory(end) {
        let message = format!("{} ({restarts})", memory_in_words(pod, name, place));
        return Verdict::bad(Reason::OOMKilled, message);
    }
    if end.exit_code == 0 && name == MAIN {
        let message = format!(
            "container {name} ended without an error (exit code 0, {restarts}), but {}",
            place.must_run
        );
        return Verdict::bad(Reason::ExitedWithoutError, message);
    }
    Verdict::bad(
        Reason::CrashLoopBackOff,
        format!("container {name} {} ({restarts})", end_in_words(end)),
    )
}

fn image(status: &ContainerStatus, reason: &str, message: &str) -> Verdict {
    // The kubelet alternates between the pull's own error and a back-off that repeats it: one message for both.
    let detail = message
        .split_once("ErrImagePull: ")
        .map_or(message, |(_, detail)| detail);
    let lower = detail.to_ascii_lowercase();
    let private = ["unauthorized", "denied", "authentication"]
        .iter()
        .any(|word| lower.contains(word));
    let hint = if private {
        "; a private registry needs imagePullSecrets in podTemplate"
    } else {
        ""
    };
    let what = format!("image {:?} of container {}", status.image, status.name);
    match reason {
        "InvalidImageName" => Verdict::bad(
            Reason::ImagePullBackOff,
            format!("{what} is not a valid image name: {}", quote(detail)),
        )
        .for_a_person(),
        "ErrImageNeverPull" => Verdict::bad(
            Reason::ImagePullBackOff,
            format!("{what} is not on the node, and imagePullPolicy is Never: load it or change the policy"),
        )
        .for_a_person(),
        _ if detail.is_empty() || detail.starts_with("Back-off pulling image") => {
            Verdict::bad(Reason::ImagePullBackOff, format!("{what} cannot be pulled{hint}"))
        }
        _ => Verdict::bad(
            Reason::ImagePullBackOff,
            format!("{what} cannot be pulled: {}{hint}", quote(detail)),
        ),
    }
}

fn config(status: &ContainerStatus, message: &str, place: &Place<'_>) -> Verdict {
    let name = &status.name;
    let root = message.contains("image will run as root");
    if root || message.contains("non-numeric user") {
        let user = if root { "root" } else { "a name, not a number" };
        return Verdict::bad(
            Reason::CreateContainerConfigError,
            format!(
                "container {name}: the image's user is {user}, and pods must not run as root; set runAsUser to a number \
                 other than 0 in {}.podTemplate.spec.securityContext, or a numeric USER in the image",
                place.field
            ),
        )
        .for_a_person();
    }
    let lower = message.to_ascii_lowercase();
    let reference = (lower.contains("secret") || lower.contains("configmap"))
        && (lower.contains("not found") || lower.contains("couldn't find key"));
    let text = if reference {
        format!("container {name} refers to what does not exist: {}", quote(message))
    } else {
        format!("container {name} cannot be created: {}", quote(message))
    };
    Verdict::bad(Reason::CreateContainerConfigError, text)
}
