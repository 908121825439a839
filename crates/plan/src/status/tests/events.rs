//! One event when something turns bad, one when it is well again, and silence in between.

use super::*;
use crate::EventSeverity::{Normal, Warning};

fn serving(service: Service) -> Service {
    let pods = ["ttp-a", "ttp-b", "ttp-c"].map(ready).into();
    service.with(deployment("ttp-processor", 3, "RollingUpdate", settled(3)), pods)
}

fn starting_up(service: Service) -> Service {
    let pod = starting(
        "ttp-a",
        json!({"waiting": {"reason": "ContainerCreating"}}),
        0,
        json!({}),
    );
    service.with(deployment("ttp-processor", 3, "RollingUpdate", unsettled(3)), vec![pod])
}

fn crashing(service: Service) -> Service {
    let end = json!({"terminated": {"exitCode": 1, "message": "x"}});
    let pod = starting("ttp-a", json!({"waiting": {"reason": "CrashLoopBackOff"}}), 5, end);
    service.with(deployment("ttp-processor", 3, "RollingUpdate", unsettled(3)), vec![pod])
}

fn told(service: &Service) -> Vec<(crate::EventSeverity, &'static str, &'static str)> {
    let events = service.publish().events;
    events
        .iter()
        .map(|event| (event.severity, event.condition.as_str(), event.reason))
        .collect()
}

#[test]
fn a_life_in_events() {
    // The first pass of a new object is no news.
    let first = service();
    assert_eq!(told(&first), []);
    let starting = first.then(starting_up);
    assert_eq!(told(&starting), []);
    let up = starting.then(serving);
    assert_eq!(told(&up), [(Normal, "Ready", "Ready")]);
    let still_up = up.then(serving);
    assert_eq!(told(&still_up), []);
    // One cause, although Available, Ready and why all change.
    let down = still_up.then(crashing);
    assert_eq!(told(&down), [(Warning, "Available", "CrashLoopBackOff")]);
    let event = down.publish().events.remove(0);
    assert_eq!(event.related.and_then(|related| related.name).as_deref(), Some("ttp-a"));
    let still_down = down.then(crashing);
    assert_eq!(told(&still_down), []);
    let up_again = still_down.then(serving);
    assert_eq!(told(&up_again), [(Normal, "Ready", "Ready")]);
    // A pod went away: nothing is wrong yet, but the service is no longer there.
    let interrupted = up_again.then(starting_up);
    assert_eq!(told(&interrupted), [(Normal, "Available", "Progressing")]);
}

#[test]
fn a_repaired_cause_is_told_even_when_the_object_is_not_ready_yet() {
    let refused = service().then(|mut service| {
        service.plan.problems = vec![problem(
            ConditionType::Accepted,
            Reason::Invalid,
            "spec.port",
            "x",
            Severity::Person,
        )];
        service
    });
    assert_eq!(told(&refused), [(Warning, "Accepted", "Invalid")]);
    let repaired = refused.then(|mut service| {
        service.plan.problems.clear();
        starting_up(service)
    });
    assert_eq!(told(&repaired), [(Normal, "Accepted", "Accepted")]);
}

#[test]
fn a_stuck_roll_out_is_told_while_the_old_revision_serves() {
    let stuck = serving(service()).then(serving).then(|service| {
        let mut status = settled(3);
        status["conditions"][1] =
            json!({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"});
        let pods = ["ttp-a", "ttp-b", "ttp-c"]
            .map(|name| pod(name, OLD, ready_status()))
            .into();
        service.with(deployment("ttp-processor", 3, "RollingUpdate", status), pods)
    });
    assert_eq!(told(&stuck), [(Warning, "Stalled", "ProgressDeadlineExceeded")]);
    assert_eq!(told(&stuck.then(|service| service)), []);
}

#[test]
fn being_suspended_and_resumed_is_told_once() {
    let suspended = serving(service()).then(|mut service| {
        service.object.spec.suspend = Some(true);
        service.with(deployment("ttp-processor", 0, "RollingUpdate", settled(0)), Vec::new())
    });
    assert_eq!(told(&suspended), [(Normal, "Ready", "Suspended")]);
}
