//! A cluster that the user already has, chosen by its context. Nothing of it is ours: nothing is started or stopped.

use std::path::PathBuf;

use tokio::process::Command;

use super::{Access, Cluster, Images, Tier};
use crate::binaries::{Binaries, Program};
use crate::image::Archive;
use crate::{Error, Result, command};

/// How an image gets into somebody else's cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    /// kind, by the cluster's name.
    Kind(String),
    /// k3d, by the cluster's name.
    K3d(String),
    /// minikube, by the profile's name.
    Minikube(String),
    /// None that we know; the context's name.
    Unknown(String),
}

// === impl Tool ===

impl Tool {
    /// Reads the tool from the name that it gives its contexts.
    fn of_context(context: &str) -> Self {
        if let Some(cluster) = context.strip_prefix("kind-") {
            Self::Kind(cluster.to_owned())
        } else if let Some(cluster) = context.strip_prefix("k3d-") {
            Self::K3d(cluster.to_owned())
        } else if context == "minikube" || context.starts_with("minikube-") {
            Self::Minikube(context.to_owned())
        } else {
            Self::Unknown(context.to_owned())
        }
    }

    pub(super) async fn load(&self, archive: &Archive) -> Result<()> {
        let (program, before, option, cluster) = match self {
            Self::Kind(cluster) => ("kind", ["load", "image-archive"], "--name", cluster),
            Self::K3d(cluster) => ("k3d", ["image", "import"], "--cluster", cluster),
            Self::Minikube(profile) => ("minikube", ["image", "load"], "--profile", profile),
            Self::Unknown(context) => return Err(Error::impossible(no_way_in(context))),
        };
        let remedy = format!("it loads images into the cluster {cluster:?}");
        let program = command::require(program, &remedy)?;
        command::run(
            Command::new(program)
                .args(before)
                .arg(&archive.path)
                .args([option, cluster]),
        )
        .await?;
        Ok(())
    }
}

fn no_way_in(context: &str) -> String {
    format!(
        "cannot load images into the cluster of context {context:?}: it is none of kind, k3d or minikube, so the demo \
         does not work there; push the images to a registry that the cluster reads, and `helm install` the chart with \
         image.repository, image.tag and runner.image set, as docs/install.md says"
    )
}

/// Opens the cluster of a context in the user's kubeconfig (`KUBECONFIG`, else `~/.kube/config`).
pub(super) async fn open(context: &str) -> Result<Cluster> {
    let access = Access::of_user(context).await?;
    access
        .client()?
        .apiserver_version()
        .await
        .map_err(Error::kube(format!("reach the cluster of {context:?}")))?;
    Ok(Cluster {
        tier: Tier::Node,
        directory: PathBuf::from("."),
        access,
        binaries: Binaries::of_user_or_built(Program::Kubectl).await?,
        audit_log: None,
        images: Images::Tool(Tool::of_context(context)),
        supervisor: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tool_is_read_from_the_contexts_name() {
        assert_eq!(Tool::of_context("kind-dev"), Tool::Kind("dev".to_owned()));
        assert_eq!(Tool::of_context("k3d-a-b"), Tool::K3d("a-b".to_owned()));
        assert_eq!(Tool::of_context("minikube"), Tool::Minikube("minikube".to_owned()));
        assert_eq!(Tool::of_context("gke_prod"), Tool::Unknown("gke_prod".to_owned()));
    }
}
