//! The objects that tests begin with, and questions about them that several ask.

use std::{collections::BTreeSet, time::Duration};

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_testkit::Error;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::ConfigMap,
};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::support::{Place, TestResult};

/// Nothing may be written for this long.
pub(crate) const QUIET: Duration = Duration::from_secs(20);

/// A Pipeline with its two processors, Ready.
pub(crate) async fn payments(place: &Place) -> TestResult {
    place.apply(processor("ttp", "Processor")).await?;
    place.apply(processor("sink", "Consumer")).await?;
    place.apply(pipeline("payments")).await?;
    place.ready::<Pipeline>("payments").await?;
    place.ready::<ExternalProcessor>("ttp").await?;
    place.ready::<ExternalProcessor>("sink").await?;
    Ok(())
}

pub(crate) async fn quiet(place: &Place) -> TestResult {
    let before = place.writes()?.len();
    tokio::time::sleep(QUIET).await;
    let new = place.writes()?.split_off(before);
    let told: Vec<String> = new
        .iter()
        .map(|event| format!("{} {}", event.verb, event.uri))
        .collect();
    assert!(told.is_empty(), "written while converged: {told:#?}");
    Ok(())
}

pub(crate) fn nothing_was_forbidden(place: &Place) -> TestResult {
    assert_eq!(place.forbidden()?, Vec::<String>::new());
    Ok(())
}

pub(crate) async fn deployment_version(place: &Place, name: &str) -> Result<Option<i64>, Error> {
    Ok(place.get::<Deployment>(name).await?.metadata.generation)
}

/// The wired file of the revision that the Pipeline's Deployment runs.
pub(crate) async fn file(place: &Place, name: &str) -> Result<String, Error> {
    let status = place.ready::<Pipeline>(name).await?;
    let revision = status.revision.unwrap_or_default().current;
    let config: ConfigMap = place.get(&format!("{name}-{revision}")).await?;
    Ok(config
        .data
        .unwrap_or_default()
        .remove("pipeline.yaml")
        .unwrap_or_default())
}

pub(crate) fn image_of(deployment: &Deployment) -> Option<String> {
    deployment
        .spec
        .as_ref()?
        .template
        .spec
        .as_ref()?
        .containers
        .first()?
        .image
        .clone()
}

pub(crate) async fn replica_sets(place: &Place) -> Result<BTreeSet<String>, Error> {
    let all: Vec<ReplicaSet> = place.list().await?;
    Ok(all
        .iter()
        .map(ReplicaSet::name_any)
        .filter(|name| name.starts_with("payments-"))
        .collect())
}

/// An ExternalProcessor.
pub(crate) fn processor(name: &str, role: &str) -> Value {
    json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor", "metadata": {"name": name},
        "spec": {"role": role, "port": 50051, "workload": {"image": format!("{name}:v1")}},
    })
}

/// A Pipeline that refers to a processor `ttp` and a consumer `sink`.
pub(crate) fn pipeline(name: &str) -> Value {
    json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline", "metadata": {"name": name},
        "spec": {
            "source": {"type": "BufferedStorageSourceAdapter", "config": {"storage_type": "FS", "path": "/ledgers"}},
            "processors": [
                {"type": "LedgerReader", "config": {"network": "pubnet"}},
                {"name": "ttp", "processorRef": {"name": "ttp"}, "config": {"timeout": "30s"}},
            ],
            "consumers": [{"name": "sink", "processorRef": {"name": "sink"}}],
        },
    })
}
