//! containerd of our own: own root, state and socket, so that one that the machine has anyway is not touched.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flowctl_supervisor::Undo;
use serde_json::json;
use tokio::process::Command;

use super::network::{BRIDGE, Range};
use crate::image::Archive;
use crate::packages::Packages;
use crate::supervisor::Supervisor;
use crate::{Error, Result, command, wait};

/// The image of the pods' first process.
pub(super) const PAUSE: &str = "flowctl-local/pause:dev";
const START: Duration = Duration::from_secs(30);

/// A containerd that runs, and how to reach it.
#[derive(Clone, Debug)]
pub(super) struct Containerd {
    pub(super) ctr: PathBuf,
    pub(super) socket: PathBuf,
}

/// Whether an image had to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// It was loaded now.
    Now,
    /// The cluster had exactly this image.
    Already,
}

// === impl Containerd ===

impl Containerd {
    /// How to reach the containerd of a cluster in this directory.
    pub(super) fn of(directory: &Path, ctr: PathBuf) -> Self {
        Self {
            ctr,
            socket: directory.join("containerd/containerd.sock"),
        }
    }

    /// Writes the configuration, starts it, waits for its socket.
    pub(super) async fn start(
        directory: &Path,
        packages: &Packages,
        pods: Range,
        supervisor: &mut Supervisor,
    ) -> Result<Self> {
        let home = directory.join("containerd");
        let cni = directory.join("cni");
        for folder in [&home, &cni] {
            fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
        }
        let config = home.join("config.toml");
        fs::write(&config, configuration(&home, &cni, &packages.cni)).map_err(Error::file("write", &config))?;
        let network = cni.join("10-flowctl.conflist");
        let content = cni_configuration(&cni, pods).to_string();
        fs::write(&network, content).map_err(Error::file("write", &network))?;

        let containerd = Self::of(directory, packages.ctr.clone());
        // CNI's library remembers results here, whatever containerd is told; each is named after a sandbox.
        let (results, cni_home) = (PathBuf::from("/var/lib/cni/results"), PathBuf::from("/var/lib/cni"));
        let sandboxes = home.join("root/io.containerd.grpc.v1.cri/sandboxes");
        let forget = format!(
            "for sandbox in {}/*; do rm -f {}/*-\"$(basename \"$sandbox\")\"-*; done",
            sandboxes.display(),
            results.display()
        );
        supervisor.undo(Undo::RemoveEmpty {
            path: results,
            top: cni_home,
        })?;
        supervisor.undo(Undo::Run(vec!["sh".to_owned(), "-c".to_owned(), forget]))?;
        let sockets = PathBuf::from("/run/containerd");
        supervisor.undo(Undo::RemoveEmpty {
            path: sockets.join("s"),
            top: sockets,
        })?;
        supervisor.undo(Undo::RemoveSockets(home.join("state/io.containerd.runtime.v2.task")))?;
        supervisor.undo(Undo::RemoveCgroups(super::cgroups::paths()))?;
        supervisor.undo(Undo::KillByArgument(containerd.socket.display().to_string()))?;
        supervisor.run(flowctl_supervisor::Program {
            name: "containerd".to_owned(),
            executable: packages.containerd.clone(),
            arguments: vec![format!("--config={}", config.display())],
            environment: Vec::new(),
            log: supervisor.logs().join("containerd.log"),
            grace_ms: 3000,
        })?;
        wait::until("containerd listens", START, async || {
            supervisor.check()?;
            Ok(UnixStream::connect(&containerd.socket).ok())
        })
        .await?;
        Ok(containerd)
    }

    /// Loads an image unless exactly this one is there.
    pub(super) async fn load(&self, archive: &Archive) -> Result<Loaded> {
        let listing = command::run(self.ctr().args(["images", "list"])).await?;
        let is_there = listing.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next().is_some_and(|name| name.ends_with(&archive.name)) && words.any(|word| word == archive.digest)
        });
        if is_there {
            return Ok(Loaded::Already);
        }
        command::run(self.ctr().args(["images", "import"]).arg(&archive.path)).await?;
        Ok(Loaded::Now)
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new(&self.ctr);
        command
            .arg("--address")
            .arg(&self.socket)
            .args(["--namespace", "k8s.io"]);
        command
    }
}

/// Without CAP_SYS_RESOURCE (a virtual machine that keeps it) runc cannot lower a score, hence
/// `restrict_oom_score_adj`.
fn configuration(home: &Path, cni: &Path, plugins: &Path) -> String {
    let (home, cni, plugins) = (home.display(), cni.display(), plugins.display());
    format!(
        r#"version = 2
root = "{home}/root"
state = "{home}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]
[grpc]
address = "{home}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{home}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/{PAUSE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "{home}/runc"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{cni}"
"#
    )
}

fn cni_configuration(cni: &Path, pods: Range) -> serde_json::Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "flowctl-local",
        "plugins": [{
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": cni.join("addresses"),
                "ranges": [[{"subnet": pods.to_string()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}
