//! The status that a kubelet would write for an outcome: pure, apart from the time that a caller does not care about.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::{Value, json};

use super::Outcome;

/// How a container is, in the kubelet's three words.
struct State {
    now: Value,
    last: Value,
    is_ready: bool,
    restarts: i32,
}

/// The status of a pod with this outcome and address.
pub(super) fn of(pod: &Pod, outcome: &Outcome, address: &str) -> Value {
    let now = Timestamp::now().to_string();
    if let Outcome::Unschedulable(message) = outcome {
        let condition = condition("PodScheduled", false, "Unschedulable", message, &now);
        return json!({"phase": "Pending", "conditions": [condition]});
    }
    let (containers, init_containers): (&[Container], &[Container]) = match &pod.spec {
        Some(spec) => (&spec.containers, spec.init_containers.as_deref().unwrap_or_default()),
        None => (&[], &[]),
    };
    let statuses: Vec<Value> = containers
        .iter()
        .enumerate()
        .map(|(index, container)| describe(container, state(outcome, index == 0, &now)))
        .collect();
    let is_ready = *outcome == Outcome::Ready;
    let reason = match outcome {
        Outcome::Exit(_) => "PodCompleted",
        _ if is_ready => "",
        _ => "ContainersNotReady",
    };
    json!({
        "phase": phase(outcome),
        "hostIP": "198.19.0.1",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": now,
        "conditions": [
            condition("PodScheduled", true, "", "", &now),
            condition("PodReadyToStartContainers", true, "", "", &now),
            condition("Initialized", true, "", "", &now),
            condition("ContainersReady", is_ready, reason, "", &now),
            condition("Ready", is_ready, reason, "", &now),
        ],
        "containerStatuses": statuses,
        "initContainerStatuses": init_containers
            .iter()
            .map(|container| describe(container, initialized(container, &now)))
            .collect::<Vec<_>>(),
    })
}

fn phase(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Ready | Outcome::NotReady | Outcome::CrashLoop { .. } | Outcome::OomKilled { .. } => "Running",
        Outcome::ImagePullBackOff | Outcome::Unschedulable(_) | Outcome::Pending => "Pending",
        Outcome::Exit(0) => "Succeeded",
        Outcome::Exit(_) => "Failed",
    }
}

/// Only the first container has the trouble; the others run.
fn state(outcome: &Outcome, is_first: bool, now: &str) -> State {
    match outcome {
        Outcome::Exit(code) => State {
            now: terminated(if is_first { *code } else { 0 }, now),
            last: json!({}),
            is_ready: false,
            restarts: 0,
        },
        Outcome::CrashLoop { exit_code, restarts } if is_first => back_off(terminated(*exit_code, now), *restarts),
        Outcome::OomKilled { restarts } if is_first => {
            let mut last = terminated(137, now);
            last["terminated"]["reason"] = json!("OOMKilled");
            back_off(last, *restarts)
        }
        Outcome::ImagePullBackOff => waiting("ImagePullBackOff", "Back-off pulling image: not found", json!({}), 0),
        Outcome::NotReady if is_first => State {
            is_ready: false,
            ..running(now)
        },
        Outcome::Ready
        | Outcome::NotReady
        | Outcome::CrashLoop { .. }
        | Outcome::OomKilled { .. }
        | Outcome::Unschedulable(_)
        | Outcome::Pending => running(now),
    }
}

fn running(now: &str) -> State {
    State {
        now: json!({"running": {"startedAt": now}}),
        last: json!({}),
        is_ready: true,
        restarts: 0,
    }
}

fn back_off(last: Value, restarts: i32) -> State {
    waiting(
        "CrashLoopBackOff",
        "back-off 5m0s restarting failed container",
        last,
        restarts,
    )
}

fn waiting(reason: &str, message: &str, last: Value, restarts: i32) -> State {
    State {
        now: json!({"waiting": {"reason": reason, "message": message}}),
        last,
        is_ready: false,
        restarts,
    }
}

fn terminated(code: i32, now: &str) -> Value {
    let reason = if code == 0 { "Completed" } else { "Error" };
    json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": now, "finishedAt": now}})
}

/// An init container has done its work; one that restarts (a sidecar) runs.
fn initialized(container: &Container, now: &str) -> State {
    match container.restart_policy.as_deref() {
        Some("Always") => running(now),
        _ => State {
            now: terminated(0, now),
            last: json!({}),
            is_ready: true,
            restarts: 0,
        },
    }
}

fn describe(container: &Container, state: State) -> Value {
    let image = container.image.as_deref().unwrap_or_default();
    json!({
        "name": container.name,
        "image": image,
        "imageID": format!("{image}@fake"),
        "containerID": format!("fake://{}", container.name),
        "ready": state.is_ready,
        "started": state.now.get("running").is_some(),
        "restartCount": state.restarts,
        "state": state.now,
        "lastState": state.last,
    })
}

fn condition(kind: &str, is_true: bool, reason: &str, message: &str, now: &str) -> Value {
    let status = if is_true { "True" } else { "False" };
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now})
}
