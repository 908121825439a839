//! The ledgers of the demo: the project's own sample, or a folder of real ones; and how they reach the pods.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use flowctl_stellar::{Archive, LedgerRange, sample};
use flowctl_testkit::cluster::Cluster;

use super::session::Owner;
use crate::generate::project_root;

/// Name of the ConfigMap, or of the PersistentVolumeClaim, that holds them.
pub(super) const NAME: &str = "ledgers";
/// A ConfigMap holds at most 1 MiB, its keys included.
const CONFIG_MAP_LIMIT: u64 = 1_000_000;

/// The ledgers that flow: a folder of whole files, and which of its ledgers are wanted.
pub(super) struct Ledgers {
    origin: Origin,
    folder: PathBuf,
    bytes: u64,
    range: (u32, u32),
}

enum Origin {
    /// The project's own.
    Sample,
    /// Somebody's archive.
    Archive(PathBuf),
}

// === impl Ledgers ===

impl Ledgers {
    /// The sample, or the files of the range, put side by side below `target/`: the pods see these and no others. Every
    /// ledger of the range is read once, so that a gap or a damaged file is told before anything is started.
    pub(super) fn choose(archive: Option<&Path>, range: Option<LedgerRange>) -> Result<Self> {
        let folder = project_root()?.join("target/demo/ledgers");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (origin, range) = match archive {
            None => {
                sample::write(&folder, &sample::Options::default()).context("cannot make the sample ledgers")?;
                (Origin::Sample, whole(&Archive::open(&folder)?, &folder)?)
            }
            Some(path) => {
                let archive = Archive::open(path)?;
                let range = match range {
                    Some(range) => (range.start, range.end.unwrap_or(range.start)),
                    None => whole(&archive, path)?,
                };
                stage(&archive, range, &folder)?;
                (Origin::Archive(path.to_owned()), range)
            }
        };
        let bytes = files(&folder)?.iter().map(|(_, bytes)| bytes).sum();
        Ok(Self {
            origin,
            folder,
            bytes,
            range,
        })
    }

    pub(super) fn describe(&self) -> String {
        let (first, last) = self.range;
        let count = self.count();
        match &self.origin {
            Origin::Sample => format!("{count} sample ledgers, {first} to {last}, made by this project"),
            Origin::Archive(path) => format!("{count} ledgers, {first} to {last}, of {}", path.display()),
        }
    }

    pub(super) fn is_sample(&self) -> bool {
        matches!(self.origin, Origin::Sample)
    }

    pub(super) fn range(&self) -> (u32, u32) {
        self.range
    }

    pub(super) fn count(&self) -> u64 {
        u64::from(self.range.1 - self.range.0) + 1
    }

    /// Whether a volume of the node is needed.
    pub(super) fn needs_volume(&self) -> bool {
        self.bytes > CONFIG_MAP_LIMIT
    }

    /// Puts them where the pods find them.
    pub(super) async fn put(&self, cluster: &Cluster, owner: Owner, namespace: &str) -> Result<()> {
        let path = &self.folder;
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

/// Puts the files of a range into a flat folder; Galexie's names do not repeat.
fn stage(archive: &Archive, (start, end): (u32, u32), folder: &Path) -> Result<()> {
    let mut last: Option<PathBuf> = None;
    for ledger in archive.ledgers(LedgerRange { start, end: Some(end) }) {
        let file = ledger?.file;
        if last.as_ref() == Some(&file.path) {
            continue;
        }
        let name = file
            .path
            .file_name()
            .with_context(|| format!("{} has no name", file.path.display()))?;
        fs::copy(&file.path, folder.join(name)).with_context(|| format!("cannot copy {}", file.path.display()))?;
        last = Some(file.path.clone());
    }
    Ok(())
}

/// The files in a folder with their sizes, sorted.
fn files(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            files.push((entry.path(), entry.metadata()?.len()));
        }
    }
    files.sort();
    ensure!(!files.is_empty(), "there are no files in {}", folder.display());
    Ok(files)
}

/// Removes what an earlier demo put there: a volume outlives its namespace, and is then bound to a claim that is gone.
pub(super) async fn remove(cluster: &Cluster, namespace: &str) -> Result<()> {
    cluster
        .kubectl(&["delete", "namespace", namespace, "--ignore-not-found", "--wait=true"])
        .await?;
    let volume = format!("{namespace}-{NAME}");
    cluster
        .kubectl(&[
            "delete",
            "persistentvolume",
            &volume,
            "--ignore-not-found",
            "--wait=true",
        ])
        .await?;
    Ok(())
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
