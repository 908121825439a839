//! What the health of its processors means for a Pipeline.

use super::super::*;
use crate::heartbeat::{Heartbeats, IdEvidence, ObjectEvidence, Reported, Sign};

fn flow_with(own: Sign, processor: Value) -> Flow {
    let pods = vec![ready("payments-a")];
    let mut flow = flow("Streaming").with_deployment(deployment("payments-pipeline", 1, "Recreate", settled(1)), pods);
    let mut service = service().with(
        deployment("ttp-processor", 1, "RollingUpdate", settled(1)),
        vec![ready("ttp-a")],
    );
    let mut status = service.publish().status;
    let healthy: Condition = read(processor);
    status
        .conditions
        .iter_mut()
        .find(|condition| condition.type_ == "Healthy")
        .unwrap()
        .clone_from(&healthy);
    service.object.status = Some(stored(status));
    flow.processors
        .insert(Key::new("stellar", "ttp"), Arc::new(service.object));
    flow.heartbeats = Heartbeats::Read {
        plane: "flowctl:8080".to_owned(),
        evidence: ObjectEvidence {
            ids: vec![IdEvidence {
                id: "stellar.payments.payments-a".to_owned(),
                pod_uid: Some("payments-a".to_owned()),
                sign: own,
                verified: None,
                silent_for: Some(std::time::Duration::from_secs(36)),
            }],
            is_shared: false,
            stale_after: std::time::Duration::from_secs(30),
            identity: None,
        },
    };
    flow
}

fn fresh() -> Sign {
    Sign::Fresh {
        reported: Reported::Unknown,
        is_doubtful: false,
    }
}

fn condition_of(status: &str, reason: &str, message: &str) -> Value {
    json!({"type": "Healthy", "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-03-01T11:00:00Z"})
}

// Whoever looks at a pipeline must be told which of its steps is dead.
#[test]
fn a_dead_processor_is_named_by_its_step() {
    let processor = condition_of(
        "False",
        "HeartbeatStale",
        "pod ttp-a has given no sign of life since 2026-03-01T11:59:10Z",
    );
    for own in [fresh(), Sign::Stale, Sign::Undecided, Sign::Unreachable] {
        let publication = flow_with(own, processor.clone()).publish();
        let status = &publication.status;
        assert_eq!(told(status, ConditionType::Healthy), "False/ProcessorUnhealthy");
        assert_eq!(told(status, ConditionType::Ready), "False/ProcessorUnhealthy");
        assert_eq!(
            status.why,
            "ProcessorUnhealthy: step ttp: HeartbeatStale: pod ttp-a has given no sign of life since 2026-03-01T11:59:10Z"
        );
        let warnings: Vec<_> = publication.events.iter().map(|event| event.reason).collect();
        assert_eq!(warnings, ["ProcessorUnhealthy"]);
    }
}

// The runner notices that a step does not answer a moment before or after the processor's silence is sure: one trouble.
#[test]
fn what_the_runner_and_its_processor_see_is_told_once() {
    let well = condition_of("True", "HeartbeatFresh", "1/1 pods beat");
    let dead = condition_of("False", "HeartbeatStale", "pod ttp-a is silent");
    let reports = |reported| Sign::Fresh {
        reported,
        is_doubtful: false,
    };
    for reported in [Reported::Degraded, Reported::Unhealthy] {
        let sides = [(reports(reported), well.clone()), (reports(reported), dead.clone())];
        for order in [[0, 1, 0], [1, 0, 1]] {
            let mut published = flow_with(fresh(), well.clone()).publish();
            let mut events = Vec::new();
            for side in order {
                let (own, processor) = sides[side].clone();
                let mut flow = flow_with(own, processor);
                flow.object.status = Some(stored(published.status));
                published = flow.publish();
                assert_eq!(
                    told(&published.status, ConditionType::Ready).split('/').next(),
                    Some("False")
                );
                events.extend(published.events.iter().map(|event| event.reason));
            }
            assert_eq!(events.len(), 1, "{events:?}");
            let mut flow = flow_with(fresh(), well.clone());
            flow.object.status = Some(stored(published.status));
            let events: Vec<_> = flow.publish().events.iter().map(|event| event.reason).collect();
            assert_eq!(events, ["Ready"]);
        }
        // A runner that has been in trouble for long has a trouble of its own.
        let mut published = flow_with(reports(reported), well.clone()).publish().status;
        for condition in &mut published.conditions {
            condition.last_transition_time = read(json!("2026-03-01T11:00:00Z"));
        }
        let mut flow = flow_with(reports(reported), dead.clone());
        flow.object.status = Some(stored(published));
        let events: Vec<_> = flow.publish().events.iter().map(|event| event.reason).collect();
        assert_eq!(events, ["ProcessorUnhealthy"]);
    }
}

// A processor that still serves is no reason to call the pipeline broken.
#[test]
fn a_processor_that_is_only_partly_unhealthy_leaves_it_alone() {
    let processor = condition_of("False", "SomePodsUnhealthy", "1/3 pods are unhealthy");
    let status = flow_with(fresh(), processor).publish().status;
    assert_eq!(told(&status, ConditionType::Healthy), "True/HeartbeatFresh");
    assert_eq!(told(&status, ConditionType::Ready), "True/Ready");
}

// True must mean that all of it is known to be well, except where nobody is to look.
#[test]
fn what_is_not_known_of_a_step_is_not_known_of_the_pipeline() {
    for (reason, told_of) in [
        ("ControlPlaneUnreachable", "Unknown/ControlPlaneUnreachable"),
        ("NotRegistered", "Unknown/NotRegistered"),
        ("NotConfigured", "True/HeartbeatFresh"),
    ] {
        let status = flow_with(fresh(), condition_of("Unknown", reason, "nobody knows"))
            .publish()
            .status;
        assert_eq!(told(&status, ConditionType::Healthy), told_of);
        assert_eq!(told(&status, ConditionType::Ready), "True/Ready");
        if told_of.starts_with("Unknown") {
            assert_eq!(
                condition(&status, ConditionType::Healthy).message,
                "step ttp: nobody knows"
            );
        }
    }
}

// The runner is not ready before the processors answer: that is their trouble, however long it takes.
#[test]
fn a_pipeline_that_waits_for_a_processor_starts() {
    let well = condition_of("True", "HeartbeatFresh", "1/1 pods beat");
    for (is_ready, expected) in [("False", "Unknown/Starting"), ("True", "False/PodNotReady")] {
        let mut flow = flow_with(fresh(), well.clone()).with_deployment(
            deployment("payments-pipeline", 1, "Recreate", unsettled(1)),
            vec![starting(
                "payments-a",
                json!({"running": {"startedAt": "2026-03-01T11:00:00Z"}}),
                0,
                json!({}),
            )],
        );
        for processor in flow.processors.values_mut() {
            let conditions = Arc::make_mut(processor).status.as_mut().unwrap().conditions.iter_mut();
            for condition in conditions.filter(|condition| condition.type_ == "Ready") {
                condition.status = is_ready.to_owned();
            }
        }
        assert_eq!(told(&flow.publish().status, ConditionType::Healthy), expected);
    }
}

// Its own trouble is told although all steps are well.
#[test]
fn its_own_silence_is_its_own() {
    let well = condition_of("True", "HeartbeatFresh", "1/1 pods beat");
    let status = flow_with(Sign::Stale, well.clone()).publish().status;
    assert_eq!(told(&status, ConditionType::Ready), "False/HeartbeatStale");
    assert_eq!(
        condition(&status, ConditionType::Healthy).message,
        "pod payments-a has given no sign of life since 2026-03-01T11:59:24Z; 0/1 pods beat"
    );
    let status = flow_with(fresh(), well).publish().status;
    assert_eq!(told(&status, ConditionType::Healthy), "True/HeartbeatFresh");
}

// What is suspended on purpose is Ready, whatever its processors do.
#[test]
fn a_suspended_pipeline_has_no_unhealthy_steps() {
    let processor = condition_of("False", "HeartbeatStale", "silent");
    let mut flow = flow_with(fresh(), processor);
    flow.object.spec.suspend = Some(true);
    let flow = flow.with_deployment(deployment("payments-pipeline", 0, "Recreate", settled(0)), Vec::new());
    let status = flow.publish().status;
    assert_eq!(told(&status, ConditionType::Healthy), "Unknown/NothingRuns");
    assert_eq!(told(&status, ConditionType::Ready), "True/Suspended");
}
