//! What a batch run says of itself.

use super::*;

fn publish(status: Value, pods: Vec<Arc<Pod>>) -> Publication {
    flow("Batch").with_job(job(status), pods).publish()
}

fn failed_pod(name: &str, code: i32, reason: &str, message: &str, at: &str) -> Arc<Pod> {
    let end = json!({"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": at}});
    pod(
        name,
        REVISION,
        json!({"phase": "Failed", "containerStatuses": [container(end, 0, json!({}), false)]}),
    )
}

// The ledger that is missing must be readable on the Pipeline, not only in a pod that may be gone tomorrow.
#[test]
fn a_failed_run_repeats_the_last_words_of_the_last_pod() {
    let status = json!({"failed": 2, "conditions": [
        {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "Container main for pod stellar/b failed with exit code 1"}]});
    let pods = vec![
        failed_pod("b", 1, "Error", "ledger 30821000 is missing", "2026-03-01T11:58:00Z"),
        failed_pod("a", 1, "Error", "earlier", "2026-03-01T11:50:00Z"),
    ];
    let status = publish(status, pods).status;
    assert_eq!(told(&status, ConditionType::Available), "False/Failed");
    assert_eq!(told(&status, ConditionType::Stalled), "True/Failed");
    assert_eq!(told(&status, ConditionType::Reconciling), "False/Idle");
    let message = &condition(&status, ConditionType::Ready).message;
    assert!(
        message.contains("pod b ended with exit code 1: ledger 30821000 is missing"),
        "{message}"
    );
    assert!(message.contains("PodFailurePolicy"), "{message}");
    assert!(status.why.starts_with("Failed: "), "{}", status.why);

    let gone = json!({"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "Job was active longer than specified deadline"}]});
    assert!(publish(gone, Vec::new()).status.why.contains("DeadlineExceeded"));
}

#[test]
fn a_run_goes_from_starting_over_running_to_complete() {
    let started = publish(
        json!({"active": 1}),
        vec![starting(
            "a",
            json!({"waiting": {"reason": "ContainerCreating"}}),
            0,
            json!({}),
        )],
    );
    assert_eq!(told(&started.status, ConditionType::Available), "False/Progressing");
    assert_eq!(told(&started.status, ConditionType::Reconciling), "True/Progressing");
    let running = publish(json!({"active": 1, "ready": 1}), vec![ready("a")]);
    assert_eq!(told(&running.status, ConditionType::Available), "True/Running");
    assert_eq!(told(&running.status, ConditionType::Ready), "True/Ready");
    assert_eq!(running.status.pods.as_deref(), Some("1/1"));
    // Between the container's end and the Job's condition nothing may look broken.
    let ending = publish(
        json!({"active": 1}),
        vec![pod("a", REVISION, json!({"phase": "Succeeded"}))],
    );
    assert_eq!(told(&ending.status, ConditionType::Available), "True/Running");
    let complete = publish(
        json!({"succeeded": 1, "failed": 1, "conditions": [{"type": "Complete", "status": "True"}]}),
        Vec::new(),
    );
    assert_eq!(told(&complete.status, ConditionType::Ready), "True/Complete");
    assert_eq!(complete.status.pods.as_deref(), Some("0/0"));
    assert!(
        condition(&complete.status, ConditionType::Ready)
            .message
            .contains("after 1 failed try")
    );
}

#[test]
fn tries_that_failed_are_counted_and_explained() {
    let once = publish(
        json!({"failed": 1}),
        vec![failed_pod("a", 1, "Error", "no route", "2026-03-01T11:58:00Z")],
    );
    assert_eq!(told(&once.status, ConditionType::Available), "False/Progressing");
    assert!(
        once.status.why.contains("no route") && once.status.why.contains("try 2 of 4"),
        "{}",
        once.status.why
    );
    let pods = vec![
        failed_pod("a", 1, "Error", "x", "2026-03-01T11:57:00Z"),
        failed_pod("b", 1, "Error", "y", "2026-03-01T11:58:00Z"),
    ];
    let twice = publish(json!({"failed": 2}), pods);
    assert_eq!(told(&twice.status, ConditionType::Available), "False/CrashLoopBackOff");
    let memory = publish(
        json!({"failed": 1}),
        vec![failed_pod("a", 137, "OOMKilled", "", "2026-03-01T11:58:00Z")],
    );
    assert_eq!(told(&memory.status, ConditionType::Available), "False/OOMKilled");
    assert!(
        memory.status.why.contains("spec.runtime.resources.limits.memory"),
        "{}",
        memory.status.why
    );
    let image = publish(
        json!({"active": 1}),
        vec![starting(
            "a",
            json!({"waiting": {"reason": "InvalidImageName"}}),
            0,
            json!({}),
        )],
    );
    assert_eq!(told(&image.status, ConditionType::Stalled), "True/ImagePullBackOff");
}

#[test]
fn a_finished_run_stays_finished_when_suspended() {
    let mut flow = flow("Batch").with_job(
        job(json!({"conditions": [{"type": "Complete", "status": "True"}]})),
        Vec::new(),
    );
    flow.object.spec.suspend = Some(true);
    assert_eq!(told(&flow.publish().status, ConditionType::Ready), "True/Complete");
    let mut paused = job(json!({}));
    paused.spec.as_mut().expect("a spec").suspend = Some(true);
    let flow = flow.with_job(paused, Vec::new());
    assert_eq!(told(&flow.publish().status, ConditionType::Ready), "True/Suspended");
}

#[test]
fn a_changed_run_says_that_it_waits_for_the_one_before() {
    let mut changed = flow("Batch").with_job(job(json!({"active": 1})), vec![ready("a")]);
    let old = ChildRef {
        kind: ChildKind::Job,
        name: format!("payments-{REVISION}"),
    };
    changed.plan.present.clear();
    changed.plan.absent = vec![old];
    let status = changed.publish().status;
    assert_eq!(told(&status, ConditionType::Available), "False/Progressing");
    assert!(
        status.why.contains("what ran before ends first, 1 pod left"),
        "{}",
        status.why
    );
}
