//! The two programs that are measured, and the operator as a process: started as it is shipped, asked by its metrics,
//! stopped as Kubernetes stops it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use flowctl_bench::usage::Usage;
use flowctl_testkit::{Error, Result, wait};
use nix::{sys::signal::Signal, unistd::Pid};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use super::{Operators, scene::Scene};
use crate::generate::project_root;

/// Starting and stopping take no longer, unless something is wrong.
const SOON: Duration = Duration::from_secs(60);

/// What is lost while a connection is cut need not be told; why the program ends, it says without a log.
const LOGS: &str = "off";

/// Compiled programs.
pub(super) struct Programs {
    pub(super) operator: PathBuf,
    pub(super) bare_loop: PathBuf,
}

/// A running operator.
pub(super) struct Operator {
    child: Child,
    pid: u32,
    address: SocketAddr,
}

/// What the operator counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Passes over objects.
    pub(super) passes: u64,
    /// Mutating requests.
    pub(super) writes: u64,
}

// === impl Programs ===

impl Programs {
    /// Compiles both with this profile.
    pub(super) async fn build(profile: &str) -> Result<Self> {
        let root = project_root().map_err(|error| Error::impossible(error.to_string()))?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .current_dir(&root)
            .args(["build", "--locked", "--profile", profile]);
        command.args(["-p", "flowctl-operator", "-p", "flowctl-bench"]);
        let status: ExitStatus = command.status().await.map_err(Error::io("run cargo"))?;
        if !status.success() {
            return Err(Error::impossible(format!(
                "the programs do not compile ({status}): see above"
            )));
        }
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Self::found(&target.join(if profile == "dev" { "debug" } else { profile }))
    }

    /// Those in a folder.
    pub(super) fn found(folder: &Path) -> Result<Self> {
        let found = |name: &str| {
            let path = folder.join(name);
            let missing = || Error::impossible(format!("there is no {name} in {}: build it first", folder.display()));
            path.is_file().then_some(path).ok_or_else(missing)
        };
        Ok(Self {
            operator: found("flowctl-operator")?,
            bare_loop: found("bare-loop")?,
        })
    }
}

// === impl Operator ===

impl Operator {
    /// Starts it for a namespace; `kubeconfig` stands in for the scene's.
    pub(super) fn start(
        scene: &Scene,
        programs: &Programs,
        arguments: &Operators,
        namespace: &str,
        kubeconfig: Option<&Path>,
    ) -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(&programs.operator);
        command
            .env("KUBECONFIG", kubeconfig.unwrap_or(scene.kubeconfig.path()))
            .kill_on_drop(true);
        command.args([
            "--namespaces",
            namespace,
            "--leader-elect",
            "false",
            "--log-level",
            LOGS,
        ]);
        command.args(["--admin-address", &address.to_string()]);
        command.args(["--concurrency", &arguments.concurrency.to_string()]);
        command.args(["--writes-per-second", &arguments.writes_per_second.to_string()]);
        let child = command.spawn().map_err(Error::file("start", &programs.operator))?;
        let pid = child
            .id()
            .ok_or_else(|| Error::impossible("the operator ended at once"))?;
        Ok(Self { child, pid, address })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// What it used so far.
    pub(super) fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid).map_err(Error::io("read what the operator used"))
    }

    /// Waits until its caches are complete.
    pub(super) async fn is_ready(&self) -> Result<()> {
        wait::until_explained("the operator is ready", SOON, async || {
            let answer = self.ask("/readyz").await.unwrap_or_else(|error| error.to_string());
            Ok(if answer.contains(" 200 ") { Ok(()) } else { Err(answer) })
        })
        .await
    }

    /// What it counted so far; nothing before it answers.
    pub(super) async fn counts(&self) -> Counts {
        self.ask("/metrics")
            .await
            .map(|text| Counts::parse(&text))
            .unwrap_or_default()
    }

    /// Waits until it has made passes and wrote nothing for a while.
    pub(super) async fn rests(&self, rest: Duration) -> Result<()> {
        let mut last = (Counts::default(), Instant::now());
        wait::until_explained("the operator rests", Duration::from_secs(3600), async || {
            let now = self.counts().await;
            if now.writes != last.0.writes || now.passes == 0 {
                last = (now, Instant::now());
            }
            Ok(if last.1.elapsed() > rest {
                Ok(())
            } else {
                Err(format!("{now:?}"))
            })
        })
        .await
    }

    /// Stops it, and gives what it used until then.
    pub(super) async fn stop(mut self) -> Result<Usage> {
        let usage = self.usage()?;
        let pid = Pid::from_raw(i32::try_from(self.pid).unwrap_or_default());
        nix::sys::signal::kill(pid, Signal::SIGTERM).map_err(|error| Error::io("stop the operator")(error.into()))?;
        let end = tokio::time::timeout(SOON, self.child.wait()).await;
        let end = end
            .map_err(|_| Error::impossible("the operator does not end"))?
            .map_err(Error::io("wait for the operator"))?;
        if !end.success() {
            return Err(Error::impossible(format!("the operator ended with {end}")));
        }
        Ok(usage)
    }

    async fn ask(&self, path: &str) -> std::io::Result<String> {
        let mut connection = TcpStream::connect(self.address).await?;
        connection
            .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

// === impl Counts ===

impl Counts {
    fn parse(text: &str) -> Self {
        let sum = |name: &str| {
            let lines = text
                .lines()
                .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
            lines
                .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
                .sum()
        };
        Self {
            passes: sum("flowctl_operator_reconciles_total"),
            writes: sum("flowctl_operator_writes_total"),
        }
    }
}

pub(super) fn free_address() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(Error::io("find a free port"))?;
    listener.local_addr().map_err(Error::io("find a free port"))
}

/// Somewhere to listen on loopback.
pub(super) async fn listen() -> Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(Error::io("listen on loopback"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // A family whose name only begins alike must not be counted.
    #[test]
    fn families_are_summed_over_their_labels() {
        let text = "# TYPE flowctl_operator_writes counter\n\
            flowctl_operator_writes_total{kind=\"Service\",verb=\"patch\",code=\"200\"} 3\n\
            flowctl_operator_writes_total{kind=\"Job\",verb=\"patch\",code=\"409\"} 2\n\
            flowctl_operator_writes_total_other{kind=\"Job\"} 7\n\
            flowctl_operator_reconciles_total{kind=\"Pipeline\",outcome=\"settled\"} 4\n";
        assert_eq!(Counts::parse(text), Counts { passes: 4, writes: 5 });
    }
}
