//! The cluster of the demo: the user's own, the one that is up, or one that ends with the demo.

use anyhow::Result;
use flowctl_testkit::{
    cluster::{Cluster, Options, Tier},
    preflight,
};

/// A cluster, and whose it is.
pub(super) struct Session {
    pub(super) cluster: Cluster,
    pub(super) owner: Owner,
}

/// Who decides when the cluster ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The user, by a context of a kubeconfig.
    User,
    /// `cargo xtask cluster down`: it was up already, or was asked to stay.
    Kept,
    /// This demo.
    Demo,
}

// === impl Session ===

impl Session {
    pub(super) async fn begin(context: Option<&str>, keep: bool) -> Result<Self> {
        if let Some(context) = context {
            return Ok(Self {
                cluster: Cluster::existing(context).await?,
                owner: Owner::User,
            });
        }
        if let Some(cluster) = Cluster::attach().await? {
            eprintln!("demo: using the cluster that is up");
            return Ok(Self {
                cluster,
                owner: Owner::Kept,
            });
        }
        preflight::announce(Tier::Node)?;
        if keep {
            return Ok(Self {
                cluster: Cluster::up(Options::default()).await?,
                owner: Owner::Kept,
            });
        }
        Ok(Self {
            cluster: Cluster::start(Tier::Node, Options::default()).await?,
            owner: Owner::Demo,
        })
    }
}
