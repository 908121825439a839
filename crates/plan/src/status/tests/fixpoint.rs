//! Invariant R9 for whatever a cluster may show: a status that was stored is not written again, and time alone changes
//! nothing.

use proptest::prelude::*;

use super::*;

fn container_state() -> impl Strategy<Value = (Value, i32, Value)> {
    let reasons = prop::sample::select(vec![
        "ContainerCreating",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CrashLoopBackOff",
        "RunContainerError",
        "SomethingNew",
    ]);
    let end = (prop::sample::select(vec![0, 1, 2, 137]), prop::sample::select(vec!["Error", "OOMKilled", "Completed"]), "\\PC{0,700}")
        .prop_map(|(code, reason, message)| {
            json!({"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": "2026-03-01T11:59:00Z"}})
        });
    let state = prop_oneof![
        (reasons, "\\PC{0,80}")
            .prop_map(|(reason, message)| json!({"waiting": {"reason": reason, "message": message}})),
        Just(json!({"running": {"startedAt": "2026-03-01T11:59:30Z"}})),
        Just(json!({})),
        end.clone(),
    ];
    (state, 0..8, prop_oneof![Just(json!({})), end])
}

fn pods() -> impl Strategy<Value = Vec<Arc<Pod>>> {
    let one = (
        container_state(),
        any::<bool>(),
        any::<bool>(),
        prop::sample::select(vec!["Pending", "Running", "Failed", "Succeeded"]),
    );
    prop::collection::vec(one, 0..5).prop_map(|pods| {
        pods.into_iter()
            .enumerate()
            .map(|(index, ((state, restarts, last), ready, current, phase))| {
                let status = json!({
                    "phase": phase, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
                    "containerStatuses": [container(state, restarts, last, ready)],
                });
                pod(&format!("pod-{index}"), if current { REVISION } else { OLD }, status)
            })
            .collect()
    })
}

fn deployments() -> impl Strategy<Value = Deployment> {
    let reasons = prop::sample::select(vec![
        "NewReplicaSetAvailable",
        "ReplicaSetUpdated",
        "ProgressDeadlineExceeded",
    ]);
    (0..4, any::<bool>(), any::<bool>(), reasons, 1..3_i64, 0..4, 0..4).prop_map(
        |(replicas, recreate, available, reason, observed, updated, existing)| {
            let yes = |yes: bool| if yes { "True" } else { "False" };
            let status = json!({
                "observedGeneration": observed, "replicas": existing, "updatedReplicas": updated,
                "conditions": [
                    {"type": "Available", "status": yes(available)},
                    {"type": "Progressing", "status": yes(reason != "ProgressDeadlineExceeded"), "reason": reason},
                ],
            });
            deployment(
                "ttp-processor",
                replicas,
                if recreate { "Recreate" } else { "RollingUpdate" },
                status,
            )
        },
    )
}

fn failures() -> impl Strategy<Value = Option<FailureKind>> {
    prop_oneof![
        3 => Just(None),
        1 => "\\PC{0,2000}".prop_map(|message| Some(FailureKind::Refused { code: 422, message })),
        1 => "\\PC{0,2000}".prop_map(|message| Some(FailureKind::Retry { message })),
        1 => "\\PC{0,2000}".prop_map(|owner| Some(FailureKind::NameConflict { owner })),
        1 => "\\PC{0,2000}".prop_map(|by| Some(FailureKind::Undone { by })),
    ]
}

fn problems() -> impl Strategy<Value = Vec<Problem>> {
    let one = (any::<bool>(), any::<bool>(), "\\PC{0,600}").prop_map(|(accepted, person, message)| {
        let (condition, reason) = if accepted {
            (ConditionType::Accepted, Reason::Invalid)
        } else {
            (ConditionType::ResolvedRefs, Reason::RoleMismatch)
        };
        problem(
            condition,
            reason,
            "spec.x",
            &message,
            if person { Severity::Person } else { Severity::Waiting },
        )
    });
    prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(one, 1..4)]
}

fn services() -> impl Strategy<Value = Service> {
    (
        prop::option::of(deployments()),
        pods(),
        failures(),
        problems(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(deployment, pods, failure, problems, suspend, held)| {
            let mut service = service();
            service.applied.children.deployments = deployment.into_iter().map(Arc::new).collect();
            service.applied.children.pods = pods;
            service.object.spec.suspend = Some(suspend);
            service.plan.problems = problems;
            if held {
                service.plan.present.clear();
                service.plan.revision = None;
            }
            match failure {
                Some(kind) => service.failing(ChildKind::Deployment, kind),
                None => service,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    // Otherwise every pass would write a status, and its echo would start the next pass.
    #[test]
    fn a_stored_status_is_not_written_again(service in services()) {
        let stored_status = stored(service.publish().status);
        let again = service.then(|service| service);
        let later = again.publish_at(now() + jiff::SignedDuration::from_secs(33));
        prop_assert_eq!(&later.status, &stored_status);
        prop_assert_eq!(later.events, vec![]);
    }

    #[test]
    fn every_condition_is_there_and_moves_only_with_its_status(before in services(), after in services()) {
        let first = stored(before.publish().status);
        let mut after = after;
        after.object.status = Some(first.clone());
        after.object.metadata.generation = Some(8);
        let later = now() + jiff::SignedDuration::from_secs(60);
        let published = after.publish_at(later);
        let kinds: Vec<&str> = published.status.conditions.iter().map(|condition| condition.type_.as_str()).collect();
        prop_assert_eq!(kinds, ConditionType::ALL.map(ConditionType::as_str));
        prop_assert_eq!(published.status.observed_generation, Some(8));
        for (was, is) in first.conditions.iter().zip(&published.status.conditions) {
            prop_assert_eq!(is.observed_generation, Some(8));
            prop_assert_eq!(was.status == is.status, was.last_transition_time == is.last_transition_time);
            prop_assert!(is.message.len() <= 1024 && !is.message.is_empty(), "{}", is.message);
        }
        for (kind, condition) in ConditionType::ALL.iter().zip(&published.status.conditions) {
            let own = kind.reasons().iter().any(|reason| reason.as_str() == condition.reason);
            let summary = matches!(kind, ConditionType::Stalled | ConditionType::Ready);
            prop_assert!(own || summary, "{kind} does not document {}", condition.reason);
        }
        prop_assert!(published.status.why.len() <= 256);
        let ready = told(&published.status, ConditionType::Ready);
        prop_assert_eq!(ready.starts_with("True"), published.status.why.is_empty());
        let both = ["Reconciling", "Stalled"].iter().all(|kind| {
            published.status.conditions.iter().any(|condition| condition.type_ == *kind && condition.status == "True")
        });
        let retried = told(&published.status, ConditionType::Reconciling) == "True/ApplyRetrying";
        prop_assert!(!both || retried, "kstatus would wait for a person's work");
        for event in &published.events {
            prop_assert!(event.note.len() <= 1024);
        }
    }

    // The order in which a cache lists pods must not decide what is said.
    #[test]
    fn the_order_of_pods_says_nothing(service in services()) {
        let mut reversed = Service { object: service.object.clone(), plan: service.plan.clone(), applied: service.applied.clone(), used_by: 2 };
        reversed.applied.children.pods.reverse();
        prop_assert_eq!(service.publish(), reversed.publish());
    }
}
