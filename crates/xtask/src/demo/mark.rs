//! What in a cluster is the demo's: its namespaces bear a label. What bears none is somebody's work, and is left alone.

use anyhow::{Context, Result, bail};
use flowctl_testkit::cluster::Cluster;
use serde_json::Value;

use super::{NAMESPACE, OPERATOR_NAMESPACE};
use crate::install;

/// The CRDs that the chart installs.
pub(super) const DEFINITIONS: [&str; 2] = ["pipelines.flowctl.dev", "externalprocessors.flowctl.dev"];
const LABEL: &str = "flowctl.dev/demo";

/// A namespace of the demo's, made if it is not there.
pub(super) async fn namespace(cluster: &Cluster, name: &str) -> Result<()> {
    install::namespace(cluster, name).await?;
    cluster
        .kubectl(&["label", "namespace", name, &format!("{LABEL}=true"), "--overwrite"])
        .await?;
    Ok(())
}

/// Whether the namespace exists and is the demo's.
pub(super) async fn is_ours(cluster: &Cluster, name: &str) -> Result<bool> {
    Ok(look_up(cluster, name).await? == Found::Ours)
}

/// An error when the cluster has an operator, or a namespace of these names, that no demo made: the demo would replace
/// it, and delete every Pipeline with it.
pub(super) async fn refuse_what_is_not_ours(cluster: &Cluster) -> Result<()> {
    for name in [OPERATOR_NAMESPACE, NAMESPACE] {
        if look_up(cluster, name).await? == Found::Foreign {
            bail!(
                "the cluster has a namespace {name} that no demo made; the demo would change what is in it. Use another \
                 cluster, or, if it is of no use, delete it"
            );
        }
    }
    if look_up(cluster, OPERATOR_NAMESPACE).await? == Found::Nothing {
        let definitions = cluster.kubectl(&[
            "get",
            "crd",
            "--ignore-not-found",
            "-o",
            "name",
            DEFINITIONS[0],
            DEFINITIONS[1],
        ]);
        let definitions = definitions.await?;
        if !definitions.trim().is_empty() {
            bail!(
                "the cluster has flowctl-operator's CRDs already; the demo would replace and then delete them. Use another cluster"
            );
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Ours,
    Foreign,
}

async fn look_up(cluster: &Cluster, name: &str) -> Result<Found> {
    let found = cluster
        .kubectl(&["get", "namespace", name, "--ignore-not-found", "-o", "json"])
        .await?;
    if found.trim().is_empty() {
        return Ok(Found::Nothing);
    }
    let namespace: Value = serde_json::from_str(&found).context("kubectl did not print JSON")?;
    Ok(if namespace["metadata"]["labels"][LABEL] == "true" {
        Found::Ours
    } else {
        Found::Foreign
    })
}
