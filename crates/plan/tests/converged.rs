//! Plans, comparison and status together: a pass over what the pass before it left behind has nothing to write.

#![allow(clippy::unwrap_used, reason = "a fixture that cannot be made fails its test")]

mod support;

use std::sync::Arc;

use flowctl_api::{ConditionType, Pipeline};
use flowctl_plan::{Applied, Child, ChildKind, PipelineObserved, Plan, differs, status};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    batch::v1::Job,
    core::v1::{ConfigMap, Service},
    policy::v1::PodDisruptionBudget,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use support::{World, fpl, payments, ttp, xproc};

/// The child as a cache holds it: read as the Kubernetes type, which forgets what it does not know.
fn cached(child: &Child) -> Value {
    fn through<T: DeserializeOwned + Serialize>(body: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<T>(body.clone()).unwrap()).unwrap()
    }
    match child.id.kind {
        ChildKind::ConfigMap => through::<ConfigMap>(&child.body),
        ChildKind::ControllerRevision => through::<ControllerRevision>(&child.body),
        ChildKind::Service => through::<Service>(&child.body),
        ChildKind::PodDisruptionBudget => through::<PodDisruptionBudget>(&child.body),
        ChildKind::Deployment => through::<Deployment>(&child.body),
        ChildKind::Job => through::<Job>(&child.body),
    }
}

fn plans() -> Vec<Plan> {
    let rich = "
role: Processor
port: 50051
workload:
  image: rich:1
  replicas: 2
  env: [{name: EMPTY, value: ''}, {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1}}}]
  resources: {limits: {cpu: 2, memory: 1024Mi}, requests: {cpu: 0.5, memory: 0.5Gi}}
  volumes: [{name: scratch, emptyDir: {sizeLimit: 1Gi}}]
  volumeMounts: [{name: scratch, mountPath: /scratch, readOnly: false}]
  podTemplate:
    spec:
      hostNetwork: false
      tolerations: [{key: k, operator: Exists}]
      containers: [{name: side, image: side:1, resources: {limits: {cpu: 1}}, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]
extraPorts: [{name: metrics, port: 9090}]
probe: {http: {port: 8080}}
";
    let batch = fpl(
        "backfill",
        "
mode: Batch
source: {type: BufferedStorageSourceAdapter, config: {storage_type: FS, path: /ledgers}}
consumers: [{type: StdoutConsumer}]
",
    );
    let world = World::usual();
    vec![
        world.plan(&payments()),
        world.plan(&batch),
        world.plan_processor(&ttp()),
        world.plan_processor(&xproc("rich", rich)),
    ]
}

// A child that looks different right after it was written would be written in every pass.
#[test]
fn what_was_written_is_not_written_again() {
    for plan in plans() {
        assert!(plan.problems.is_empty(), "{:?}", plan.problems);
        assert!(!plan.present.is_empty());
        for child in &plan.present {
            let sealed = child.sealed();
            let difference = differs(&sealed, &cached(&sealed));
            assert!(difference.is_none(), "{}: {}", child.id, difference.unwrap());
        }
    }
}

#[test]
fn a_status_that_was_stored_is_not_stored_again() {
    let mut world = World::usual();
    let mut object: Pipeline = payments();
    object.metadata.generation = Some(1);
    let mut publish = |stored: Option<flowctl_api::Status>| {
        object.status = stored;
        world.status = object.status.clone();
        let plan = world.pass(&object);
        let observed = PipelineObserved {
            object: Arc::new(object.clone()),
            processors: world.processors.clone(),
            unread: world.unread.clone(),
            children: world.children.clone(),
            heartbeats: flowctl_plan::heartbeat::Heartbeats::NotRead,
            settings: Arc::new(world.settings.clone()),
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        status::pipeline(
            &observed,
            &plan,
            &Applied {
                children: world.children.clone(),
                failures: Vec::new(),
            },
        )
    };
    let first = publish(None);
    assert_eq!(first.status.conditions.len(), ConditionType::ALL.len());
    assert_eq!(first.status.steps.len(), 2);
    let second = publish(Some(first.status.clone()));
    assert_eq!(second.status, first.status);
    assert_eq!(second.events, []);
}
