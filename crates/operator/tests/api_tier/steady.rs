//! Fifty Pipelines with a processor each, on a cluster of their own: silence, also over a restart, and the least that
//! mends what others break. The operator is the program, with its lease; renewals of the lease are not counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_testkit::{Error, Tier, audit, tier, wait};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment, ReplicaSet},
    core::v1::{ConfigMap, Pod, Service},
};
use kube::{Resource, ResourceExt as _, core::NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    objects::{nothing_was_forbidden, processor},
    probes::{free_address, looked_at},
    process::{Launch, Process},
    support::{LIMIT, Place, Subject, TestResult},
    world::{World, definitions},
};

const PAIRS: usize = 50;
/// Nothing may be written for this long.
const WINDOW: Duration = Duration::from_secs(60);
/// For a hundred workloads on a small machine.
const CONVERGED: Duration = Duration::from_secs(300);
/// What the operator watches.
const KINDS: usize = 10;

/// `resourceVersion` of every object here that is ours, or made from one that is.
type Versions = BTreeMap<String, String>;

fn pipeline(number: usize) -> Value {
    json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline", "metadata": {"name": format!("flow{number:02}")},
        "spec": {
            "source": {"type": "BufferedStorageSourceAdapter", "config": {"storage_type": "FS", "path": "/ledgers"}},
            "processors": [{"name": "ttp", "processorRef": {"name": format!("ttp{number:02}")}}],
            "consumers": [{"type": "StdoutConsumer"}],
        },
    })
}

async fn unready<K: Subject>(place: &Place) -> Result<usize, Error> {
    let all: Vec<K> = place.list().await?;
    let is_ready = |object: &&K| {
        let conditions = object
            .status()
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        conditions
            .iter()
            .any(|found| found.type_ == "Ready" && found.status == "True")
    };
    Ok(PAIRS.saturating_sub(all.iter().filter(is_ready).count()))
}

async fn all_ready(place: &Place) -> TestResult {
    wait::until_explained("all of them are Ready", CONVERGED, async || {
        let left = unready::<Pipeline>(place).await? + unready::<ExternalProcessor>(place).await?;
        Ok(if left == 0 {
            Ok(())
        } else {
            Err(format!("{left} are not"))
        })
    })
    .await
}

async fn versions(place: &Place) -> Result<Versions, Error> {
    async fn add<K>(place: &Place, versions: &mut Versions) -> TestResult
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Serialize + Debug,
    {
        for object in place.list::<K>().await? {
            let name = format!("{} {}", K::kind(&()), object.name_any());
            let version = object.resource_version().unwrap_or_default();
            // So that a failure says what moved.
            versions.insert(name, format!("{version} {}", json!(object)["status"]));
        }
        Ok(())
    }
    let mut all = Versions::new();
    add::<Pipeline>(place, &mut all).await?;
    add::<ExternalProcessor>(place, &mut all).await?;
    add::<ConfigMap>(place, &mut all).await?;
    add::<ControllerRevision>(place, &mut all).await?;
    add::<Service>(place, &mut all).await?;
    add::<Deployment>(place, &mut all).await?;
    add::<ReplicaSet>(place, &mut all).await?;
    add::<Pod>(place, &mut all).await?;
    Ok(all)
}

/// What is not the same in both.
fn moved<'v>(before: &'v Versions, after: &'v Versions) -> Vec<[Option<(&'v String, &'v String)>; 2]> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let pairs = names
        .into_iter()
        .map(|name| [before.get_key_value(name), after.get_key_value(name)]);
    pairs.filter(|[before, after]| before != after).collect()
}

/// Waits until Kubernetes' own controllers have ended their work, too.
async fn at_rest(place: &Place) -> Result<Versions, Error> {
    all_ready(place).await?;
    let mut last = (versions(place).await?, Instant::now());
    wait::until("nothing moves any more", LIMIT, async || {
        if last.1.elapsed() < Duration::from_secs(5) {
            return Ok(None);
        }
        let now = versions(place).await?;
        let still = (now == last.0).then(|| now.clone());
        last = (now, Instant::now());
        Ok(still)
    })
    .await
}

fn told(events: &[audit::Event]) -> Vec<String> {
    let lines = events.iter().map(|event| format!("{} {}", event.verb, event.uri));
    lines.collect()
}

/// Nothing is written and nothing moves for a minute after what `disturb` does, and few questions are asked.
async fn silence(place: &Place, what: &str, disturb: impl AsyncFnOnce() -> TestResult) -> TestResult {
    let versions_before = at_rest(place).await?;
    let before = place.requests()?.len();
    disturb().await?;
    tokio::time::sleep(WINDOW).await;
    let asked = place.requests()?.split_off(before);
    let (writes, reads): (Vec<_>, Vec<_>) = asked.into_iter().partition(audit::Event::is_write);
    let versions_after = versions(place).await?;
    let moved = moved(&versions_before, &versions_after);
    assert!(
        writes.is_empty() && moved.is_empty(),
        "{what}: written: {:#?}, moved: {moved:#?}",
        told(&writes)
    );
    let count = |verb: &str| reads.iter().filter(|event| event.verb == verb).count();
    println!(
        "{what}: 0 writes, {} lists, {} watches, {} gets",
        count("list"),
        count("watch"),
        count("get")
    );
    // Every watch begins anew each minute; whether our kinds are served is asked every half. Who starts lists everything, and
    // once more when it comes to lead.
    assert!(
        count("watch") <= 4 * KINDS && count("list") <= 2 * KINDS,
        "{what}: {:#?}",
        told(&reads)
    );
    let named = reads
        .iter()
        .filter(|event| event.verb == "get" && event.object_ref.is_some());
    assert_eq!(named.count(), 0, "no object is read alone: {:#?}", told(&reads));
    Ok(())
}

fn component_id(deployment: &Deployment) -> Option<String> {
    let containers = &deployment.spec.as_ref()?.template.spec.as_ref()?.containers;
    let mut entries = containers.first()?.env.iter().flatten();
    entries.find(|entry| entry.name == "COMPONENT_ID")?.value.clone()
}

/// Sets an environment value that is ours and deletes a Service, and sees both mended in time.
async fn break_and_mend(place: &Place) -> TestResult {
    at_rest(place).await?;
    let ours = component_id(&place.get::<Deployment>("ttp07-processor").await?);
    assert!(ours.is_some(), "the operator sets it");
    let before = place.child_writes()?.len();
    let theirs = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "ttp07-processor"},
        "spec": {"template": {"spec": {"containers": [
            {"name": "main", "env": [{"name": "COMPONENT_ID", "value": "theirs"}]},
        ]}}},
    });
    let begun = Instant::now();
    place.apply(theirs).await?;
    place.delete::<Service>("flow13-pipeline").await?;
    wait::until("both are as they were", Duration::from_secs(5), async || {
        let value = component_id(&place.get::<Deployment>("ttp07-processor").await?);
        let service = place.api::<Service>().get_opt("flow13-pipeline").await;
        let is_back = service.map_err(Error::kube("read"))?.is_some();
        Ok((value == ours && is_back).then_some(()))
    })
    .await?;
    println!("mended after {:?}", begun.elapsed());
    at_rest(place).await?;
    let mut writes = place.child_writes()?.split_off(before);
    writes.sort();
    assert_eq!(
        writes,
        ["patch deployments ttp07-processor", "patch services flow13-pipeline"]
    );
    Ok(())
}

// An operator that writes while nothing changes wears the whole cluster down, and hides what others write; one that
// mends what was broken with more than it takes does, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_objects_cost_nothing_until_somebody_changes_one() -> TestResult {
    if tier::require(Tier::Api).is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir().map_err(Error::io("make a directory"))?;
    let world = Arc::new(World::with(definitions(&directory)?).await?);
    let place = Place::new(Arc::clone(&world), "steady").await?;
    let first = Process::start(&place, "first")?;
    let begun = Instant::now();
    for number in 0..PAIRS {
        place.apply(processor(&format!("ttp{number:02}"), "Processor")).await?;
        place.apply(pipeline(number)).await?;
    }
    all_ready(&place).await?;
    println!("{} objects are Ready after {:?}", 2 * PAIRS, begun.elapsed());
    silence(&place, "converged", async || Ok(())).await?;

    let address = free_address().await?;
    let mut second = None;
    let restart = async || {
        first.stop().await?;
        let launch = Launch {
            admin: address,
            ..Launch::default()
        };
        second = Some(Process::launch(&place, "second", launch)?);
        looked_at(address, PAIRS, CONVERGED).await
    };
    silence(&place, "restarted", restart).await?;

    break_and_mend(&place).await?;
    silence(&place, "mended", async || Ok(())).await?;
    if let Some(second) = second {
        second.stop().await?;
    }
    nothing_was_forbidden(&place)?;
    world.cluster.check()
}
