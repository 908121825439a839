//! An operator that wants other things than the one before it: what runs goes on, what changes takes all that is new.
//!
//! The image of the runner, the pull policy and the control plane (five injected variables) are flags. A probe and the
//! ids are not, so what an older version made is made here as such a version would: planned by `flowctl-plan`, with
//! another probe and another variable in the rendered template, sealed, and written in the operator's name, before any
//! operator runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowctl_api::{ExternalProcessor, Pipeline, labels::MANAGER};
use flowctl_plan::{Child, ChildKind, Children, Key, PipelineObserved, Plan, ProcessorObserved, Settings};
use flowctl_testkit::{
    Error,
    fake_kubelet::{Outcome, Selector},
    wait,
};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    core::v1::{ConfigMap, Container, Pod},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    discovery::ApiResource,
};
use serde_json::{Value, json};

use crate::{
    objects::{nothing_was_forbidden, processor, replica_sets},
    probes::{free_address, looked_at},
    process::{Launch, Process},
    support::{LIMIT, Place, TestResult, in_namespace, settings},
};

const DEPLOYMENTS: [&str; 2] = ["payments-pipeline", "ttp-processor"];

/// What the operator of before wants.
fn older_settings() -> Settings {
    Settings {
        runner_image: "flowctl-runner:older".to_owned(),
        ..settings()
    }
}

/// The flags of the operator of today.
const NEWER: [&str; 6] = [
    "--runner-image",
    "flowctl-runner:newer",
    "--control-plane",
    "flowctl.flowctl-system:8080",
    "--image-pull-policy",
    "Never",
];

fn pipeline(network: &str) -> Value {
    json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline", "metadata": {"name": "payments"},
        "spec": {
            "source": {"type": "BufferedStorageSourceAdapter", "config": {"storage_type": "FS", "path": "/ledgers"}},
            "processors": [
                {"type": "LedgerReader", "config": {"network": network}},
                {"name": "ttp", "processorRef": {"name": "ttp"}},
            ],
            "consumers": [{"type": "StdoutConsumer"}],
        },
    })
}

/// The template as an older version would have rendered it.
fn as_before(child: &mut Child) {
    let path = match child.id.kind {
        ChildKind::ControllerRevision => "/data/template/spec/containers/0",
        ChildKind::Deployment => "/spec/template/spec/containers/0",
        ChildKind::ConfigMap | ChildKind::Service | ChildKind::PodDisruptionBudget | ChildKind::Job => return,
    };
    let Some(container) = child.body.pointer_mut(path) else {
        panic!("{} has no container", child.id)
    };
    container["readinessProbe"]["periodSeconds"] = json!(17);
    let environment = container["env"].as_array_mut().into_iter().flatten();
    let mut changed = environment.filter(|entry| entry["name"] == "SERVICE_ID");
    let Some(entry) = changed.next() else {
        panic!("no SERVICE_ID in {}", child.id)
    };
    entry["value"] = json!("older");
}

async fn write(client: &Client, place: &Place, child: &Child) -> TestResult {
    let body: DynamicObject =
        serde_json::from_value(child.body.clone()).map_err(|error| Error::impossible(error.to_string()))?;
    let (group, version) = child.id.kind.api_version().split_once('/').unwrap_or(("", "v1"));
    let kind = kube::core::GroupVersionKind::gvk(group, version, child.id.kind.as_str());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &place.namespace, &ApiResource::from_gvk(&kind));
    let written = if child.id.kind.write_once() {
        let parameters = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        api.create(&parameters, &body).await
    } else {
        let parameters = PatchParams::apply(MANAGER);
        api.patch(&child.id.name, &parameters, &Patch::Apply(&body)).await
    };
    written.map_err(Error::kube(format!("write {}", child.id)))?;
    Ok(())
}

/// Makes the children of both objects as an older version would.
async fn an_older_version_made_them(place: &Place) -> TestResult {
    let settings = Arc::new(older_settings());
    let ttp: Arc<ExternalProcessor> = Arc::new(place.get("ttp").await?);
    let of_processor = flowctl_plan::processor::plan(&ProcessorObserved {
        object: Arc::clone(&ttp),
        upstreams: BTreeMap::new(),
        unread: BTreeSet::new(),
        used_by: 1,
        children: Children::default(),
        heartbeats: flowctl_plan::heartbeat::Heartbeats::NotRead,
        settings: Arc::clone(&settings),
        now: Timestamp::now(),
    });
    let of_pipeline = flowctl_plan::pipeline::plan(&PipelineObserved {
        object: Arc::new(place.get::<Pipeline>("payments").await?),
        processors: BTreeMap::from([(Key::new(&*place.namespace, "ttp"), ttp)]),
        unread: BTreeSet::new(),
        children: Children::default(),
        heartbeats: flowctl_plan::heartbeat::Heartbeats::NotRead,
        settings,
        now: Timestamp::now(),
    });
    let client = Client::try_from(place.config().await?).map_err(Error::kube("make a client"))?;
    for Plan { present, problems, .. } in [of_processor, of_pipeline] {
        assert!(problems.is_empty(), "{problems:?}");
        for mut child in present {
            as_before(&mut child);
            write(&client, place, &child.sealed()).await?;
        }
    }
    Ok(())
}

/// What runs: the Deployments with their generations and templates, and the pods by uid.
async fn running(place: &Place) -> Result<(BTreeMap<String, Option<i64>>, BTreeSet<String>), Error> {
    let mut generations = BTreeMap::new();
    for name in DEPLOYMENTS {
        let live: Deployment = place.get(name).await?;
        generations.insert(name.to_owned(), live.metadata.generation);
    }
    let pods: Vec<Pod> = place.list().await?;
    let uids = pods
        .iter()
        .filter_map(|pod| Some(format!("{} {}", pod.name_any(), pod.uid()?)));
    Ok((generations, uids.collect()))
}

async fn container(place: &Place, deployment: &str) -> Result<Container, Error> {
    let live: Deployment = place.get(deployment).await?;
    let spec = live.spec.and_then(|spec| spec.template.spec);
    let mut containers = spec.map(|spec| spec.containers).unwrap_or_default().into_iter();
    containers
        .next()
        .ok_or_else(|| Error::impossible(format!("{deployment} has no container")))
}

fn variable<'c>(container: &'c Container, name: &str) -> Option<&'c str> {
    let mut entries = container.env.iter().flatten();
    entries.find(|entry| entry.name == name)?.value.as_deref()
}

fn period(container: &Container) -> Option<i32> {
    container.readiness_probe.as_ref()?.period_seconds
}

async fn is_of_before(place: &Place, deployment: &str) -> TestResult {
    let container = container(place, deployment).await?;
    assert_eq!(
        (period(&container), variable(&container, "SERVICE_ID")),
        (Some(17), Some("older")),
        "{deployment}"
    );
    assert_eq!(variable(&container, "FLOWCTL_ENDPOINT"), None, "{deployment}");
    if deployment == "payments-pipeline" {
        assert_eq!(container.image.as_deref(), Some("flowctl-runner:older"));
    }
    Ok(())
}

async fn is_of_today(place: &Place, deployment: &str) -> TestResult {
    let container = container(place, deployment).await?;
    assert_eq!(period(&container), Some(5), "{deployment}");
    let id = variable(&container, "SERVICE_ID").unwrap_or_default();
    assert!(id.ends_with("$(POD_NAME)"), "{deployment}: {id}");
    assert!(variable(&container, "FLOWCTL_ENDPOINT").is_some(), "{deployment}");
    assert_eq!(container.image_pull_policy.as_deref(), Some("Never"), "{deployment}");
    if deployment == "payments-pipeline" {
        assert_eq!(container.image.as_deref(), Some("flowctl-runner:newer"));
    }
    Ok(())
}

async fn pipeline_revision(place: &Place, before: &[&str]) -> Result<String, Error> {
    wait::until("another revision is Ready", LIMIT, async || {
        let revision = place.ready::<Pipeline>("payments").await?.revision.unwrap_or_default();
        Ok((!before.contains(&revision.current.as_str())).then_some(revision.current))
    })
    .await
}

// An upgrade of the operator in the middle of the day must not be noticed by anything that runs; and a change of a spec
// must not leave half of it on the defaults of last year.
#[test]
fn a_newer_operator_restarts_nothing_and_a_change_takes_all_of_it() {
    in_namespace("upgrade", async |place| {
        place.apply(processor("ttp", "Processor")).await?;
        place.apply(pipeline("pubnet")).await?;
        an_older_version_made_them(&place).await?;
        let older = place.operator_with(place.options(), older_settings()).await?;
        let first = pipeline_revision(&place, &[""]).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        place.settled().await?;
        for deployment in DEPLOYMENTS {
            is_of_before(&place, deployment).await?;
        }
        let (before, sets) = (running(&place).await?, replica_sets(&place).await?);
        assert_eq!(before.1.len(), 2, "a pod each: {before:?}");
        older.stop().await?;

        let written = place.child_writes()?.len();
        let admin = free_address().await?;
        let launch = Launch {
            admin,
            arguments: &NEWER,
            ..Launch::default()
        };
        let newer = Process::launch(&place, "newer", launch)?;
        looked_at(admin, 1, LIMIT).await?;
        place.settled().await?;
        assert_eq!(place.child_writes()?.split_off(written), Vec::<String>::new());
        assert_eq!(running(&place).await?, before, "0 pods restarted");

        place.apply(pipeline("testnet")).await?;
        let image = json!({"spec": {"workload": {"image": "ttp:v2"}}});
        place.merge::<ExternalProcessor>("ttp", image).await?;
        let second = pipeline_revision(&place, &[&first]).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        for deployment in DEPLOYMENTS {
            is_of_today(&place, deployment).await?;
        }

        // The old spec is the old revision, with everything that it was rendered with, in its old ReplicaSet.
        place.settled().await?;
        let sets_of_both = replica_sets(&place).await?;
        assert_eq!(
            sets_of_both.difference(&sets).count(),
            1,
            "one roll-out: {sets_of_both:?}"
        );
        place.apply(pipeline("pubnet")).await?;
        assert_eq!(pipeline_revision(&place, &[&second]).await?, first);
        is_of_before(&place, "payments-pipeline").await?;
        place.settled().await?;
        assert_eq!(replica_sets(&place).await?, sets_of_both);

        // Who wants today's without another change asks for it.
        let asked = json!({"spec": {"restartedAt": "2026-11-21T12:00:00Z"}});
        place.merge::<Pipeline>("payments", asked.clone()).await?;
        let third = pipeline_revision(&place, &[&first, &second]).await?;
        is_of_today(&place, "payments-pipeline").await?;
        let generation = place.get::<Deployment>("payments-pipeline").await?.metadata.generation;
        place.merge::<Pipeline>("payments", asked).await?;
        place.settled().await?;
        assert_eq!(pipeline_revision(&place, &[&first, &second]).await?, third);
        let after = place.get::<Deployment>("payments-pipeline").await?.metadata.generation;
        assert_eq!(after, generation, "asked once, restarted once");
        newer.stop().await?;
        nothing_was_forbidden(&place)
    });
}

/// The stored revisions of the processor: the images that they run, the oldest first.
async fn stored(place: &Place) -> Result<Vec<String>, Error> {
    let mut all: Vec<ControllerRevision> = place.list().await?;
    all.sort_by_key(|revision| revision.revision);
    let image = |revision: &ControllerRevision| {
        let template = &revision.data.as_ref()?.0["template"];
        Some(template["spec"]["containers"][0]["image"].as_str()?.to_owned())
    };
    Ok(all.iter().filter_map(image).collect())
}

// A roll-out that hangs for weeks while one attempt follows another must not lose what still serves; and attempts must
// not pile up in etcd for ever.
#[test]
fn five_revisions_are_kept_and_the_one_that_runs() {
    in_namespace("pruned", async |place| {
        // Only the first image ever becomes ready.
        let later = |pod: &Pod| {
            let containers = pod
                .spec
                .as_ref()
                .map(|spec| spec.containers.as_slice())
                .unwrap_or_default();
            let first = containers
                .iter()
                .any(|container| container.image.as_deref() == Some("ttp:v1"));
            pod.namespace().as_deref() == Some("pruned") && !first
        };
        place
            .world
            .kubelet
            .script(Selector::predicate(later), Outcome::NotReady);
        let operator = place.operator().await?;
        place.apply(processor("ttp", "Processor")).await?;
        let first = place
            .ready::<ExternalProcessor>("ttp")
            .await?
            .revision
            .unwrap_or_default()
            .current;
        let name = format!("ttp-{first}");
        let uid = place.get::<ControllerRevision>(&name).await?.uid();
        for number in 2..=9 {
            let image = format!("ttp:v{number}");
            let change = json!({"spec": {"workload": {"image": image}}});
            place.merge::<ExternalProcessor>("ttp", change).await?;
            wait::until("the Deployment has the new image", LIMIT, async || {
                let container = container(&place, "ttp-processor").await?;
                Ok((container.image.as_deref() == Some(&image)).then_some(()))
            })
            .await?;
        }
        let kept = ["ttp:v1", "ttp:v5", "ttp:v6", "ttp:v7", "ttp:v8", "ttp:v9"];
        wait::until_explained("five are kept, and the one that runs", LIMIT, async || {
            let stored = stored(&place).await?;
            Ok(if stored == kept {
                Ok(())
            } else {
                Err(format!("{stored:?}"))
            })
        })
        .await?;
        // One that was used by nobody for long is as good as one of today.
        let back = json!({"spec": {"workload": {"image": "ttp:v1"}}});
        place.merge::<ExternalProcessor>("ttp", back).await?;
        let status = place.ready::<ExternalProcessor>("ttp").await?;
        assert_eq!(status.revision.unwrap_or_default().current, first);
        assert_eq!(
            place.get::<ControllerRevision>(&name).await?.uid(),
            uid,
            "the old object, not a copy"
        );
        let files: Vec<ConfigMap> = place.list().await?;
        assert!(
            !files.iter().any(|file| file.name_any().starts_with("ttp-")),
            "a processor has no file"
        );
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}
