//! Installing the operator with its chart, as a user would: shared by the demo and the tests of the node tier.

use anyhow::{Context, Result};
use flowctl_testkit::{
    cluster::{Cluster, Loaded},
    images::{self, ProjectImage},
};

use crate::generate::project_root;

/// Name of the Helm release.
pub const RELEASE: &str = "flowctl-operator";

/// Builds images of the project and loads those that the cluster has not. Returns the digest of the operator's, if it is
/// one of them.
///
/// # Errors
///
/// When a program does not compile, or the cluster takes no images.
pub async fn images(cluster: &Cluster, images: &[ProjectImage]) -> Result<String> {
    let mut digest = String::new();
    for archive in images::build(images).await? {
        if archive.name == ProjectImage::Operator.reference() {
            digest.clone_from(&archive.digest);
        }
        let loaded = cluster
            .load_image(&archive.path)
            .await
            .with_context(|| format!("cannot load {}", archive.name))?;
        if matches!(loaded, Loaded::Now) {
            eprintln!("    {}", archive.name);
        }
    }
    Ok(digest)
}

/// Makes a namespace that enforces pod security `restricted`.
///
/// # Errors
///
/// When the apiserver refuses it.
pub async fn namespace(cluster: &Cluster, name: &str) -> Result<()> {
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    });
    cluster
        .kubectl_input(&["apply", "-f", "-"], &manifest.to_string())
        .await
        .with_context(|| format!("cannot make the namespace {name}"))?;
    Ok(())
}

/// Installs or upgrades the operator into a namespace that enforces `restricted`, and waits until it is ready. `values` are
/// further `--set` arguments.
///
/// # Errors
///
/// With Helm's words, when the chart does not install or the operator does not become ready within two minutes.
pub async fn operator(cluster: &Cluster, namespace: &str, values: &[String]) -> Result<()> {
    self::namespace(cluster, namespace).await?;
    clear_broken_release(cluster, namespace).await?;
    let chart = project_root()?.join("charts/flowctl-operator");
    let chart = chart.display().to_string();
    let operator = ProjectImage::Operator.reference();
    let (repository, tag) = operator.split_once(':').context("the operator's image has no tag")?;
    let control_plane = ProjectImage::Flowctl.name();
    let images = [
        format!("controlPlane.image.repository={control_plane}"),
        format!("image.repository={repository}"),
        format!("image.tag={tag}"),
        format!("runner.image={}", ProjectImage::Runner.reference()),
    ];
    let mut arguments = vec!["upgrade", "--install", RELEASE, &chart, "--namespace", namespace];
    arguments.extend(["--wait", "--timeout", "2m"]);
    for value in images.iter().chain(values) {
        arguments.extend(["--set", value]);
    }
    cluster.helm(&arguments).await.context("cannot install the operator")?;
    Ok(())
}

/// A Helm that was killed leaves a release that no other Helm touches.
async fn clear_broken_release(cluster: &Cluster, namespace: &str) -> Result<()> {
    let arguments = [
        "list",
        "--all",
        "--namespace",
        namespace,
        "--filter",
        RELEASE,
        "-o",
        "json",
    ];
    let releases: serde_json::Value = serde_json::from_str(&cluster.helm(&arguments).await?)?;
    let pending = |release: &serde_json::Value| {
        release["name"] == RELEASE
            && release["status"]
                .as_str()
                .is_some_and(|status| status.starts_with("pending"))
    };
    if releases.as_array().is_some_and(|releases| releases.iter().any(pending)) {
        cluster
            .helm(&["uninstall", RELEASE, "--namespace", namespace, "--wait"])
            .await
            .context("cannot remove an unfinished release")?;
    }
    Ok(())
}
