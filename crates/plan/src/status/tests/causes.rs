//! Causes that pods show, and the words for them.

use super::*;
use serde_json::json;

struct Case {
    name: &'static str,
    pods: Vec<Arc<Pod>>,
    reason: Reason,
    says: &'static [&'static str],
    stalled: bool,
}

pub(super) fn ended(code: i32, reason: &str, message: &str) -> Value {
    json!({"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": "2026-03-01T11:59:00Z"}})
}

pub(super) fn waiting(reason: &str, message: &str) -> Value {
    json!({"waiting": {"reason": reason, "message": message}})
}

fn running() -> Value {
    json!({"running": {"startedAt": "2026-03-01T11:59:30Z"}})
}

fn cases() -> Vec<Case> {
    let one = |name, state, restarts, last, reason, says, stalled| Case {
        name,
        pods: vec![starting("ttp-a", state, restarts, last)],
        reason,
        says,
        stalled,
    };
    let back_off = || waiting("CrashLoopBackOff", "back-off 5m0s restarting failed container=main");
    vec![
        one(
            "crash loop",
            back_off(),
            5,
            ended(1, "Error", "boot\ncannot open the database\n"),
            Reason::CrashLoopBackOff,
            &[
                "pod ttp-a",
                "exit code 1",
                "5 restarts",
                "boot; cannot open the database",
            ],
            false,
        ),
        one(
            "crash loop, running again",
            running(),
            5,
            ended(1, "Error", "x"),
            Reason::CrashLoopBackOff,
            &["exit code 1"],
            false,
        ),
        one(
            "crash loop, just ended",
            ended(1, "Error", "x"),
            5,
            json!({}),
            Reason::CrashLoopBackOff,
            &["exit code 1"],
            false,
        ),
        one(
            "ended once, running again",
            running(),
            1,
            ended(1, "Error", "x"),
            Reason::Progressing,
            &["0/3 pods ready"],
            false,
        ),
        one(
            "crash loop long ago",
            json!({"running": {"startedAt": "2026-03-01T10:00:00Z"}}),
            5,
            ended(1, "Error", "x"),
            Reason::Progressing,
            &["0/3 pods ready"],
            false,
        ),
        one(
            "cannot start",
            back_off(),
            2,
            ended(128, "StartError", "exec: \"ttp\": executable file not found in $PATH"),
            Reason::CrashLoopBackOff,
            &["executable file not found"],
            false,
        ),
        one(
            "killed",
            back_off(),
            3,
            json!({"terminated": {"exitCode": 139, "signal": 11}}),
            Reason::CrashLoopBackOff,
            &["signal 11"],
            false,
        ),
        one(
            "out of memory",
            back_off(),
            2,
            ended(137, "OOMKilled", ""),
            Reason::OOMKilled,
            &[
                "more memory than its limit of 512Mi",
                "spec.workload.resources.limits.memory",
            ],
            false,
        ),
        one(
            "out of memory once",
            running(),
            1,
            ended(137, "OOMKilled", ""),
            Reason::OOMKilled,
            &["512Mi"],
            false,
        ),
        one(
            "ended well",
            back_off(),
            2,
            ended(0, "Completed", ""),
            Reason::ExitedWithoutError,
            &["exit code 0", "must keep running"],
            false,
        ),
        one(
            "image is missing",
            waiting("ErrImagePull", "rpc error: ttp:1: not found"),
            0,
            json!({}),
            Reason::ImagePullBackOff,
            &["\"ttp:1\" of container main cannot be pulled", "not found"],
            false,
        ),
        one(
            "image is private",
            waiting(
                "ImagePullBackOff",
                "Back-off pulling image \"ttp:1\": ErrImagePull: 401 Unauthorized",
            ),
            0,
            json!({}),
            Reason::ImagePullBackOff,
            &["401 Unauthorized", "imagePullSecrets"],
            false,
        ),
        one(
            "image name is wrong",
            waiting("InvalidImageName", "couldn't parse image name"),
            0,
            json!({}),
            Reason::ImagePullBackOff,
            &["not a valid image name"],
            true,
        ),
        one(
            "image must be loaded",
            waiting("ErrImageNeverPull", "Container image is not present"),
            0,
            json!({}),
            Reason::ImagePullBackOff,
            &["imagePullPolicy is Never"],
            true,
        ),
        one(
            "image runs as root",
            waiting(
                "CreateContainerConfigError",
                "container has runAsNonRoot and image will run as root (pod: \"x\")",
            ),
            0,
            json!({}),
            Reason::CreateContainerConfigError,
            &[
                "user is root",
                "runAsUser",
                "spec.workload.podTemplate.spec.securityContext",
            ],
            true,
        ),
        one(
            "image's user is a name",
            waiting(
                "CreateContainerConfigError",
                "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root",
            ),
            0,
            json!({}),
            Reason::CreateContainerConfigError,
            &["a name, not a number"],
            true,
        ),
        one(
            "secret is missing",
            waiting("CreateContainerConfigError", "secret \"db\" not found"),
            0,
            json!({}),
            Reason::CreateContainerConfigError,
            &["does not exist", "secret \"db\" not found"],
            false,
        ),
        one(
            "key is missing",
            waiting(
                "CreateContainerConfigError",
                "couldn't find key url in ConfigMap stellar/db",
            ),
            0,
            json!({}),
            Reason::CreateContainerConfigError,
            &["does not exist", "key url"],
            false,
        ),
        one(
            "container is created",
            waiting("ContainerCreating", ""),
            0,
            json!({}),
            Reason::Progressing,
            &["0/3", "ContainerCreating"],
            false,
        ),
        Case {
            name: "no node",
            pods: vec![pod(
                "ttp-a",
                REVISION,
                json!({"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu."}]}),
            )],
            reason: Reason::Unschedulable,
            says: &["no node takes it", "Insufficient cpu"],
            stalled: false,
        },
        Case {
            name: "init container",
            pods: vec![pod(
                "ttp-a",
                REVISION,
                json!({"phase": "Pending", "initContainerStatuses": [{
                "name": "migrate", "image": "m", "imageID": "", "ready": false, "restartCount": 4,
                "state": back_off(), "lastState": ended(3, "Error", "schema is newer")}]}),
            )],
            reason: Reason::CrashLoopBackOff,
            says: &["container migrate", "exit code 3", "schema is newer"],
            stalled: false,
        },
        Case {
            name: "what a person must change comes first, and the others are counted",
            pods: vec![
                starting("ttp-a", back_off(), 3, ended(1, "Error", "x")),
                starting("ttp-b", waiting("ErrImagePull", "x"), 0, json!({})),
                starting("ttp-c", waiting("ErrImagePull", "x"), 0, json!({})),
            ],
            reason: Reason::ImagePullBackOff,
            says: &["pod ttp-b, and 1 pod more"],
            stalled: false,
        },
        Case {
            name: "an old revision's crash is not the cause",
            pods: vec![pod(
                "old",
                OLD,
                json!({"phase": "Running", "containerStatuses": [
                container(back_off(), 9, ended(1, "Error", "x"), false)]}),
            )],
            reason: Reason::Progressing,
            says: &["earlier revision end before revision 8f3c1a90ce"],
            stalled: false,
        },
    ]
}

// Without this a person would have to know which of Deployment, ReplicaSet, pod and container to ask.
#[test]
fn every_cause_is_named_with_its_repair() {
    for case in cases() {
        let status = service()
            .with(deployment("ttp-processor", 3, "RollingUpdate", unsettled(3)), case.pods)
            .publish()
            .status;
        let available = condition(&status, ConditionType::Available);
        assert_eq!(
            (available.status.as_str(), available.reason.as_str()),
            ("False", case.reason.as_str()),
            "{}",
            case.name
        );
        for part in case.says {
            assert!(
                available.message.contains(part),
                "{}: {:?} lacks {part:?}",
                case.name,
                available.message
            );
        }
        let stalled = condition(&status, ConditionType::Stalled);
        assert_eq!(stalled.status == "True", case.stalled, "{}", case.name);
        assert_eq!(
            told(&status, ConditionType::Ready),
            format!("False/{}", case.reason),
            "{}",
            case.name
        );
        assert!(
            status.why.starts_with(case.reason.as_str()),
            "{}: {}",
            case.name,
            status.why
        );
        assert_eq!(status.pods.as_deref(), Some("0/3"), "{}", case.name);
    }
}
