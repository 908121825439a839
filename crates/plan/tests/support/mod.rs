//! A cluster in memory: plans are applied to it as the operator and Kubernetes' own controllers would, as far as the next
//! plan looks at what came of it.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a fixture that cannot be made fails its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flowctl_api::status::RevisionStatus;
use flowctl_api::{ControlPlane, ExternalProcessor, Pipeline, Status};
use flowctl_plan::heartbeat::Heartbeats;
use flowctl_plan::observed::PodSecurity;
use flowctl_plan::{
    Applied, Child, ChildKind, ChildRef, Children, Key, PipelineObserved, Plan, ProcessorObserved, Settings, pipeline,
    processor,
};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::JobStatus;
use k8s_openapi::api::core::v1::Pod;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A cluster as an object's passes see it.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// ExternalProcessors, in every namespace.
    pub(crate) processors: BTreeMap<Key, Arc<ExternalProcessor>>,
    /// Namespaces that the operator cannot read.
    pub(crate) unread: BTreeSet<String>,
    /// What the object owns.
    pub(crate) children: Children,
    /// What was last published.
    pub(crate) status: Option<Status>,
    /// What is known about heartbeats.
    pub(crate) heartbeats: Heartbeats,
    /// The operator's configuration.
    pub(crate) settings: Settings,
}

/// The operator's configuration in tests.
pub(crate) fn settings() -> Settings {
    Settings {
        runner_image: "ghcr.io/withobsrvr/flowctl-runner:1.0".to_owned(),
        image_pull_policy: None,
        control_plane: Some(ControlPlane {
            endpoint: "flowctl.flowctl-system:8080".to_owned(),
            tls: None,
        }),
        allowed_control_planes: Vec::new(),
        pod_security: PodSecurity::Restricted,
        cluster_domain: "cluster.local".to_owned(),
        watched_namespaces: Vec::new(),
    }
}

/// An object from YAML, with what an apiserver adds.
pub(crate) fn object<T: DeserializeOwned>(yaml: &str) -> T {
    let mut value: Value = serde_saphyr::from_str(yaml).unwrap();
    let metadata = value["metadata"].as_object_mut().unwrap();
    metadata.entry("namespace").or_insert(json!("stellar"));
    let uid = format!("uid-of-{}", metadata["name"].as_str().unwrap());
    metadata.insert("uid".to_owned(), json!(uid));
    metadata.insert("generation".to_owned(), json!(1));
    serde_json::from_value(value).unwrap()
}

/// An ExternalProcessor from the YAML of its spec.
pub(crate) fn xproc(name: &str, spec: &str) -> ExternalProcessor {
    named("ExternalProcessor", name, spec)
}

/// A Pipeline from the YAML of its spec.
pub(crate) fn fpl(name: &str, spec: &str) -> Pipeline {
    named("Pipeline", name, spec)
}

fn named<T: DeserializeOwned>(kind: &str, name: &str, spec: &str) -> T {
    let (namespace, name) = name.split_once('/').unwrap_or(("stellar", name));
    let spec: String = spec
        .trim_matches('\n')
        .lines()
        .map(|line| format!("  {line}\n"))
        .collect();
    object(&format!(
        "apiVersion: flowctl.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n{spec}"
    ))
}

/// The processor that most pipelines of the tests refer to.
pub(crate) fn ttp() -> ExternalProcessor {
    xproc(
        "ttp-processor",
        "role: Processor\nworkload: {image: 'ttp:1', replicas: 3}\nport: 50051\n",
    )
}

/// The consumer that most pipelines of the tests refer to.
pub(crate) fn sink() -> ExternalProcessor {
    xproc(
        "analytics-sink",
        "role: Consumer\nworkload: {image: 'sink:1'}\nport: 50052\n",
    )
}

/// The pipeline of the design.
pub(crate) const PAYMENTS: &str = "
source: {type: BufferedStorageSourceAdapter, config: {storage_type: FS, path: /ledgers}}
processors:
- {type: LedgerReader, config: {network: pubnet}}
- name: ttp
  processorRef: {name: ttp-processor}
  config: {timeout: 30s, max_retries: 3, use_streaming: true}
consumers:
- processorRef: {name: analytics-sink}
  config: {timeout: 60s}
- {type: StdoutConsumer}
runtime:
  volumes: [{name: ledgers, persistentVolumeClaim: {claimName: ledgers}}]
  volumeMounts: [{name: ledgers, mountPath: /ledgers, readOnly: true}]
checkpoint: {claimName: payments-checkpoint}
";

/// As above, as an object.
pub(crate) fn payments() -> Pipeline {
    fpl("payments", PAYMENTS)
}

// === impl World ===

impl World {
    /// A cluster with these processors.
    pub(crate) fn with(processors: impl IntoIterator<Item = ExternalProcessor>) -> Self {
        let keyed = processors.into_iter().map(|one| {
            let key = Key::new(
                one.metadata.namespace.clone().unwrap(),
                one.metadata.name.clone().unwrap(),
            );
            (key, Arc::new(one))
        });
        Self {
            processors: keyed.collect(),
            unread: BTreeSet::new(),
            children: Children::default(),
            status: None,
            heartbeats: Heartbeats::NotRead,
            settings: settings(),
        }
    }

    /// The usual two.
    pub(crate) fn usual() -> Self {
        Self::with([ttp(), sink()])
    }

    /// Adds or replaces a processor.
    pub(crate) fn put(&mut self, processor: ExternalProcessor) {
        self.processors.extend(Self::with([processor]).processors);
    }

    /// What would be wanted.
    pub(crate) fn plan(&self, object: &Pipeline) -> Plan {
        let mut object = object.clone();
        object.status = self.status.clone();
        pipeline::plan(&PipelineObserved {
            object: Arc::new(object),
            processors: self.processors.clone(),
            unread: self.unread.clone(),
            children: self.children.clone(),
            heartbeats: self.heartbeats.clone(),
            settings: Arc::new(self.settings.clone()),
            now: "2026-03-01T12:00:00Z".parse().unwrap(),
        })
    }

    /// What would be wanted for a processor.
    pub(crate) fn plan_processor(&self, object: &ExternalProcessor) -> Plan {
        let mut object = object.clone();
        object.status = self.status.clone();
        processor::plan(&ProcessorObserved {
            object: Arc::new(object),
            upstreams: self.processors.clone(),
            unread: self.unread.clone(),
            used_by: 0,
            children: self.children.clone(),
            heartbeats: self.heartbeats.clone(),
            settings: Arc::new(self.settings.clone()),
            now: "2026-03-01T12:00:00Z".parse().unwrap(),
        })
    }

    /// One pass over a Pipeline.
    pub(crate) fn pass(&mut self, object: &Pipeline) -> Plan {
        let plan = self.plan(object);
        self.apply(&plan);
        plan
    }

    /// One pass over an ExternalProcessor.
    pub(crate) fn pass_processor(&mut self, object: &ExternalProcessor) -> Plan {
        let plan = self.plan_processor(object);
        self.apply(&plan);
        plan
    }

    fn apply(&mut self, plan: &Plan) {
        for child in &plan.present {
            if !(child.id.kind.write_once() && self.children.contains(&child.id)) {
                let ended = self.jobs_status(&child.id.name);
                self.remove(&child.id);
                self.insert(child);
                if let (ChildKind::Job, Some(job)) = (child.id.kind, self.children.jobs.last_mut()) {
                    Arc::make_mut(job).status = ended;
                }
            }
        }
        for child in &plan.absent {
            self.remove(child);
        }
        if let Some(revision) = &plan.revision {
            let told = RevisionStatus {
                current: revision.current.clone(),
                previous: revision.previous.clone(),
                taken_by_user: revision.taken_by_user.clone(),
            };
            self.status.get_or_insert_default().revision = Some(told);
        }
    }

    fn jobs_status(&self, name: &str) -> Option<JobStatus> {
        let job = self
            .children
            .jobs
            .iter()
            .find(|job| job.metadata.name.as_deref() == Some(name))?;
        job.status.clone()
    }

    /// Makes a child exist as it is.
    pub(crate) fn insert(&mut self, child: &Child) {
        fn push<T: DeserializeOwned>(list: &mut Vec<Arc<T>>, body: &Value) {
            list.push(Arc::new(serde_json::from_value(body.clone()).unwrap()));
        }
        let (all, body) = (&mut self.children, &child.body);
        match child.id.kind {
            ChildKind::ConfigMap => push(&mut all.config_maps, body),
            ChildKind::ControllerRevision => push(&mut all.revisions, body),
            ChildKind::Service => push(&mut all.services, body),
            ChildKind::PodDisruptionBudget => push(&mut all.budgets, body),
            ChildKind::Job => push(&mut all.jobs, body),
            ChildKind::Deployment => {
                push(&mut all.deployments, body);
                let live = all.deployments.last().unwrap().clone();
                self.roll_out(&live);
            }
        }
    }

    /// What the Deployment controller does: the new ReplicaSet runs, the others are kept with none.
    fn roll_out(&mut self, deployment: &Deployment) {
        let spec = deployment.spec.clone().unwrap();
        let metadata = spec.template.metadata.clone().unwrap();
        let revision = metadata.labels.clone().unwrap()[flowctl_api::labels::REVISION].clone();
        self.children
            .replica_sets
            .retain(|set| set.metadata.name.as_ref() != Some(&revision));
        for set in &mut self.children.replica_sets {
            Arc::make_mut(set).spec.as_mut().unwrap().replicas = Some(0);
        }
        let set = json!({
            "metadata": {"name": revision, "labels": metadata.labels},
            "spec": {"replicas": spec.replicas, "selector": {}},
        });
        self.children
            .replica_sets
            .push(Arc::new(serde_json::from_value::<ReplicaSet>(set).unwrap()));
    }

    /// Takes a child away, as garbage collection or a person would.
    pub(crate) fn remove(&mut self, id: &ChildRef) {
        fn drop<K: kube::ResourceExt>(list: &mut Vec<Arc<K>>, name: &str) {
            list.retain(|item| item.meta().name.as_deref() != Some(name));
        }
        let all = &mut self.children;
        match id.kind {
            ChildKind::ConfigMap => drop(&mut all.config_maps, &id.name),
            ChildKind::ControllerRevision => drop(&mut all.revisions, &id.name),
            ChildKind::Service => drop(&mut all.services, &id.name),
            ChildKind::PodDisruptionBudget => drop(&mut all.budgets, &id.name),
            ChildKind::Deployment => drop(&mut all.deployments, &id.name),
            ChildKind::Job => drop(&mut all.jobs, &id.name),
        }
    }

    /// A pod of a revision, owned by a Job or a ReplicaSet.
    pub(crate) fn add_pod(&mut self, revision: &str, owner: &str, phase: &str) {
        let pod = json!({
            "metadata": {
                "name": format!("pod-{revision}"),
                "labels": {flowctl_api::labels::REVISION: revision},
                "ownerReferences": [{"apiVersion": "v1", "kind": owner, "name": "x", "uid": "x"}],
            },
            "status": {"phase": phase},
        });
        self.children
            .pods
            .push(Arc::new(serde_json::from_value::<Pod>(pod).unwrap()));
    }

    /// What the operator publishes after a pass over a Pipeline.
    pub(crate) fn publish(&mut self, object: &Pipeline) -> Status {
        let plan = self.pass(object);
        let mut object = object.clone();
        object.status = self.status.clone();
        let observed = PipelineObserved {
            object: Arc::new(object),
            processors: self.processors.clone(),
            unread: self.unread.clone(),
            children: self.children.clone(),
            heartbeats: self.heartbeats.clone(),
            settings: Arc::new(self.settings.clone()),
            now: "2026-03-01T12:00:00Z".parse().unwrap(),
        };
        let applied = Applied {
            children: self.children.clone(),
            failures: Vec::new(),
        };
        let status = flowctl_plan::status::pipeline(&observed, &plan, &applied).status;
        self.status = Some(status.clone());
        status
    }

    /// Ends every Job with a condition.
    pub(crate) fn finish_jobs(&mut self, condition: &str) {
        for job in &mut self.children.jobs {
            let status = json!({"conditions": [{"type": condition, "status": "True"}]});
            Arc::make_mut(job).status = Some(serde_json::from_value(status).unwrap());
        }
    }
}

/// The child of that kind, which must be alone.
pub(crate) fn only(plan: &Plan, kind: ChildKind) -> &Value {
    let mut found = plan.present.iter().filter(|child| child.id.kind == kind);
    let first = found
        .next()
        .unwrap_or_else(|| panic!("no {kind:?} in {:?}", plan.problems));
    assert!(found.next().is_none(), "more than one {kind:?}");
    &first.body
}

/// Whether a child of that kind is wanted.
pub(crate) fn has(plan: &Plan, kind: ChildKind) -> bool {
    plan.present.iter().any(|child| child.id.kind == kind)
}

/// The hash of the wanted revision.
pub(crate) fn hash(plan: &Plan) -> &str {
    &plan
        .revision
        .as_ref()
        .unwrap_or_else(|| panic!("held: {:?}", plan.problems))
        .current
}

/// The plan as a tree for a snapshot. The stored template is left out where the workload shows it.
pub(crate) fn tree(plan: &Plan) -> Value {
    let workload = has(plan, ChildKind::Deployment) || has(plan, ChildKind::Job);
    let present: Vec<Value> = plan
        .present
        .iter()
        .map(|child| {
            let mut body = child.body.clone();
            if child.id.kind == ChildKind::ControllerRevision && workload {
                body["data"]["template"] = json!("(as in the workload)");
            }
            body
        })
        .collect();
    json!({
        "present": present,
        "absent": plan.absent.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "problems": problems(plan),
        "revision": plan.revision.as_ref().map(|revision| json!({
            "current": revision.current,
            "previous": revision.previous,
            "takenByUser": revision.taken_by_user,
            "image": revision.image,
        })),
        "wiring": {
            "endpoint": plan.wiring.endpoint,
            "steps": plan.wiring.steps.iter().map(|step| json!({
                "name": step.name,
                "target": step.target.to_string(),
                "endpoint": step.endpoint,
            })).collect::<Vec<_>>(),
        },
    })
}

/// The problems, one line each.
pub(crate) fn problems(plan: &Plan) -> Vec<String> {
    let line = |one: &flowctl_plan::Problem| {
        format!(
            "{}/{} {:?} {}: {}",
            one.condition, one.reason, one.severity, one.field, one.message
        )
    };
    plan.problems.iter().map(line).collect()
}
