//! What a Pipeline says of its steps.

use super::*;

fn crashing() -> Service {
    let end = json!({"terminated": {"exitCode": 1, "message": "no such table"}});
    let pod = starting("ttp-a", json!({"waiting": {"reason": "CrashLoopBackOff"}}), 5, end);
    service().with(deployment("ttp-processor", 3, "RollingUpdate", unsettled(3)), vec![pod])
}

fn serving() -> Service {
    let pods = ["ttp-a", "ttp-b", "ttp-c"].map(ready).into();
    service().with(deployment("ttp-processor", 3, "RollingUpdate", settled(3)), pods)
}

fn waiting_for_processors(flow: Flow) -> Flow {
    let pod = starting(
        "payments-a",
        json!({"running": {"startedAt": "2026-03-01T11:59:30Z"}}),
        0,
        json!({}),
    );
    flow.with_deployment(deployment("payments-pipeline", 1, "Recreate", unsettled(1)), vec![pod])
}

// The runner only waits; what keeps the pipeline down is in another object, and `why` must lead there.
#[test]
fn why_names_the_processor_that_keeps_the_pods_from_being_ready() {
    let status = waiting_for_processors(flow("Streaming").served_by(crashing()))
        .publish()
        .status;
    assert!(
        status.why.starts_with("ttp: CrashLoopBackOff: pod ttp-a"),
        "{}",
        status.why
    );
    assert!(status.why.len() <= 256);
    let [step] = status.steps.as_slice() else {
        panic!("one step")
    };
    assert_eq!((step.ready.as_str(), step.pods.as_deref()), ("False", Some("0/3")));
    assert_eq!(status.steps_ready.as_deref(), Some("0/1"));
}

// Stalled asks for a person, who would find nothing to change: the runner goes on when its processor does.
#[test]
fn a_pipeline_that_only_waits_for_a_processor_is_not_stalled() {
    let late = |flow: Flow, strategy, pods: Vec<Arc<Pod>>| {
        let mut status = unsettled(1);
        status["conditions"][1] =
            json!({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"});
        if pods.len() > 1 {
            status["conditions"][0]["status"] = json!("True");
        }
        flow.with_deployment(deployment("payments-pipeline", 1, strategy, status), pods)
            .publish()
            .status
    };
    let waits = || {
        starting(
            "payments-a",
            json!({"running": {"startedAt": "2026-03-01T11:40:00Z"}}),
            0,
            json!({}),
        )
    };
    let status = late(flow("Streaming").served_by(crashing()), "Recreate", vec![waits()]);
    assert_eq!(told(&status, ConditionType::Stalled), "False/NotStalled");
    assert_eq!(told(&status, ConditionType::Reconciling), "True/Progressing");
    assert!(status.why.starts_with("ttp: CrashLoopBackOff"), "{}", status.why);
    let rolling = || vec![pod("old", OLD, ready_status()), waits()];
    let status = late(flow("Streaming").served_by(crashing()), "RollingUpdate", rolling());
    assert_eq!(told(&status, ConditionType::Stalled), "False/NotStalled");
    // With its processors there, what it waits for is its own.
    let own = late(flow("Streaming").served_by(serving()), "Recreate", vec![waits()]);
    assert_eq!(told(&own, ConditionType::Stalled), "True/ProgressDeadlineExceeded");
    let own = late(flow("Streaming").served_by(serving()), "RollingUpdate", rolling());
    assert_eq!(told(&own, ConditionType::Stalled), "True/ProgressDeadlineExceeded");
}

#[test]
fn a_cause_of_its_own_is_not_blamed_on_a_processor() {
    let pod = starting(
        "payments-a",
        json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}}),
        0,
        json!({}),
    );
    let status = flow("Streaming")
        .served_by(crashing())
        .with_deployment(deployment("payments-pipeline", 1, "Recreate", unsettled(1)), vec![pod])
        .publish()
        .status;
    assert!(status.why.starts_with("ImagePullBackOff: "), "{}", status.why);
}

#[test]
fn a_processor_that_fails_later_shows_in_steps_and_leaves_ready_alone() {
    let running = |service| {
        let flow = flow("Streaming").served_by(service);
        flow.with_deployment(
            deployment("payments-pipeline", 1, "Recreate", settled(1)),
            vec![ready("payments-a")],
        )
    };
    let well = running(serving()).publish().status;
    assert_eq!((well.steps_ready.as_deref(), well.why.as_str()), (Some("1/1"), ""));
    let ill = running(crashing()).publish().status;
    assert_eq!(told(&ill, ConditionType::Ready), "True/Ready");
    assert_eq!((ill.steps_ready.as_deref(), ill.why.as_str()), (Some("0/1"), ""));
}

// Whoever may not refer to a processor must not learn from the status that it exists.
#[test]
fn nothing_of_a_processor_shows_without_an_endpoint() {
    let unresolved = |flow: Flow| {
        let mut flow = flow;
        flow.plan.wiring.steps[0].endpoint = None;
        flow.plan.problems = vec![problem(
            ConditionType::ResolvedRefs,
            Reason::ProcessorNotFoundOrNotGranted,
            "spec.processors[0].processorRef",
            "no ExternalProcessor stellar/ttp, or it does not allow this namespace",
            Severity::Waiting,
        )];
        flow.plan.present.clear();
        flow.plan.revision = None;
        flow.publish()
    };
    let missing = unresolved(flow("Streaming"));
    assert_eq!(missing, unresolved(flow("Streaming").served_by(serving())));
    let status = missing.status;
    assert_eq!(
        told(&status, ConditionType::ResolvedRefs),
        "False/ProcessorNotFoundOrNotGranted"
    );
    assert_eq!(told(&status, ConditionType::Available), "Unknown/Blocked");
    assert_eq!(told(&status, ConditionType::Stalled), "False/NotStalled");
    assert!(status.why.contains("stellar/ttp"), "{}", status.why);
    assert_eq!(status.steps[0].ready, "Unknown");
}

#[test]
fn a_pipeline_without_external_steps_has_no_count_of_them() {
    let mut flow = flow("Streaming");
    flow.plan.wiring.steps.clear();
    assert_eq!(flow.publish().status.steps_ready, None);
}

// Nothing probes the Go binary, so its pod is ready between two ends: Ready would come and go for ever (a Go pipeline exits 0
// when a step cannot be built).
#[test]
fn a_pipeline_that_ends_without_error_for_ever_is_not_ready_in_between() {
    let status = |started: &str| {
        json!({
            "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [container(
                json!({"running": {"startedAt": started}}), 5,
                json!({"terminated": {"exitCode": 0, "reason": "Completed"}}), true)],
        })
    };
    let flow_since = |started: &str| {
        flow("Streaming").with_deployment(
            deployment("payments-pipeline", 1, "Recreate", settled(1)),
            vec![pod("payments-a", REVISION, status(started))],
        )
    };
    let between = flow_since("2026-03-01T11:59:30Z").publish();
    assert_eq!(
        told(&between.status, ConditionType::Available),
        "False/ExitedWithoutError"
    );
    assert_eq!(told(&between.status, ConditionType::Ready), "False/ExitedWithoutError");
    assert_eq!(between.wake_after.map(|wait| wait.as_secs()), Some(569));
    let settled = flow_since("2026-03-01T11:49:30Z").publish();
    assert_eq!(told(&settled.status, ConditionType::Ready), "True/Ready");
}
