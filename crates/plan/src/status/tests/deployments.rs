//! Roll-outs, refused pods and deadlines, as live Deployments show them.

use super::{
    causes::{ended, waiting},
    *,
};

fn status_of(status: Value, pods: Vec<Arc<Pod>>) -> Status {
    service()
        .with(deployment("ttp-processor", 3, "RollingUpdate", status), pods)
        .publish()
        .status
}

#[test]
fn pods_that_are_refused_say_by_whom() {
    let refused = |message: &str| {
        let mut status = unsettled(0);
        status["conditions"]
            .as_array_mut()
            .expect("conditions")
            .push(json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}));
        status_of(status, Vec::new())
    };
    let quota = refused(
        "pods \"ttp-x\" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=2, limited: pods=2",
    );
    assert_eq!(told(&quota, ConditionType::Available), "False/QuotaExceeded");
    assert_eq!(told(&quota, ConditionType::Stalled), "False/NotStalled");
    assert!(quota.why.contains("exceeded quota: compute"), "{}", quota.why);

    let security =
        refused("pods \"ttp-x\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true");
    assert_eq!(told(&security, ConditionType::Available), "False/PodsForbidden");
    assert_eq!(told(&security, ConditionType::Stalled), "True/PodsForbidden");

    // The webhook may be back in a minute; nobody has to change anything.
    let webhook = refused("Internal error occurred: failed calling webhook \"pods.example.com\": connection refused");
    assert_eq!(told(&webhook, ConditionType::Available), "False/PodsForbidden");
    assert_eq!(told(&webhook, ConditionType::Stalled), "False/NotStalled");
}

#[test]
fn a_deadline_makes_any_cause_a_persons_business() {
    let late = |pods| {
        let mut status = unsettled(3);
        status["conditions"][1] =
            json!({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"});
        status_of(status, pods)
    };
    let nothing = late(vec![starting("ttp-a", waiting("ContainerCreating", ""), 0, json!({}))]);
    assert_eq!(
        told(&nothing, ConditionType::Available),
        "False/ProgressDeadlineExceeded"
    );
    assert_eq!(told(&nothing, ConditionType::Stalled), "True/ProgressDeadlineExceeded");
    assert!(nothing.why.contains("ContainerCreating"), "{}", nothing.why);
    let crash = late(vec![starting(
        "ttp-a",
        waiting("CrashLoopBackOff", ""),
        4,
        ended(1, "Error", "x"),
    )]);
    assert_eq!(told(&crash, ConditionType::Stalled), "True/CrashLoopBackOff");
    // Both at once would make kstatus wait for ever.
    assert_eq!(told(&crash, ConditionType::Reconciling), "False/Idle");
}

#[test]
fn an_old_revision_that_serves_keeps_the_service_available_while_the_new_one_rolls_out() {
    let rolling = json!({
        "observedGeneration": 2, "replicas": 4, "updatedReplicas": 1, "readyReplicas": 3, "availableReplicas": 3,
        "conditions": [
            {"type": "Available", "status": "True"},
            {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"},
        ],
    });
    let pods = || {
        let mut pods: Vec<_> = ["old-a", "old-b", "old-c"]
            .map(|name| pod(name, OLD, ready_status()))
            .into();
        pods.push(starting("new-a", waiting("ErrImagePull", "not found"), 0, json!({})));
        pods
    };
    let status = status_of(rolling.clone(), pods());
    assert_eq!(told(&status, ConditionType::Available), "True/MinimumReplicasAvailable");
    assert_eq!(told(&status, ConditionType::Reconciling), "True/Progressing");
    assert_eq!(told(&status, ConditionType::Ready), "True/Ready");
    assert!(
        condition(&status, ConditionType::Reconciling)
            .message
            .contains("ImagePullBackOff")
    );
    assert_eq!(status.pods.as_deref(), Some("3/3"));

    // Stuck: the service works, but a person must hear of it.
    let mut stuck = rolling;
    stuck["conditions"][1] = json!({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"});
    let status = status_of(stuck, pods());
    assert_eq!(told(&status, ConditionType::Ready), "True/Ready");
    assert_eq!(told(&status, ConditionType::Stalled), "True/ImagePullBackOff");
}

#[test]
fn with_recreate_only_the_wanted_revision_counts() {
    let publish = |observed: i64, pods| {
        let mut status = settled(1);
        status["observedGeneration"] = json!(observed);
        flow("Streaming")
            .with_deployment(deployment("payments-pipeline", 1, "Recreate", status), pods)
            .publish()
            .status
    };
    // The Deployment controller has not seen the new template yet, and still says Available.
    let changed = publish(1, vec![pod("old", OLD, ready_status())]);
    assert_eq!(told(&changed, ConditionType::Available), "False/Progressing");
    assert_eq!(told(&changed, ConditionType::Reconciling), "True/Progressing");
    // Only replicas or an annotation changed: what runs is what is wanted, and readiness does not blink.
    let same = publish(1, vec![ready("new")]);
    assert_eq!(told(&same, ConditionType::Available), "True/MinimumReplicasAvailable");
    assert_eq!(told(&same, ConditionType::Reconciling), "True/Progressing");
    let done = publish(2, vec![ready("new")]);
    assert_eq!(told(&done, ConditionType::Reconciling), "False/Idle");
}

#[test]
fn nothing_wanted_is_nothing_missing() {
    let mut idle = service().with(deployment("ttp-processor", 0, "RollingUpdate", settled(0)), Vec::new());
    let status = idle.publish().status;
    assert_eq!(told(&status, ConditionType::Available), "True/MinimumReplicasAvailable");
    assert_eq!(status.pods.as_deref(), Some("0/0"));
    idle.object.spec.suspend = Some(true);
    let suspended = idle.publish().status;
    assert_eq!(told(&suspended, ConditionType::Ready), "True/Suspended");
    let stopping = idle
        .with(
            deployment("ttp-processor", 0, "RollingUpdate", settled(1)),
            vec![ready("ttp-a")],
        )
        .publish()
        .status;
    assert_eq!(told(&stopping, ConditionType::Reconciling), "True/Progressing");
    assert!(
        condition(&stopping, ConditionType::Available)
            .message
            .contains("1 pod left")
    );
}

/// The status of a Deployment that lacks pods though no roll-out goes on.
fn short(replicas: i32, available: i32) -> Value {
    let mut status = settled(replicas);
    status["readyReplicas"] = json!(available);
    status["availableReplicas"] = json!(available);
    status["conditions"][0] = json!({"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable"});
    status
}

fn ready_pods(number: usize) -> Vec<Arc<Pod>> {
    (0..number).map(|index| ready(&format!("ttp-{index}"))).collect()
}

fn fresh(name: &str, created: &str) -> Arc<Pod> {
    let mut pod = starting(name, waiting("ContainerCreating", ""), 0, json!({}));
    Arc::make_mut(&mut pod).metadata.creation_timestamp = Some(read(json!(created)));
    pod
}

// Every drain of a node and every lost pod would turn the pipelines that call it to "not ready".
#[test]
fn one_missing_pod_leaves_readiness_alone() {
    let mut pods = ready_pods(2);
    pods.push(starting("ttp-x", waiting("ContainerCreating", ""), 0, json!({})));
    let status = status_of(short(3, 2), pods);
    assert_eq!(told(&status, ConditionType::Ready), "True/Ready");
    assert_eq!(told(&status, ConditionType::Reconciling), "True/Progressing");
    assert_eq!(status.pods.as_deref(), Some("2/3"));
    let one = status_of(short(3, 1), ready_pods(1));
    assert_eq!(told(&one, ConditionType::Ready), "False/Progressing");
    let single = service().with(
        deployment("ttp-processor", 1, "RollingUpdate", short(1, 0)),
        vec![starting("ttp-x", waiting("ContainerCreating", ""), 0, json!({}))],
    );
    assert_eq!(
        told(&single.publish().status, ConditionType::Ready),
        "False/Progressing"
    );
}

// An autoscaler that adds pods would make the service look broken while it serves as before.
#[test]
fn a_scale_up_leaves_readiness_alone() {
    let ten = |ready: usize, created: &'static str| {
        move |service: Service| {
            let mut pods = ready_pods(ready);
            pods.extend((ready..10).map(|index| fresh(&format!("new-{index}"), created)));
            let mut live = deployment("ttp-processor", 10, "RollingUpdate", short(10, 3));
            live.metadata.generation = Some(2);
            service.with(live, pods)
        }
    };
    let before = || {
        service().with(
            deployment("ttp-processor", 3, "RollingUpdate", settled(3)),
            ready_pods(3),
        )
    };
    let young = "2026-03-01T11:59:00Z";
    let grown = before().then(ten(3, young));
    let status = grown.publish().status;
    assert_eq!(told(&status, ConditionType::Ready), "True/Ready");
    assert_eq!(told(&status, ConditionType::Reconciling), "True/Progressing");
    assert_eq!(status.pods.as_deref(), Some("3/10"));
    assert_eq!(
        told(&grown.then(ten(5, young)).publish().status, ConditionType::Ready),
        "True/Ready"
    );
    // Pods that were ready went away.
    assert_eq!(
        told(&before().then(ten(2, young)).publish().status, ConditionType::Ready),
        "False/Progressing"
    );
    // What does not come within the deadline is a shortfall.
    let late = before().then(ten(3, "2026-03-01T11:40:00Z")).publish().status;
    assert_eq!(told(&late, ConditionType::Ready), "False/Progressing");
    // It never served.
    assert_eq!(
        told(&ten(3, young)(service()).publish().status, ConditionType::Ready),
        "False/Progressing"
    );
}

// "Progressing: 2/2 pods ready" would not say what is still missing.
#[test]
fn pods_that_are_ready_too_shortly_say_how_long_it_takes() {
    let mut live = deployment("ttp-processor", 2, "RollingUpdate", unsettled(2));
    live.spec.as_mut().expect("a spec").min_ready_seconds = Some(5);
    let status = service().with(live, ready_pods(2)).publish().status;
    assert_eq!(told(&status, ConditionType::Ready), "False/Progressing");
    assert_eq!(status.why, "Progressing: 2/2 pods ready; each must stay ready for 5 s");
}

// A Secret that is missing shows nowhere but in the events of a pod; "ContainerCreating" alone leads nowhere.
#[test]
fn a_pod_that_waits_for_volumes_names_them() {
    let mut pod = starting("ttp-a", waiting("ContainerCreating", ""), 0, json!({}));
    Arc::make_mut(&mut pod).spec.as_mut().expect("a spec").volumes = Some(read(json!([
        {"name": "flowctl-config", "projected": {"sources": [
            {"configMap": {"name": "ttp-8f3c1a90ce"}}, {"secret": {"name": "ttp-tls"}}]}},
        {"name": "flowctl-checkpoint", "persistentVolumeClaim": {"claimName": "checkpoints"}},
        {"name": "a", "configMap": {"name": "rules"}},
        {"name": "b", "secret": {"secretName": "perhaps", "optional": true}},
        {"name": "c", "secret": {"secretName": "ttp-tls"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "kube-api-access-x", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "kube-root-ca.crt"}}]}},
    ])));
    let status = status_of(unsettled(3), vec![pod]);
    assert_eq!(
        condition(&status, ConditionType::Available).message,
        "0/3 pods ready; pod ttp-a: container main: ContainerCreating, waits for volumes: Secret ttp-tls, \
         PersistentVolumeClaim checkpoints, ConfigMap rules; `kubectl describe pod ttp-a` tells which is missing"
    );
    assert_eq!(status.why.len().min(256), status.why.len());
    let plain = status_of(
        unsettled(3),
        vec![starting("ttp-a", waiting("ContainerCreating", ""), 0, json!({}))],
    );
    assert_eq!(
        plain.why,
        "Progressing: 0/3 pods ready; pod ttp-a: container main: ContainerCreating"
    );
}
