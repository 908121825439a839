//! The objects of the benchmark, a Pipeline for each processor, and what the operator is to write for them. The plans are
//! made by the operator's own `flowctl-plan`: the bare loop sends them, and the operator's end is judged by them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
};

use clap::Parser as _;
use flowctl_api::{ExternalProcessor, Pipeline, Status};
use flowctl_operator::Args;
use flowctl_plan::{
    Applied, Child, ChildKind, Children, Key, PipelineObserved, Plan, ProcessorObserved, Settings, differs, status,
};
use flowctl_testkit::{Error, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DynamicObject, ListParams, PostParams},
    core::{GroupVersionKind, NamespaceResourceScope, object::HasStatus},
    discovery::ApiResource,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::scene::Scene;

/// Requests of ours at the same time while objects are made.
const IN_FLIGHT: usize = 16;

/// What the operator is to write for one object.
pub(super) struct Planned {
    pub(super) object: Value,
    pub(super) children: Vec<Child>,
    pub(super) status: Status,
}

/// Name of a Pipeline; no child's name begins so with another owner, since there is no `-` in it.
pub(super) fn pipeline_name(number: usize) -> String {
    format!("line{number:04}")
}

/// Name of an ExternalProcessor.
pub(super) fn processor_name(number: usize) -> String {
    format!("proc{number:04}")
}

fn pipeline(number: usize) -> Value {
    json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline", "metadata": {"name": pipeline_name(number)},
        "spec": {
            "source": {"type": "BufferedStorageSourceAdapter", "config": {"storage_type": "FS", "path": "/ledgers"}},
            "processors": [
                {"type": "LedgerReader", "config": {"network": "pubnet"}},
                {"name": "ttp", "processorRef": {"name": processor_name(number)}, "config": {"timeout": "30s"}},
            ],
            "consumers": [{"type": "StdoutConsumer"}],
        },
    })
}

fn processor(number: usize) -> Value {
    json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor", "metadata": {"name": processor_name(number)},
        "spec": {
            "role": "Processor", "port": 50051, "probe": {"grpc": {}},
            "workload": {"image": "ttp-processor:v1", "env": [{"name": "NETWORK", "value": "pubnet"}]},
        },
    })
}

/// Makes as many Pipelines, and processors, as that.
pub(super) async fn create(scene: &Scene, place: &str, count: usize) -> Result<()> {
    let make = |number: usize| async move {
        create_one::<ExternalProcessor>(scene, place, processor(number)).await?;
        create_one::<Pipeline>(scene, place, pipeline(number)).await
    };
    stream::iter((0..count).map(make))
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<()>()
        .await
}

async fn create_one<K>(scene: &Scene, place: &str, object: Value) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    let object: K = typed(object)?;
    let api: Api<K> = Api::namespaced(scene.client.clone(), place);
    let made = api.create(&PostParams::default(), &object).await;
    made.map(drop).map_err(Error::kube("make an object"))
}

/// Plans for all objects of a namespace, from their specs alone: as for objects whose children nobody has seen.
pub(super) async fn planned(scene: &Scene, place: &str) -> Result<Vec<Planned>> {
    let wrong =
        |error: &dyn std::fmt::Display| Error::impossible(format!("cannot resolve the operator's flags: {error}"));
    let args = Args::try_parse_from(["flowctl-operator", "--namespaces", place]).map_err(|error| wrong(&error))?;
    let (_, settings) = args.resolve(place).map_err(|error| wrong(&error))?;
    let settings = Arc::new(settings);
    let processors: BTreeMap<Key, Arc<ExternalProcessor>> = list(scene, place)
        .await?
        .into_iter()
        .map(|object: ExternalProcessor| (Key::new(place, object.name_any()), Arc::new(object)))
        .collect();
    let mut all = Vec::new();
    for object in processors.values() {
        all.push(plan_processor(object, &settings)?);
    }
    for object in list::<Pipeline>(scene, place).await? {
        all.push(plan_pipeline(object, &processors, &settings)?);
    }
    Ok(all)
}

fn plan_processor(object: &Arc<ExternalProcessor>, settings: &Arc<Settings>) -> Result<Planned> {
    let observed = ProcessorObserved {
        object: Arc::clone(object),
        upstreams: BTreeMap::new(),
        unread: BTreeSet::new(),
        used_by: 1,
        children: Children::default(),
        heartbeats: flowctl_plan::heartbeat::Heartbeats::NotRead,
        settings: Arc::clone(settings),
        now: Timestamp::now(),
    };
    let plan = flowctl_plan::processor::plan(&observed);
    let publication = status::processor(&observed, &plan, &applied(&plan)?);
    Planned::new(&**object, plan, publication.status)
}

fn plan_pipeline(
    object: Pipeline,
    processors: &BTreeMap<Key, Arc<ExternalProcessor>>,
    settings: &Arc<Settings>,
) -> Result<Planned> {
    let wanted = flowctl_plan::references::of_pipeline(&object);
    let found = wanted
        .into_iter()
        .filter_map(|key| Some((key.clone(), Arc::clone(processors.get(&key)?))));
    let observed = PipelineObserved {
        processors: found.collect(),
        unread: BTreeSet::new(),
        object: Arc::new(object),
        children: Children::default(),
        heartbeats: flowctl_plan::heartbeat::Heartbeats::NotRead,
        settings: Arc::clone(settings),
        now: Timestamp::now(),
    };
    let plan = flowctl_plan::pipeline::plan(&observed);
    let publication = status::pipeline(&observed, &plan, &applied(&plan)?);
    Planned::new(&*observed.object, plan, publication.status)
}

/// As if everything had been written, and nothing else had happened yet.
fn applied(plan: &Plan) -> Result<Applied> {
    let mut children = Children::default();
    for child in &plan.present {
        let body = child.body.clone();
        match child.id.kind {
            ChildKind::ConfigMap => children.config_maps.push(Arc::new(typed(body)?)),
            ChildKind::ControllerRevision => children.revisions.push(Arc::new(typed(body)?)),
            ChildKind::Service => children.services.push(Arc::new(typed(body)?)),
            ChildKind::PodDisruptionBudget => children.budgets.push(Arc::new(typed(body)?)),
            ChildKind::Deployment => children.deployments.push(Arc::new(typed(body)?)),
            ChildKind::Job => children.jobs.push(Arc::new(typed(body)?)),
        }
    }
    Ok(Applied {
        children,
        failures: Vec::new(),
    })
}

/// What is not yet as planned in a namespace, in words; nothing: everything is. With pods, everything must be Ready too.
pub(super) async fn as_planned(scene: &Scene, place: &str, pods: bool) -> Result<std::result::Result<(), String>> {
    if let Some(waits) = untold::<Pipeline>(scene, place, pods).await? {
        return Ok(Err(waits));
    }
    if let Some(waits) = untold::<ExternalProcessor>(scene, place, pods).await? {
        return Ok(Err(waits));
    }
    let mut live = BTreeMap::new();
    for kind in ChildKind::ALL {
        let api: Api<DynamicObject> = Api::namespaced_with(scene.client.clone(), place, &resource(kind));
        let all = api
            .list(&ListParams::default())
            .await
            .map_err(Error::kube("list children"))?;
        for object in all.items {
            live.insert((kind, object.name_any()), object);
        }
    }
    for planned in planned(scene, place).await? {
        for child in planned.children {
            let Some(found) = live.get(&(child.id.kind, child.id.name.clone())) else {
                return Ok(Err(format!("{} is not there", child.id)));
            };
            let found = serde_json::to_value(found).map_err(|error| Error::impossible(error.to_string()))?;
            if let Some(difference) = differs(&child, &found) {
                return Ok(Err(format!("{} differs in {}", child.id, difference.path)));
            }
        }
    }
    Ok(Ok(()))
}

/// An object whose status is not of its present generation, or not Ready.
async fn untold<K>(scene: &Scene, place: &str, ready: bool) -> Result<Option<String>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + HasStatus<Status = Status>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let told = |object: &K| {
        object.status().is_some_and(|status| {
            let is_ready = |type_: &str| {
                status
                    .conditions
                    .iter()
                    .any(|seen| seen.type_ == type_ && seen.status == "True")
            };
            status.observed_generation == object.meta().generation
                && is_ready("Accepted")
                && (is_ready("Ready") || !ready)
        })
    };
    let all: Vec<K> = list(scene, place).await?;
    let found = all.iter().find(|object| !told(object));
    Ok(found.map(|object| format!("{} {} waits for its status", K::kind(&()), object.name_any())))
}

async fn list<K>(scene: &Scene, place: &str) -> Result<Vec<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(scene.client.clone(), place);
    let all = api
        .list(&ListParams::default())
        .await
        .map_err(Error::kube("list objects"))?;
    Ok(all.items)
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value)
        .map_err(|error| Error::impossible(format!("an object does not fit its type: {error}")))
}

/// A kind of child as the apiserver addresses it.
pub(super) fn resource(kind: ChildKind) -> ApiResource {
    let (group, version) = kind.api_version().split_once('/').unwrap_or(("", kind.api_version()));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind.as_str()))
}

// === impl Planned ===

impl Planned {
    fn new<K: Serialize>(object: &K, plan: Plan, status: Status) -> Result<Self> {
        if !plan.problems.is_empty() {
            return Err(Error::impossible(format!(
                "the benchmark's objects are refused: {:?}",
                plan.problems
            )));
        }
        Ok(Self {
            object: serde_json::to_value(object).map_err(|error| Error::impossible(error.to_string()))?,
            children: plan.present.iter().map(Child::sealed).collect(),
            status,
        })
    }
}
