//! The servers that are measured, each a process on one processor, and the program that sends beats, on another one.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use flowctl_bench::usage::Usage;
use flowctl_testkit::{
    binaries::{Binaries, Program},
    command, wait,
};
use nix::{sys::signal::Signal, unistd::Pid};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use super::{super::program::free_address, Arguments};
use crate::generate::project_root;

/// Starting and stopping take no longer, also under valgrind.
const SOON: Duration = Duration::from_secs(60);

/// What runs on a processor of its own, if the machine has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Server,
    Load,
}

/// Compiled programs.
pub(super) struct Programs {
    flowctl: PathBuf,
    bare_server: PathBuf,
    pub(super) beats: PathBuf,
    pub(super) registry_scale: PathBuf,
    go: PathBuf,
}

/// A running server.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    child: Child,
    pid: u32,
    _files: TempDir,
}

/// A program that runs on the processor of its part.
pub(super) fn pinned(program: &Path, part: Part) -> Command {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut command = match (command::find("taskset", &[]), processor(&status, part)) {
        (Some(taskset), Some(processor)) => {
            let mut command = Command::new(taskset);
            command.args(["-c", processor]).arg(program);
            command
        }
        (None, _) | (_, None) => Command::new(program),
    };
    command.kill_on_drop(true);
    command
}

/// The first processor that this process may use for a server, the last one for the load; none if that is the same one.
fn processor(status: &str, part: Part) -> Option<&str> {
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut numbers = list.trim().split([',', '-']);
    let (first, last) = (numbers.next()?, numbers.next_back()?);
    Some(match part {
        Part::Server => first,
        Part::Load => last,
    })
}

// === impl Programs ===

impl Programs {
    pub(super) async fn build(arguments: &Arguments) -> Result<Self> {
        let folder = match &arguments.programs {
            Some(folder) => folder.clone(),
            None => cargo(&arguments.profile).await?,
        };
        let found = |name: &str| {
            let path = folder.join(name);
            ensure!(
                path.is_file(),
                "there is no {name} in {}: build it first",
                folder.display()
            );
            Ok(path)
        };
        let go = Binaries::ensure(&[Program::HeartbeatServer]).await?;
        Ok(Self {
            flowctl: found("flowctl")?,
            bare_server: found("bare-server")?,
            beats: found("beats")?,
            registry_scale: found("examples/registry_scale")?,
            go: go.path(Program::HeartbeatServer)?.to_owned(),
        })
    }
}

async fn cargo(profile: &str) -> Result<PathBuf> {
    let root = project_root()?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(&root)
        .args(["build", "--locked", "--profile", profile]);
    command.args(["-p", "flowctl", "-p", "flowctl-bench", "-p", "flowctl-control-plane"]);
    command.args(["--bins", "--example", "registry_scale"]);
    let status = command.status().await.context("cannot run cargo")?;
    ensure!(status.success(), "the programs do not compile ({status}): see above");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join(if profile == "dev" { "debug" } else { profile }))
}

// === impl Server ===

impl Server {
    /// The control plane as it is shipped, with its file.
    pub(super) async fn ours(programs: &Programs) -> Result<Self> {
        Self::start(pinned(&programs.flowctl, Part::Server), flags).await
    }

    /// The same under a program that looks at it.
    pub(super) async fn ours_under(mut command: Command, programs: &Programs) -> Result<Self> {
        command.arg(&programs.flowctl).kill_on_drop(true);
        Self::start(command, flags).await
    }

    pub(super) async fn bare(programs: &Programs) -> Result<Self> {
        let flags = |address: SocketAddr, _: &Path| vec!["--address".to_owned(), address.to_string()];
        Self::start(pinned(&programs.bare_server, Part::Server), flags).await
    }

    pub(super) async fn go(programs: &Programs) -> Result<Self> {
        let flags = |address: SocketAddr, _: &Path| vec!["-address".to_owned(), address.to_string()];
        Self::start(pinned(&programs.go, Part::Server), flags).await
    }

    async fn start(mut command: Command, flags: impl FnOnce(SocketAddr, &Path) -> Vec<String>) -> Result<Self> {
        let files = tempfile::tempdir().context("cannot make a folder")?;
        let address = free_address()?;
        command.args(flags(address, files.path()));
        // One thread of its runtime for one processor.
        command.env("TOKIO_WORKER_THREADS", "1").env("GOMAXPROCS", "1");
        let mut child = command.spawn().context("cannot start a server")?;
        let pid = child.id().context("a server ended at once")?;
        wait::until_explained("a server listens", SOON, async || {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(flowctl_testkit::Error::impossible(format!(
                    "a server ended with {status}"
                )));
            }
            Ok(TcpStream::connect(address)
                .await
                .map(drop)
                .map_err(|error| error.to_string()))
        })
        .await?;
        Ok(Self {
            address,
            child,
            pid,
            _files: files,
        })
    }

    pub(super) fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid).context("cannot read what a server used")
    }

    /// Ends it as Kubernetes does.
    pub(super) async fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid).context("no pid")?);
        nix::sys::signal::kill(pid, Signal::SIGTERM).context("cannot stop a server")?;
        let status = tokio::time::timeout(SOON, self.child.wait())
            .await
            .context("a server does not end")??;
        ensure!(status.success(), "a server ended with {status}");
        Ok(())
    }
}

fn flags(address: SocketAddr, files: &Path) -> Vec<String> {
    let mut flags = vec!["server".to_owned(), "--log-level".to_owned(), "off".to_owned()];
    for (name, value) in [
        ("--address", address.ip().to_string()),
        ("--port", address.port().to_string()),
        ("--admin-port", "0".to_owned()),
        ("--db-path", files.join("registry.db").display().to_string()),
    ] {
        flags.extend([name.to_owned(), value]);
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    // Load on the server's processor would be measured as the server's slowness.
    #[test]
    fn server_and_load_are_apart() {
        for (list, server, load) in [
            ("0-1", Some("0"), Some("1")),
            ("2,4-7,9", Some("2"), Some("9")),
            ("3", None, None),
        ] {
            let status = format!("Name:\txtask\nCpus_allowed_list:\t{list}\n");
            assert_eq!(processor(&status, Part::Server), server, "{list}");
            assert_eq!(processor(&status, Part::Load), load, "{list}");
        }
    }
}
