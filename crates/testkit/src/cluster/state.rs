//! What a later command has to know of a cluster that runs on: one small file in its directory.

use std::fs;
use std::path::{Path, PathBuf};

use flowctl_supervisor::process::Identity;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

const FILE: &str = "state.json";

/// A running node cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    pub(super) supervisor: Option<Identity>,
    pub(super) containerd: PathBuf,
    /// Whether it outlives the process that started it.
    pub(super) is_detached: bool,
}

// === impl State ===

impl State {
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let text = serde_json::to_string(self).map_err(|error| Error::io("write the state")(error.into()))?;
        let path = directory.join(FILE);
        fs::write(&path, text).map_err(Error::file("write", &path))
    }

    pub(super) fn read(directory: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(directory.join(FILE)).ok()?).ok()
    }

    /// Whether it was started to run on, and runs.
    pub(super) fn is_kept(&self) -> bool {
        self.is_detached && self.supervisor.is_some_and(Identity::is_alive)
    }
}
