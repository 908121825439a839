//! The ledgers of the demo: the project's own sample, or a folder of real ones; and how they reach the pods.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use flowctl_stellar::{Archive, LedgerRange, sample};
use flowctl_testkit::cluster::Cluster;

use super::session::Owner;

/// Name of the ConfigMap, or of the PersistentVolumeClaim, that holds them.
pub(super) const NAME: &str = "ledgers";
/// A ConfigMap holds at most 1 MiB, its keys included.
const CONFIG_MAP_LIMIT: u64 = 1_000_000;

/// The ledgers that flow.
pub(super) struct Ledgers {
    folder: Folder,
    range: (u32, u32),
}

enum Folder {
    /// The project's own; the folder ends with this value.
    Sample(tempfile::TempDir),
    /// Real ones, and whether they fit into a ConfigMap.
    Real { path: PathBuf, bytes: u64 },
}

// === impl Ledgers ===

impl Ledgers {
    /// The sample, or the folder; its range is checked for gaps before anything is started.
    pub(super) fn choose(folder: Option<&Path>, range: Option<LedgerRange>) -> Result<Self> {
        let Some(folder) = folder else {
            let folder = tempfile::tempdir().context("cannot make a folder for the sample ledgers")?;
            sample::write(folder.path(), &sample::Options::default()).context("cannot make the sample ledgers")?;
            let range = whole(&Archive::open(folder.path())?, folder.path())?;
            return Ok(Self {
                folder: Folder::Sample(folder),
                range,
            });
        };
        let archive = Archive::open(folder)?;
        let range = match range {
            Some(range) => (range.start, range.end.unwrap_or(range.start)),
            None => whole(&archive, folder)?,
        };
        let path = folder
            .canonicalize()
            .with_context(|| format!("cannot find {}", folder.display()))?;
        let bytes = files(&path)?.iter().map(|(_, bytes)| bytes).sum();
        Ok(Self {
            folder: Folder::Real { path, bytes },
            range,
        })
    }

    pub(super) fn describe(&self) -> String {
        let (first, last) = self.range;
        match &self.folder {
            Folder::Sample(_) => format!(
                "{} sample ledgers, {first} to {last}, made by this project",
                self.count()
            ),
            Folder::Real { path, .. } => format!("{} ledgers, {first} to {last}, of {}", self.count(), path.display()),
        }
    }

    pub(super) fn is_sample(&self) -> bool {
        matches!(self.folder, Folder::Sample(_))
    }

    pub(super) fn range(&self) -> (u32, u32) {
        self.range
    }

    pub(super) fn count(&self) -> u64 {
        u64::from(self.range.1 - self.range.0) + 1
    }

    /// Whether a volume of the node is needed.
    pub(super) fn needs_volume(&self) -> bool {
        match &self.folder {
            Folder::Sample(_) => false,
            Folder::Real { bytes, .. } => *bytes > CONFIG_MAP_LIMIT,
        }
    }

    /// Puts them where the pods find them.
    pub(super) async fn put(&self, cluster: &Cluster, owner: Owner, namespace: &str) -> Result<()> {
        let path = match &self.folder {
            Folder::Sample(folder) => folder.path(),
            Folder::Real { path, .. } => path,
        };
        if self.needs_volume() {
            return put_volume(cluster, owner, namespace, path).await;
        }
        let mut arguments = vec!["create".to_owned(), "configmap".into(), NAME.into()];
        for (file, _) in files(path)? {
            arguments.push(format!("--from-file={}", file.display()));
        }
        arguments.extend(["--namespace", namespace, "--dry-run=client", "-o", "yaml"].map(String::from));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let manifest = cluster
            .kubectl(&arguments)
            .await
            .context("cannot make a ConfigMap of the ledgers")?;
        // Server-side: the annotation of a client-side apply would hold the whole ConfigMap a second time.
        cluster
            .kubectl_input(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &manifest)
            .await
            .context("cannot store the ledgers in a ConfigMap")?;
        Ok(())
    }
}

/// All that the folder has; a gap is an error here, because a pipeline over it would fail.
fn whole(archive: &Archive, folder: &Path) -> Result<(u32, u32)> {
    let ranges = archive.ranges();
    match ranges.as_slice() {
        [] => bail!("there are no ledgers in {}", folder.display()),
        [range] => Ok((range.start, range.end.unwrap_or(range.start))),
        [first, .., last] => {
            let missing = first.end.unwrap_or(first.start) + 1;
            let end = last.end.unwrap_or(last.start);
            bail!(
                "{} has a gap: ledger {missing} is missing; name a range without one, for example --range {}-{end}",
                folder.display(),
                last.start
            )
        }
    }
}

/// The files in a folder with their sizes, sorted; partitions are not flattened because names may repeat.
fn files(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() && !entry.file_name().to_string_lossy().starts_with('.') {
            files.push((entry.path(), metadata.len()));
        } else if metadata.is_dir() {
            // Too big for a ConfigMap in any case: counted, so that a volume is used.
            files.push((entry.path(), CONFIG_MAP_LIMIT + 1));
        }
    }
    files.sort();
    ensure!(!files.is_empty(), "there are no files in {}", folder.display());
    Ok(files)
}

/// A local PersistentVolume on the one node of our own cluster.
async fn put_volume(cluster: &Cluster, owner: Owner, namespace: &str, path: &Path) -> Result<()> {
    ensure!(
        owner != Owner::User,
        "{} is too big for a ConfigMap (1 MiB), and a cluster of yours cannot see this machine's folders; put it into a \
         PersistentVolumeClaim named {NAME} and apply examples/ with it, or leave --context out",
        path.display()
    );
    let volume = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("{namespace}-{NAME}")},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadOnlyMany"], "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain", "local": {"path": path},
                "claimRef": {"namespace": namespace, "name": NAME},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [flowctl_testkit::cluster::NODE_NAME]},
                ]}]}},
            },
        },
        {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": NAME, "namespace": namespace},
            "spec": {
                "accessModes": ["ReadOnlyMany"], "storageClassName": "", "volumeName": format!("{namespace}-{NAME}"),
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
    ]});
    cluster
        .kubectl_input(&["apply", "-f", "-"], &volume.to_string())
        .await
        .context("cannot make a volume of the ledgers")?;
    Ok(())
}
