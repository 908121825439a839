//! A cgroup of our own for the kubelet's pods, in every hierarchy: what is in it is ours to kill.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

const MOUNTS: &str = "/sys/fs/cgroup";
/// The kubelet's `cgroupRoot`.
pub(super) const ROOT: &str = "/flowctl-local";

/// Its directories: one with cgroup v2, one for each controller with v1.
pub(super) fn paths() -> Vec<PathBuf> {
    let name = ROOT.trim_start_matches('/');
    if is_unified() {
        return vec![Path::new(MOUNTS).join(name)];
    }
    hierarchies()
        .into_iter()
        .map(|hierarchy| hierarchy.join(name))
        .collect()
}

/// Makes the directories: the kubelet wants them to exist.
pub(super) fn create() -> Result<()> {
    if is_unified() {
        // Those that the kernel does not have are refused, and the kubelet says which of them it needs.
        for controller in ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"] {
            let _ = fs::write(
                Path::new(MOUNTS).join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
    }
    for path in paths() {
        fs::create_dir_all(&path).map_err(Error::file("create cgroup", &path))?;
        let parent = path.parent().unwrap_or(Path::new(MOUNTS)).to_owned();
        // With v1 a cpuset without processors and memory takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read_to_string(parent.join(file)) {
                let own = path.join(file);
                fs::write(&own, value.trim()).map_err(Error::file("write", &own))?;
            }
        }
    }
    Ok(())
}

fn is_unified() -> bool {
    Path::new(MOUNTS).join("cgroup.controllers").exists()
}

/// The hierarchies of cgroup v1 without links to them, and the unified one beside them: runc uses it too.
fn hierarchies() -> Vec<PathBuf> {
    let entries = fs::read_dir(MOUNTS).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories
        .map(|entry| entry.path())
        .filter(|path| path.join("cgroup.procs").exists())
        .collect()
}
