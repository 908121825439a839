//! What was refused, by the plan or by the apiserver, and what is held meanwhile.

use std::time::Duration;

use super::*;

fn serving() -> Service {
    let pods = ["ttp-a", "ttp-b", "ttp-c"].map(ready).into();
    service().with(deployment("ttp-processor", 3, "RollingUpdate", settled(3)), pods)
}

fn invalid(field: &str, message: &str) -> Problem {
    problem(
        ConditionType::Accepted,
        Reason::Invalid,
        field,
        message,
        Severity::Person,
    )
}

#[test]
fn all_problems_are_told_at_once() {
    let mut service = service();
    service.plan.present.clear();
    service.plan.problems = vec![
        invalid("spec.port", "is the metrics port"),
        invalid("spec.probe", "x".repeat(2000).as_str()),
    ];
    let status = service.publish().status;
    let accepted = condition(&status, ConditionType::Accepted);
    assert!(
        accepted
            .message
            .starts_with("spec.port: is the metrics port; spec.probe: x"),
        "{}",
        accepted.message
    );
    assert!(accepted.message.len() <= 1024);
    assert_eq!(told(&status, ConditionType::Available), "Unknown/Blocked");
    assert_eq!(told(&status, ConditionType::Stalled), "True/Invalid");
    assert_eq!(told(&status, ConditionType::Ready), "False/Invalid");
    assert!(
        status.why.starts_with("Invalid: spec.port: ") && status.why.len() <= 256,
        "{}",
        status.why
    );
}

// A typo in a spec must not look like an outage: the pods still serve.
#[test]
fn a_held_object_says_what_is_wrong_and_what_still_runs() {
    let held = serving().then(|mut service| {
        service.plan.present.clear();
        service.plan.revision = None;
        service.plan.problems = vec![invalid("spec.port", "is wrong")];
        service
    });
    let status = held.publish().status;
    assert_eq!(told(&status, ConditionType::Available), "True/MinimumReplicasAvailable");
    assert_eq!(told(&status, ConditionType::Ready), "False/Invalid");
    assert_eq!(status.pods.as_deref(), Some("3/3"));
    assert_eq!(
        status.revision.map(|revision| revision.current).as_deref(),
        Some(REVISION)
    );
}

#[test]
fn a_foreign_object_is_named_with_its_owner() {
    let conflict = FailureKind::NameConflict {
        owner: "Helm release web".to_owned(),
    };
    let published = service().failing(ChildKind::Deployment, conflict).publish();
    let status = &published.status;
    assert_eq!(told(status, ConditionType::Available), "False/NameConflict");
    assert_eq!(told(status, ConditionType::Stalled), "True/NameConflict");
    assert!(
        status.why.contains("Deployment ttp-processor") && status.why.contains("Helm release web"),
        "{}",
        status.why
    );
    assert_eq!(published.wake_after, Some(Duration::from_secs(1)));
}

#[test]
fn a_refused_write_is_told_and_tried_again_ever_more_rarely() {
    let refused = || FailureKind::Refused {
        code: 422,
        message: "spec.ports[0].port: Invalid value: 0".to_owned(),
    };
    let first = serving().then(|service| service.failing(ChildKind::Service, refused()));
    let status = first.publish().status;
    assert_eq!(told(&status, ConditionType::Available), "False/ApplyFailed");
    let message = &condition(&status, ConditionType::Available).message;
    assert!(
        message.contains("Service ttp-processor (422)") && message.contains("keeps running"),
        "{message}"
    );

    let again = first.then(|service| service);
    let later = |seconds| again.publish_at(now() + jiff::SignedDuration::from_secs(seconds));
    assert_eq!(later(40).wake_after.map(|pause| pause.as_secs()), Some(40));
    assert_eq!(later(4000).wake_after, Some(Duration::from_mins(5)));
    assert_eq!(later(40).status, again.publish().status);

    let manager = FailureKind::FieldConflict {
        manager: "hpa".to_owned(),
        message: "conflict on .spec.replicas".to_owned(),
    };
    let status = serving().failing(ChildKind::Deployment, manager).publish().status;
    assert!(status.why.contains("\"hpa\" keeps setting"), "{}", status.why);
}

// Whoever has a janitor that deletes our Service must read that here, not in an audit log.
#[test]
fn what_is_undone_again_and_again_is_told() {
    let undone = FailureKind::Undone {
        by: "deleting it".to_owned(),
    };
    let published = serving().failing(ChildKind::Service, undone).publish();
    let status = &published.status;
    assert_eq!(told(status, ConditionType::Available), "False/ApplyFailed");
    assert_eq!(told(status, ConditionType::Stalled), "True/ApplyFailed");
    assert!(
        status
            .why
            .contains("Service ttp-processor: something keeps deleting it"),
        "{}",
        status.why
    );
    assert!(published.wake_after.is_some(), "it ends by itself");
}

// A Service that somebody else has must not keep a workload running for minutes that its user wants stopped.
#[test]
fn what_is_refused_for_long_does_not_hold_up_what_may_work_the_next_time() {
    let conflict = || FailureKind::NameConflict {
        owner: "Helm release web".to_owned(),
    };
    let retry = FailureKind::Retry {
        message: "etcdserver: request timed out".to_owned(),
    };
    let first = serving().then(|service| service.failing(ChildKind::Service, conflict()));
    let again = first.then(|service| service.failing(ChildKind::Deployment, retry));
    let later = again.publish_at(now() + jiff::SignedDuration::from_secs(4000));
    assert_eq!(later.wake_after, Some(Duration::from_secs(1)));
    assert_eq!(told(&later.status, ConditionType::Available), "False/NameConflict");
    assert_eq!(told(&later.status, ConditionType::Reconciling), "True/ApplyRetrying");
}

// Whoever stops a pipeline whose spec is wrong must learn why it runs on, and must not wait because it was wrong for days.
#[test]
fn a_write_that_is_tried_again_for_a_refused_object_is_told() {
    let retry = || FailureKind::Retry {
        message: "etcdserver: request timed out".to_owned(),
    };
    let mut stopping = serving();
    stopping.plan.problems = vec![invalid("spec.port", "is wrong")];
    let stopping = stopping.then(|service| service);
    let seconds = |seconds| now() + jiff::SignedDuration::from_secs(seconds);
    let quiet = stopping.publish_at(seconds(90_000));
    assert_eq!(told(&quiet.status, ConditionType::Reconciling), "False/Idle");
    assert_eq!(quiet.wake_after, None);

    let mut failing = stopping.failing(ChildKind::Deployment, retry());
    let first = failing.publish_at(seconds(90_000));
    assert_eq!(told(&first.status, ConditionType::Stalled), "True/Invalid");
    let reconciling = condition(&first.status, ConditionType::Reconciling);
    assert_eq!(
        (reconciling.status.as_str(), reconciling.reason.as_str()),
        ("True", "ApplyRetrying")
    );
    assert!(
        reconciling.message.contains("Deployment ttp-processor") && reconciling.message.contains("request timed out"),
        "{}",
        reconciling.message
    );
    assert_eq!(first.wake_after, Some(Duration::from_secs(1)), "from the failure on");
    failing.object.status = Some(stored(first.status));
    let pause = |failing: &Service, at| failing.publish_at(seconds(at)).wake_after.map(|pause| pause.as_secs());
    assert_eq!(pause(&failing, 90_004), Some(4));
    assert_eq!(pause(&failing, 99_000), Some(30));
    // Obeyed at last, nothing goes on.
    failing.applied.failures.clear();
    let obeyed = failing.publish_at(seconds(99_000)).status;
    assert_eq!(told(&obeyed, ConditionType::Reconciling), "False/Idle");
}

// What had to go before a revision can be made goes without a word; nobody would make the rest.
#[test]
fn a_plan_that_is_not_finished_is_followed_by_another_pass() {
    let mut service = serving();
    assert_eq!(service.publish().wake_after, None);
    service.plan.present.clear();
    service.plan.revision = None;
    service.plan.unfinished = true;
    let published = service.publish();
    assert_eq!(published.wake_after, Some(Duration::from_secs(1)));
    assert_eq!(
        told(&published.status, ConditionType::Ready),
        "True/Ready",
        "what runs serves"
    );
}

#[test]
fn a_write_that_may_work_the_next_time_changes_nothing_that_was_seen() {
    let retry = FailureKind::Retry {
        message: "etcdserver: request timed out".to_owned(),
    };
    let published = serving().failing(ChildKind::Service, retry).publish();
    assert_eq!(
        told(&published.status, ConditionType::Reconciling),
        "True/ApplyRetrying"
    );
    assert_eq!(told(&published.status, ConditionType::Ready), "True/Ready");
    assert_eq!(published.wake_after, Some(Duration::from_secs(1)));
}

#[test]
fn a_full_quota_is_told_for_objects_as_for_pods() {
    let full = FailureKind::Refused {
        code: 403,
        message: "services is forbidden: exceeded quota: objects".to_owned(),
    };
    let published = service().failing(ChildKind::Service, full).publish();
    assert_eq!(told(&published.status, ConditionType::Available), "False/QuotaExceeded");
    assert_eq!(told(&published.status, ConditionType::Stalled), "False/NotStalled");
    assert!(published.wake_after.is_some());
}
