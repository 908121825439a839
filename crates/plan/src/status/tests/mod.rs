//! What a person reads when something is wrong, on hand-made clusters.

mod causes;
mod deployments;
mod events;
mod fixpoint;
mod health;
mod jobs;
mod pipelines;
mod refusals;
mod whole;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowctl_api::{ConditionType, ExternalProcessor, Pipeline, Reason, Status};
use jiff::Timestamp;
use k8s_openapi::{
    api::{apps::v1::Deployment, batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use serde_json::{Value, json};

use super::{pipeline, processor};
use crate::{
    Applied, Child, ChildKind, ChildRef, Children, Failure, FailureKind, Key, PipelineObserved, Plan, Problem,
    ProcessorObserved, Publication, RevisionPlan, Settings, Severity, WiredStep, Wiring, heartbeat::Heartbeats,
    observed::PodSecurity,
};

const REVISION: &str = "8f3c1a90ce";
const OLD: &str = "51b0ee12aa";

fn now() -> Timestamp {
    "2026-03-01T12:00:00.75Z".parse().expect("an instant")
}

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        runner_image: "ghcr.io/withobsrvr/flowctl-runner:1".to_owned(),
        image_pull_policy: None,
        control_plane: None,
        allowed_control_planes: Vec::new(),
        pod_security: PodSecurity::Restricted,
        cluster_domain: "cluster.local".to_owned(),
        watched_namespaces: Vec::new(),
    })
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a valid object")
}

/// An ExternalProcessor `ttp` with three pods, and what a pass saw of it.
#[derive(Debug)]
struct Service {
    object: ExternalProcessor,
    plan: Plan,
    applied: Applied,
    used_by: usize,
}

/// A Pipeline `payments`, and what a pass saw of it.
#[derive(Debug)]
struct Flow {
    object: Pipeline,
    processors: BTreeMap<Key, Arc<ExternalProcessor>>,
    plan: Plan,
    applied: Applied,
    heartbeats: Heartbeats,
}

fn service() -> Service {
    let object = read(json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor",
        "metadata": {"name": "ttp", "namespace": "stellar", "generation": 7},
        "spec": {"role": "Processor", "port": 50051, "workload": {"image": "ttp:1", "replicas": 3}},
    }));
    let plan = Plan {
        present: vec![wanted(ChildKind::Deployment, "ttp-processor")],
        wiring: Wiring {
            endpoint: Some("ttp-processor-pods.stellar.svc:50051".to_owned()),
            steps: Vec::new(),
        },
        revision: Some(revision()),
        ..Plan::default()
    };
    Service {
        object,
        plan,
        applied: Applied::default(),
        used_by: 2,
    }
}

fn flow(mode: &str) -> Flow {
    let object = read(json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline",
        "metadata": {"name": "payments", "namespace": "stellar", "generation": 4},
        "spec": {
            "mode": mode,
            "source": {"type": "Ledgers"},
            "processors": [{"name": "ttp", "processorRef": {"name": "ttp"}}],
            "consumers": [{"type": "StdoutConsumer"}],
        },
    }));
    let workload = match mode {
        "Batch" => wanted(ChildKind::Job, &format!("payments-{REVISION}")),
        _ => wanted(ChildKind::Deployment, "payments-pipeline"),
    };
    let step = WiredStep {
        name: "ttp".to_owned(),
        target: Key::new("stellar", "ttp"),
        endpoint: Some("ttp-processor-pods.stellar.svc:50051".to_owned()),
    };
    let plan = Plan {
        present: vec![workload],
        wiring: Wiring {
            endpoint: None,
            steps: vec![step],
        },
        revision: Some(revision()),
        ..Plan::default()
    };
    Flow {
        object,
        processors: BTreeMap::new(),
        plan,
        applied: Applied::default(),
        heartbeats: Heartbeats::NotRead,
    }
}

fn wanted(kind: ChildKind, name: &str) -> Child {
    Child {
        id: ChildRef {
            kind,
            name: name.to_owned(),
        },
        body: json!({}),
    }
}

fn revision() -> RevisionPlan {
    RevisionPlan {
        current: REVISION.to_owned(),
        previous: Some(OLD.to_owned()),
        taken_by_user: vec!["LOG_LEVEL".to_owned()],
        image: Some("ttp:1".to_owned()),
    }
}

fn problem(condition: ConditionType, reason: Reason, field: &str, message: &str, severity: Severity) -> Problem {
    Problem {
        condition,
        reason,
        field: field.to_owned(),
        message: message.to_owned(),
        severity,
    }
}

/// A Deployment at generation 2, with the rest of its status.
fn deployment(name: &str, replicas: i32, strategy: &str, status: Value) -> Deployment {
    read(json!({
        "metadata": {"name": name, "namespace": "stellar", "generation": 2, "uid": "d"},
        "spec": {
            "replicas": replicas, "strategy": {"type": strategy}, "selector": {},
            "template": {
                "metadata": {"labels": {"flowctl.dev/revision": REVISION}},
                "spec": {"containers": [{
                    "name": "main", "image": "ttp:1", "resources": {"limits": {"memory": "512Mi"}},
                    "env": [
                        {"name": "FLOWCTL_ENDPOINT", "value": "flowctl.flowctl-system:8080"},
                        {"name": "HEARTBEAT_INTERVAL_SECONDS", "value": "10"},
                    ],
                }]},
            },
        },
        "status": status,
    }))
}

/// The status of a Deployment whose roll-out is over.
fn settled(replicas: i32) -> Value {
    json!({
        "observedGeneration": 2, "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": replicas,
        "availableReplicas": replicas,
        "conditions": [
            {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"},
            {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
        ],
    })
}

/// The status of a Deployment whose pods do not become ready.
fn unsettled(replicas: i32) -> Value {
    json!({
        "observedGeneration": 2, "replicas": replicas, "updatedReplicas": replicas, "unavailableReplicas": replicas,
        "conditions": [
            {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable"},
            {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"},
        ],
    })
}

fn pod(name: &str, revision: &str, status: Value) -> Arc<Pod> {
    Arc::new(read(json!({
        "metadata": {
            "name": name, "namespace": "stellar", "uid": name, "labels": {"flowctl.dev/revision": revision},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": true}],
        },
        "spec": {"containers": [{"name": "main", "resources": {"limits": {"memory": "512Mi"}}}]},
        "status": status,
    })))
}

fn ready(name: &str) -> Arc<Pod> {
    pod(name, REVISION, ready_status())
}

fn ready_status() -> Value {
    json!({
        "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [container(json!({"running": {"startedAt": "2026-03-01T11:00:00Z"}}), 0, json!({}), true)],
    })
}

/// A pod that is not ready, with the state of its main container.
fn starting(name: &str, state: Value, restarts: i32, last: Value) -> Arc<Pod> {
    let status = json!({
        "phase": "Running", "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [container(state, restarts, last, false)],
    });
    pod(name, REVISION, status)
}

fn container(state: Value, restarts: i32, last: Value, ready: bool) -> Value {
    json!({
        "name": "main", "image": "ttp:1", "imageID": "", "ready": ready, "restartCount": restarts,
        "state": state, "lastState": last,
    })
}

fn job(status: Value) -> Job {
    read(json!({
        "metadata": {"name": format!("payments-{REVISION}"), "namespace": "stellar", "uid": "j"},
        "spec": {"backoffLimit": 3, "template": {"spec": {"containers": [{"name": "main", "image": "runner:1"}]}}},
        "status": status,
    }))
}

// === impl Service ===

impl Service {
    fn with(mut self, deployment: Deployment, pods: Vec<Arc<Pod>>) -> Self {
        self.applied.children = Children {
            deployments: vec![Arc::new(deployment)],
            pods,
            ..Children::default()
        };
        self
    }

    fn failing(mut self, child: ChildKind, kind: FailureKind) -> Self {
        let child = ChildRef {
            kind: child,
            name: "ttp-processor".to_owned(),
        };
        self.applied.failures.push(Failure { child, kind });
        self
    }

    fn publish_at(&self, now: Timestamp) -> Publication {
        let observed = ProcessorObserved {
            object: Arc::new(self.object.clone()),
            upstreams: BTreeMap::new(),
            unread: BTreeSet::new(),
            used_by: self.used_by,
            children: Children::default(),
            heartbeats: Heartbeats::NotRead,
            settings: settings(),
            now,
        };
        processor(&observed, &self.plan, &self.applied)
    }

    fn publish(&self) -> Publication {
        self.publish_at(now())
    }

    /// The next pass, after this one's status was stored.
    fn then(mut self, next: impl FnOnce(Self) -> Self) -> Self {
        self.object.status = Some(stored(self.publish().status));
        next(self)
    }
}

// === impl Flow ===

impl Flow {
    fn with_deployment(mut self, deployment: Deployment, pods: Vec<Arc<Pod>>) -> Self {
        self.applied.children = Children {
            deployments: vec![Arc::new(deployment)],
            pods,
            ..Children::default()
        };
        self
    }

    fn with_job(mut self, job: Job, pods: Vec<Arc<Pod>>) -> Self {
        self.applied.children = Children {
            jobs: vec![Arc::new(job)],
            pods,
            ..Children::default()
        };
        self
    }

    /// Adds the processor that `service` describes, with its published status.
    fn served_by(mut self, service: Service) -> Self {
        let service = service.then(|service| service);
        self.processors
            .insert(Key::new("stellar", "ttp"), Arc::new(service.object));
        self
    }

    fn publish_at(&self, now: Timestamp) -> Publication {
        let observed = PipelineObserved {
            object: Arc::new(self.object.clone()),
            processors: self.processors.clone(),
            unread: BTreeSet::new(),
            children: Children::default(),
            heartbeats: self.heartbeats.clone(),
            settings: settings(),
            now,
        };
        pipeline(&observed, &self.plan, &self.applied)
    }

    fn publish(&self) -> Publication {
        self.publish_at(now())
    }
}

/// A status as it comes back from the apiserver.
fn stored(status: Status) -> Status {
    read(serde_json::to_value(status).expect("JSON"))
}

fn condition(status: &Status, kind: ConditionType) -> &Condition {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind.as_str())
        .expect("every condition is there")
}

/// `True/Ready`, `False/CrashLoopBackOff`, and the like.
fn told(status: &Status, kind: ConditionType) -> String {
    let condition = condition(status, kind);
    format!("{}/{}", condition.status, condition.reason)
}
