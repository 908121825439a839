//! An operator for all namespaces, on a cluster of its own: definitions that come late and go, and references from one
//! namespace into another.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_operator::{Options, rbac::Scope};
use flowctl_testkit::{Error, Tier, tier, wait};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use crate::{
    objects::{nothing_was_forbidden, pipeline, processor},
    probes::{ask, free_address, readiness},
    support::{LIMIT, Place, TestResult, settings},
    world::{World, definitions},
};

// Whoever installs the operator before the definitions, or loses them, must be told so, and need not restart anything;
// a processor of another namespace must look like a missing one until it grants its use.
#[tokio::test(flavor = "multi_thread")]
async fn definitions_may_come_late_and_processors_may_be_granted() -> TestResult {
    if tier::require(Tier::Api).is_none() {
        return Ok(());
    }
    let world = Arc::new(World::with(Vec::new()).await?);
    let system = Place::new(Arc::clone(&world), "flowctl-system").await?;
    system.grant("ClusterRole", Scope::Objects).await?;
    let address = free_address().await?;
    let options = Options {
        namespaces: Vec::new(),
        admin: Some(address),
        ..system.options()
    };
    let operator = system.operator_with(options, settings()).await?;
    readiness(address, "externalprocessors.flowctl.dev").await?;

    let directory = tempfile::tempdir().map_err(Error::io("make a directory"))?;
    let paths: Vec<String> = definitions(&directory)?
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    install(&world, &paths).await?;
    readiness(address, "200 OK").await?;

    let (theirs, ours) = (
        Place::new(Arc::clone(&world), "theirs").await?,
        Place::new(Arc::clone(&world), "ours").await?,
    );
    granted_or_missing(&theirs, &ours).await?;
    older_definitions_are_told(&world, address, &paths).await?;

    world
        .cluster
        .kubectl(&["delete", "crd", "pipelines.flowctl.dev"])
        .await?;
    readiness(address, "pipelines.flowctl.dev").await?;
    install(&world, &paths).await?;
    readiness(address, "200 OK").await?;
    let mut alone = pipeline("late");
    alone["spec"]["processors"] = json!([]);
    alone["spec"]["consumers"] = json!([{"type": "StdoutConsumer"}]);
    ours.apply(alone).await?;
    ours.ready::<Pipeline>("late").await?;
    operator.stop().await?;
    nothing_was_forbidden(&system)
}

async fn install(world: &World, paths: &[String]) -> TestResult {
    for path in paths {
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", path];
        world.cluster.kubectl(&apply).await?;
    }
    Ok(())
}

/// Whoever upgrades the operator and not the definitions hears of it: the apiserver says nothing, and drops what it does not know.
async fn older_definitions_are_told(world: &World, address: SocketAddr, paths: &[String]) -> TestResult {
    let outdated = async |number: u8| {
        let series = format!("flowctl_operator_crd_outdated{{kind=\"Pipeline\"}} {number}");
        wait::until_explained(&series, 2 * LIMIT, async || {
            let metrics = ask(address, "/metrics").await.unwrap_or_else(|error| error.to_string());
            Ok(if metrics.contains(&series) {
                Ok(())
            } else {
                Err(metrics)
            })
        })
        .await
    };
    outdated(0).await?;
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/heartbeat";
    let patch = json!([{"op": "remove", "path": field}]).to_string();
    let crd = "pipelines.flowctl.dev";
    world
        .cluster
        .kubectl(&["patch", "crd", crd, "--type=json", "--patch", &patch])
        .await?;
    outdated(1).await?;
    install(world, paths).await?;
    outdated(0).await
}

async fn granted_or_missing(theirs: &Place, ours: &Place) -> TestResult {
    let refused = "ProcessorNotFoundOrNotGranted";
    ours.apply(processor("sink", "Consumer")).await?;
    let mut far = pipeline("payments");
    far["spec"]["processors"][1]["processorRef"]["namespace"] = json!("theirs");
    ours.apply(far).await?;
    let missing = ours
        .condition::<Pipeline>("payments", "ResolvedRefs", "False", refused)
        .await?;

    theirs.apply(processor("ttp", "Processor")).await?;
    theirs.ready::<ExternalProcessor>("ttp").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let not_granted = ours
        .condition::<Pipeline>("payments", "ResolvedRefs", "False", refused)
        .await?;
    assert_eq!(not_granted.why, missing.why, "a stranger must not learn what exists");

    let grant = json!({"spec": {"allowedNamespaces": {"names": ["ours"]}}});
    theirs.merge::<ExternalProcessor>("ttp", grant).await?;
    ours.ready::<Pipeline>("payments").await?;
    let running: Deployment = ours.get("payments-pipeline").await?;

    theirs
        .merge::<ExternalProcessor>("ttp", json!({"spec": {"allowedNamespaces": null}}))
        .await?;
    ours.condition::<Pipeline>("payments", "ResolvedRefs", "False", refused)
        .await?;
    ours.settled().await?;
    let held: Deployment = ours.get("payments-pipeline").await?;
    assert_eq!(
        held.metadata.generation, running.metadata.generation,
        "what runs is held"
    );
    Ok(())
}
