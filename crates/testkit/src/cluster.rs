//! A real Kubernetes on a bare machine, for tests and the demo. Everything that a cluster starts or makes is known to
//! its supervisor before it happens, so that it ends with the process that started it, however that ends.

mod access;
mod api;
mod cgroups;
mod containerd;
mod control_plane;
mod dns;
mod existing;
mod kubelet;
mod network;
mod node;
mod state;

use std::path::{Path, PathBuf};

use kube::Client;
use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::binaries::{Binaries, Program};
use crate::image::Archive;
use crate::images::{self, ProjectImage};
use crate::supervisor::{self, Supervisor};
use crate::{Error, Result, command};
use access::Access;
use containerd::Containerd;
use existing::Tool;
use state::State;

pub use crate::tier::Tier;
pub use containerd::Loaded;

/// The one node of a node cluster, and the value of its label `kubernetes.io/hostname`.
pub const NODE_NAME: &str = "flowctl-node";
/// The kubelet's user: `system:node:` and the node's name.
const NODE_USER: &str = "system:node:flowctl-node";

/// What a caller may choose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Files of CustomResourceDefinitions that are established before the controller manager starts: the garbage
    /// collector learns of later ones only after up to 30 s.
    pub crds: Vec<PathBuf>,
    /// Added to the apiserver's command line.
    pub apiserver_arguments: Vec<String>,
    /// Controllers that are not run on the API tier, as the controller manager calls them: `deployment-controller`.
    pub without_controllers: Vec<String>,
}

/// A running cluster. Dropping it stops everything that was started with it.
#[derive(Debug)]
pub struct Cluster {
    tier: Tier,
    directory: PathBuf,
    access: Access,
    binaries: Binaries,
    audit_log: Option<PathBuf>,
    images: Images,
    supervisor: Option<Supervisor>,
}

/// How images get into a cluster.
#[derive(Clone, Debug)]
enum Images {
    /// There is no node.
    Nowhere,
    /// Through our own containerd.
    Containerd(Containerd),
    /// Through the tool that made the cluster.
    Tool(Tool),
}

/// Builds and installs what clusters of this tier are made of.
pub(crate) async fn prepare(tier: Tier) -> Result<()> {
    match tier {
        Tier::Plain => return Ok(()),
        Tier::Api => drop(Binaries::ensure(Program::API).await?),
        Tier::Node => drop(node::Materials::ensure().await?),
    }
    let building = tokio::task::spawn_blocking(supervisor::executable);
    building
        .await
        .map_err(|error| Error::impossible(format!("building the supervisor failed: {error}")))?
        .map(drop)
}

// === impl Cluster ===

impl Cluster {
    /// Starts a cluster that lives and dies with this process.
    ///
    /// # Errors
    /// When the tier cannot run here (says what to do), or when a component does not come up (with its last words).
    pub async fn start(tier: Tier, options: Options) -> Result<Self> {
        match tier {
            Tier::Plain => Err(Error::impossible(
                "the plain tier has no cluster: use Tier::Api or Tier::Node",
            )),
            Tier::Api => api::start(&options).await,
            Tier::Node => node::start(&options).await,
        }
    }

    /// The node cluster that runs on after this process: the one that is up already (instantly), or a new one.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn up(options: Options) -> Result<Self> {
        if let Some(running) = node::attach().await? {
            return Ok(running);
        }
        let mut cluster = node::start(&options).await?;
        if let Some(supervisor) = &mut cluster.supervisor {
            supervisor.detach()?;
        }
        if let Some(state) = State::read(&cluster.directory) {
            State {
                is_detached: true,
                ..state
            }
            .write(&cluster.directory)?;
        }
        cluster.supervisor = None;
        Ok(cluster)
    }

    /// The node cluster that [`Self::up`] left running, if it still runs.
    ///
    /// # Errors
    /// When its supervisor runs but its apiserver does not answer.
    pub async fn attach() -> Result<Option<Self>> {
        node::attach().await
    }

    /// Stops the node cluster of this machine and waits until nothing is left, also of one that was killed. Returns
    /// whether there was any.
    ///
    /// # Errors
    /// Names what could not be removed.
    pub async fn down() -> Result<bool> {
        let stopping = tokio::task::spawn_blocking(node::down);
        stopping
            .await
            .map_err(|error| Error::impossible(format!("stopping the cluster failed: {error}")))?
    }

    /// A cluster that the user already has, by the name of its context. It is neither started nor stopped.
    ///
    /// # Errors
    /// When there is no such context or its apiserver does not answer.
    pub async fn existing(context: &str) -> Result<Self> {
        existing::open(context).await
    }

    /// Loads an image tar ([`crate::image`]) unless the cluster has exactly this image.
    ///
    /// # Errors
    /// When there is no node, no such file, or no way into somebody else's cluster.
    pub async fn load_image(&self, tar: &Path) -> Result<Loaded> {
        let archive = Archive::read(tar)?;
        match &self.images {
            Images::Nowhere => Err(Error::impossible(
                "the API tier has no node, so there is no place for images",
            )),
            Images::Containerd(containerd) => containerd.load(&archive).await,
            Images::Tool(tool) => tool.load(&archive).await.map(|()| Loaded::Now),
        }
    }

    /// Which tier it is.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Where its files and logs are; gone after [`Self::stop`].
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A kubeconfig with every right; of an existing cluster, the user's.
    pub fn kubeconfig(&self) -> &Path {
        &self.access.kubeconfig
    }

    /// A client with every right, without hidden retries, with timeouts.
    ///
    /// # Errors
    /// When the kubeconfig holds something that cannot be used.
    pub fn client(&self) -> Result<Client> {
        self.access.client()
    }

    /// A client that acts as somebody else, with that user's rights and no more. For a service account:
    /// `system:serviceaccount:NAMESPACE:NAME`; its groups are added.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub fn client_as(&self, user: &str) -> Result<Client> {
        self.access.client_as(user)
    }

    /// The audit log, one JSON object a line ([`crate::audit`]).
    ///
    /// # Errors
    /// When the cluster is not ours.
    pub fn audit_log_path(&self) -> Result<&Path> {
        self.audit_log
            .as_deref()
            .ok_or_else(|| Error::impossible("only clusters that we start have an audit log"))
    }

    /// Runs kubectl and returns what it printed.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        command::run(self.kubectl_command()?.args(arguments)).await
    }

    /// Runs kubectl with this standard input: `cluster.kubectl_input(&["apply", "-f", "-"], yaml)`.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub async fn kubectl_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        command::run_with_input(self.kubectl_command()?.args(arguments), input.as_bytes()).await
    }

    /// Runs helm and returns what it printed. Builds helm first if it is not there.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub async fn helm(&self, arguments: &[&str]) -> Result<String> {
        command::run(self.helm_command().await?.args(arguments)).await
    }

    /// kubectl for this cluster, to be given arguments.
    ///
    /// # Errors
    /// When there is no kubectl.
    pub fn kubectl_command(&self) -> Result<Command> {
        let mut command = Command::new(self.binaries.path(Program::Kubectl)?);
        self.access.environment(&mut command);
        command.args(
            self.access
                .context
                .iter()
                .flat_map(|context| ["--context", context.as_str()]),
        );
        Ok(command)
    }

    /// helm for this cluster, to be given arguments.
    ///
    /// # Errors
    /// When helm cannot be built.
    pub async fn helm_command(&self) -> Result<Command> {
        let helm = match &self.images {
            Images::Tool(_) => Binaries::of_user_or_built(Program::Helm).await?,
            Images::Nowhere | Images::Containerd(_) => Binaries::ensure(&[Program::Helm]).await?,
        };
        let mut command = Command::new(helm.path(Program::Helm)?);
        self.access.environment(&mut command);
        command.args(
            self.access
                .context
                .iter()
                .flat_map(|context| ["--kube-context", context.as_str()]),
        );
        Ok(command)
    }

    /// Stops the apiserver where it stands, or lets it go on: meanwhile it takes connections and answers nothing.
    ///
    /// # Errors
    /// When the cluster is not ours.
    pub fn freeze_apiserver(&self, frozen: bool) -> Result<()> {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        self.supervisor()?.signal(Program::KubeApiserver.file_name(), signal)
    }

    /// Kills the apiserver and starts another one, on the same port and the same etcd; waits until that is ready. In
    /// between, `meanwhile` is done.
    ///
    /// # Errors
    /// When the cluster is not ours, or the new one does not come up.
    pub async fn replace_apiserver(&self, meanwhile: impl Future<Output = Result<()>>) -> Result<()> {
        let supervisor = self.supervisor()?;
        let program = supervisor.kill(Program::KubeApiserver.file_name())?;
        meanwhile.await?;
        supervisor.run(program)?;
        control_plane::ready(&self.client()?, supervisor).await
    }

    fn supervisor(&self) -> Result<&Supervisor> {
        let supervisor = self.supervisor.as_ref();
        supervisor.ok_or_else(|| Error::impossible("the cluster was not started by this process"))
    }

    /// Runs the project's own `flowctl` on the control plane in that namespace, and returns what it printed.
    /// [`images::build`] compiles it.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub async fn flowctl(&self, namespace: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(images::program(ProjectImage::Flowctl)?);
        self.access.environment(&mut command);
        // Another control plane than the cluster's is not what a caller of this means.
        command.env_remove("FLOWCTL_ENDPOINT");
        command.args(["--namespace", namespace]).args(arguments);
        command.args(
            self.access
                .context
                .iter()
                .flat_map(|context| ["--context", context.as_str()]),
        );
        command::run(&mut command).await
    }

    /// Stops everything and waits until nothing is left. A cluster that is not ours runs on.
    ///
    /// # Errors
    /// Names what could not be removed.
    pub async fn stop(mut self) -> Result<()> {
        let Some(mut supervisor) = self.supervisor.take() else {
            return Ok(());
        };
        let stopping = tokio::task::spawn_blocking(move || supervisor.stop());
        stopping
            .await
            .map_err(|error| Error::impossible(format!("stopping the cluster failed: {error}")))?
    }

    /// An error if a component ended by itself.
    ///
    /// # Errors
    /// With the component's last words.
    pub fn check(&self) -> Result<()> {
        self.supervisor.as_ref().map_or(Ok(()), Supervisor::check)
    }
}
