//! An operator as it is shipped: a process.

use std::{fs::File, net::SocketAddr, process::Stdio};

use flowctl_faults::Proxy;
use flowctl_testkit::Error;
use kube::config::Kubeconfig;

use crate::{
    INSTALL,
    support::{Install, LIMIT, Place, TestResult},
};

/// An operator in a process of its own, with leader election.
pub(crate) struct Process {
    child: tokio::process::Child,
    pid: nix::unistd::Pid,
    _kubeconfig: tempfile::NamedTempFile,
}

/// How the program is started, beside what every test needs.
pub(crate) struct Launch<'a> {
    /// Where it serves probes and metrics.
    pub(crate) admin: SocketAddr,
    pub(crate) log_level: &'a str,
    /// Where its words go; the test's own without it.
    pub(crate) log: Option<File>,
    /// More of the command line.
    pub(crate) arguments: &'a [&'a str],
}

impl Default for Launch<'_> {
    fn default() -> Self {
        Self {
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            log_level: "warn",
            log: None,
            arguments: &[],
        }
    }
}

// === impl Process ===

#[allow(dead_code, reason = "not each of the test binaries needs all of it")]
impl Process {
    /// Starts the program for the place's namespace, or for all; `name` stands before its identity in the lease.
    pub(crate) fn start(place: &Place, name: &str) -> Result<Self, Error> {
        Self::launch(place, name, Launch::default())
    }

    /// Like [`Self::start`], with more of the command line.
    pub(crate) fn launch(place: &Place, name: &str, launch: Launch<'_>) -> Result<Self, Error> {
        let path = place.world.cluster.kubeconfig();
        let mut file = Kubeconfig::read_from(path).map_err(|error| Error::impossible(error.to_string()))?;
        for user in file.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()) {
            user.impersonate = Some(place.user());
        }
        let text = serde_json::to_string(&file).map_err(|error| Error::impossible(error.to_string()))?;
        Self::with_kubeconfig(place, name, &text, launch)
    }

    /// Likewise, behind a proxy of its own.
    pub(crate) fn through(proxy: &Proxy, place: &Place, name: &str) -> Result<Self, Error> {
        Self::with_kubeconfig(place, name, &proxy.kubeconfig(None), Launch::default())
    }

    fn with_kubeconfig(place: &Place, name: &str, text: &str, launch: Launch<'_>) -> Result<Self, Error> {
        let kubeconfig = tempfile::NamedTempFile::new().map_err(Error::io("make a file"))?;
        std::fs::write(kubeconfig.path(), text).map_err(Error::file("write", kubeconfig.path()))?;
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_flowctl-operator"));
        command.env("KUBECONFIG", kubeconfig.path()).kill_on_drop(true);
        if INSTALL == Install::Roles {
            command.args(["--namespaces", &place.namespace]);
        }
        command.args(["--lease-namespace", &place.namespace, "--pod-name", name]);
        command.args(["--admin-address", &launch.admin.to_string()]);
        command.args(["--log-level", launch.log_level]).args(launch.arguments);
        if let Some(log) = launch.log {
            let both = log.try_clone().map_err(Error::io("share a log"))?;
            command.stdout(Stdio::from(log)).stderr(Stdio::from(both));
        }
        let child = command.spawn().map_err(Error::io("start the operator"))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        Ok(Self {
            child,
            pid: nix::unistd::Pid::from_raw(pid),
            _kubeconfig: kubeconfig,
        })
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) -> TestResult {
        nix::sys::signal::kill(self.pid, signal).map_err(|error| Error::impossible(error.to_string()))
    }

    /// Kills it at once.
    pub(crate) async fn kill(mut self) -> TestResult {
        self.child.kill().await.map_err(Error::io("kill the operator"))
    }

    /// Asks it to end, as Kubernetes does, and waits for an orderly end.
    pub(crate) async fn stop(self) -> TestResult {
        self.signal(nix::sys::signal::Signal::SIGTERM)?;
        let end = self.end().await?;
        assert_eq!(end.code(), Some(0), "an orderly end");
        Ok(())
    }

    /// Waits for its end.
    pub(crate) async fn end(mut self) -> Result<std::process::ExitStatus, Error> {
        let end = tokio::time::timeout(LIMIT, self.child.wait()).await;
        end.map_err(|_| Error::impossible("the operator does not end"))?
            .map_err(Error::io("wait for the operator"))
    }
}
