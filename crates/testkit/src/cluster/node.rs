//! The node tier: a whole cluster of one node on this machine, in one fixed directory. One at a time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flowctl_supervisor::Undo;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use tokio::process::Command;

use super::containerd::{Containerd, PAUSE};
use super::control_plane::{Addresses, ControlPlane};
use super::network::{BRIDGE, Network};
use super::state::State;
use super::{Cluster, NODE_NAME, Options, Tier, dns, kubelet};
use crate::binaries::{Binaries, Program, cache_directory};
use crate::image::{Archive, Image};
use crate::packages::Packages;
use crate::supervisor::{self, Supervisor};
use crate::{Error, Result, command, ports, preflight, wait};

/// Everything of the cluster is below this directory.
pub(super) const DIRECTORY: &str = "/var/lib/flowctl-local";
/// The images of pause and CoreDNS are imported, and CoreDNS starts: 10 s on an idle machine.
const READY: Duration = Duration::from_secs(180);
/// How long another test's cluster may take before we give up.
const TURN: Duration = Duration::from_secs(600);

/// What a node is made of: once per machine.
pub(super) struct Materials {
    binaries: Binaries,
    packages: Packages,
    images: [Archive; 2],
}

// === impl Materials ===

impl Materials {
    /// Builds and installs what is missing.
    pub(super) async fn ensure() -> Result<Self> {
        let binaries = Binaries::ensure(Program::NODE).await?;
        let packages = Packages::ensure().await?;
        let images = [pause().await?, coredns(&binaries)?];
        Ok(Self {
            binaries,
            packages,
            images,
        })
    }
}

/// The file whose lock is the right to have the node cluster of this machine: one place, whichever cache is in use.
fn lock_file() -> PathBuf {
    PathBuf::from("/run/flowctl-local.lock")
}

pub(super) async fn start(options: &Options) -> Result<Cluster> {
    preflight::can_run(Tier::Node)?;
    preflight::announce(Tier::Node)?;
    let Materials {
        binaries,
        packages,
        images,
    } = Materials::ensure().await?;
    let directory = Path::new(DIRECTORY);
    let mut supervisor = take_turn(directory).await?;
    supervisor.undo(Undo::RemoveDirectory(directory.to_owned()))?;
    supervisor.undo(Undo::Unmount(directory.to_owned()))?;
    let network = Network::choose(&packages).await?;
    network.create(&packages, &mut supervisor).await?;
    let (access, audit_log, containerd) =
        start_components(options, &binaries, &packages, network, &mut supervisor, &images).await?;
    wait_until_ready(&access.client()?, &supervisor).await?;
    let state = State {
        supervisor: supervisor.identity(),
        containerd: containerd.socket.clone(),
        is_detached: false,
    };
    state.write(directory)?;
    Ok(Cluster {
        tier: Tier::Node,
        directory: directory.to_owned(),
        access,
        binaries,
        audit_log: Some(audit_log),
        images: super::Images::Containerd(containerd),
        supervisor: Some(supervisor),
    })
}

async fn start_components(
    options: &Options,
    binaries: &Binaries,
    packages: &Packages,
    network: Network,
    supervisor: &mut Supervisor,
    images: &[Archive],
) -> Result<(super::Access, PathBuf, Containerd)> {
    let directory = Path::new(DIRECTORY);
    let host = network.host();
    let [clients, peers] = ports::free(std::net::Ipv4Addr::LOCALHOST)?;
    let addresses = Addresses {
        host,
        port: ports::preferably(host, 6443)?,
        etcd: [clients, peers],
        services: network.services.to_string(),
        first_service: network.services.address(1),
    };
    let mut control_plane = ControlPlane::prepare(supervisor, binaries, directory, addresses)?;
    let access = control_plane.start_apiserver(options).await?;
    let client = access.client()?;
    let containerd = Containerd::start(directory, packages, network.pods, control_plane.supervisor).await?;
    for image in images {
        containerd.load(image).await?;
    }
    kubelet::start_kubelet(&mut control_plane, network, &containerd)?;
    kubelet::start_proxy(&mut control_plane, network)?;
    control_plane.start_scheduler()?;
    control_plane.start_controller_manager(&client, &[]).await?;
    let mut apply = Command::new(binaries.path(Program::Kubectl)?);
    access.environment(&mut apply);
    let objects = dns::objects(network.dns()).to_string();
    command::run_with_input(apply.args(["apply", "--server-side", "-f", "-"]), objects.as_bytes()).await?;
    Ok((access, control_plane.audit_log(), containerd))
}

/// Waits for the machine's only place for a node cluster, and clears what a killed one left there.
async fn take_turn(directory: &Path) -> Result<Supervisor> {
    let lock = lock_file();
    let begun = Instant::now();
    let mut announced = false;
    loop {
        if let Some(state) = State::read(directory).filter(State::is_kept) {
            let process = state.supervisor.map(|identity| identity.pid).unwrap_or_default();
            return Err(Error::impossible(format!(
                "the local cluster is up (supervisor {process}), and there is room for one: \
                 `cargo xtask cluster down` ends it"
            )));
        }
        if let Some(supervisor) = Supervisor::start_with_lock(directory, Some(&lock))? {
            return Ok(supervisor);
        }
        if begun.elapsed() > TURN {
            let what = "another process gives up its local cluster".to_owned();
            return Err(Error::Deadline {
                what,
                limit: TURN,
                detail: String::new(),
            });
        }
        if !announced {
            eprintln!("waiting: another process has the local cluster of this machine");
            announced = true;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn wait_until_ready(client: &Client, supervisor: &Supervisor) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    wait::until_explained("the node is Ready", READY, async || {
        supervisor.check()?;
        let node = nodes.get_opt(NODE_NAME).await.map_err(Error::kube("read the node"))?;
        let conditions = node.and_then(|node| node.status?.conditions).unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        Ok(match ready {
            Some(condition) if condition.status == "True" => Ok(()),
            Some(condition) => Err(condition.message.unwrap_or_default()),
            None => Err("the node has not registered".to_owned()),
        })
    })
    .await?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), dns::NAMESPACE);
    wait::until("cluster DNS is available", READY, async || {
        supervisor.check()?;
        let deployment = deployments
            .get_opt(dns::NAME)
            .await
            .map_err(Error::kube("read the DNS deployment"))?;
        let available = deployment
            .and_then(|deployment| deployment.status?.available_replicas)
            .unwrap_or(0);
        Ok((available > 0).then_some(()))
    })
    .await
}

/// A cluster that somebody started with `up` and that still runs.
pub(super) async fn attach() -> Result<Option<Cluster>> {
    let directory = Path::new(DIRECTORY);
    let Some(state) = State::read(directory).filter(State::is_kept) else {
        return Ok(None);
    };
    let access = super::Access::read(&directory.join("kubeconfig"), None).await?;
    access.client()?.apiserver_version().await.map_err(Error::kube(
        "reach the local cluster's apiserver, though its supervisor runs; `cargo xtask cluster down` clears it",
    ))?;
    let ctr = command::require("ctr", "it comes with containerd")?;
    Ok(Some(Cluster {
        tier: Tier::Node,
        directory: directory.to_owned(),
        access,
        binaries: Binaries::ensure(Program::NODE).await?,
        audit_log: Some(directory.join("logs/audit.log")),
        images: super::Images::Containerd(Containerd {
            ctr,
            socket: state.containerd,
        }),
        supervisor: None,
    }))
}

/// Stops the cluster of this machine, or clears what a killed one left. Returns whether there was anything.
pub(super) fn down() -> Result<bool> {
    let directory = Path::new(DIRECTORY);
    if !directory.exists() {
        return Ok(false);
    }
    let journal = directory.join(flowctl_supervisor::journal::FILE_NAME);
    if let Some(supervisor) = flowctl_supervisor::journal::living_supervisor(&journal) {
        supervisor.terminate();
        supervisor.is_gone_within(Duration::from_secs(180));
    }
    supervisor::resume(directory, Some(&lock_file()))?;
    if flowctl_supervisor::journal::living_supervisor(&journal).is_some() {
        // Somebody who waited for the place has it now: that is another cluster.
        return Ok(true);
    }
    let device = Path::new("/sys/class/net").join(BRIDGE);
    if let Some(left) = [directory, &device].into_iter().find(|path| path.exists()) {
        return Err(Error::impossible(format!(
            "{} is still there: the supervisor's log in {DIRECTORY}/logs says why",
            left.display()
        )));
    }
    Ok(true)
}

async fn pause() -> Result<Archive> {
    let source = include_str!("pause.c");
    let directory = cache_directory()?.join("images");
    std::fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
    // Named after its source, so that another version of the project compiles its own.
    let name = format!("pause-{}", crate::image::short_digest(source.as_bytes()));
    let program = directory.join(&name).join("pause");
    if !program.exists() {
        let folder = directory.join(&name);
        std::fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        let unfinished = folder.join(format!(".pause.{}", std::process::id()));
        let mut compiler = Command::new("cc");
        compiler
            .args(["-x", "c", "-O2", "-static", "-s", "-o"])
            .arg(&unfinished)
            .arg("-");
        command::run_with_input(&mut compiler, source.as_bytes()).await?;
        std::fs::rename(&unfinished, &program).map_err(Error::file("write", &program))?;
    }
    Image::of_program(PAUSE, &program).write(&directory.join(name))
}

fn coredns(binaries: &Binaries) -> Result<Archive> {
    let program = binaries.path(Program::Coredns)?;
    let folder = program.parent().unwrap_or(program);
    Image::of_program(dns::IMAGE, program).write(folder)
}
