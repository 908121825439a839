//! The API tier: a control plane on loopback, no node. Several run side by side, each on ports of its own.

use std::net::Ipv4Addr;
use std::path::Path;

use flowctl_supervisor::Undo;

use super::control_plane::{Addresses, ControlPlane};
use super::{Cluster, Images, Options, Tier};
use crate::binaries::{Binaries, Program};
use crate::supervisor::{self, Supervisor};
use crate::{Error, Result, ports, preflight};

/// How directories of these clusters begin, in the system's directory for temporary files.
const PREFIX: &str = "flowctl-cluster-";
/// A port that was free may be taken before the component binds it.
const ATTEMPTS: usize = 3;
/// There is no node, so nothing renews a node's lease: these would take the fake kubelet's pods away.
const WITHOUT: [&str; 2] = ["node-lifecycle-controller", "taint-eviction-controller"];

pub(super) async fn start(options: &Options) -> Result<Cluster> {
    preflight::can_run(Tier::Api)?;
    preflight::announce(Tier::Api)?;
    let binaries = Binaries::ensure(Program::API).await?;
    sweep();
    let mut attempt = 1;
    loop {
        match try_start(options, &binaries).await {
            Err(Error::Exited { log, .. }) if attempt < ATTEMPTS && log.contains("address already in use") => {
                attempt += 1
            }
            outcome => return outcome,
        }
    }
}

async fn try_start(options: &Options, binaries: &Binaries) -> Result<Cluster> {
    let directory = tempfile::Builder::new()
        .prefix(PREFIX)
        .tempdir()
        .map_err(Error::io("make a directory"))?
        .keep();
    let mut supervisor = Supervisor::start(&directory)?;
    supervisor.undo(Undo::RemoveDirectory(directory.clone()))?;
    let [port, clients, peers] = ports::free(Ipv4Addr::LOCALHOST)?;
    let addresses = Addresses {
        host: Ipv4Addr::LOCALHOST,
        port,
        etcd: [clients, peers],
        services: "10.96.0.0/16".to_owned(),
        first_service: Ipv4Addr::new(10, 96, 0, 1),
    };
    let mut control_plane = ControlPlane::prepare(&mut supervisor, binaries, &directory, addresses)?;
    let access = control_plane.start_apiserver(options).await?;
    let left_out: Vec<&str> = options.without_controllers.iter().map(String::as_str).collect();
    control_plane
        .start_controller_manager(&access.client()?, &[&WITHOUT[..], &left_out].concat())
        .await?;
    let audit_log = Some(control_plane.audit_log());
    let supervisor = Some(supervisor);
    Ok(Cluster {
        tier: Tier::Api,
        directory,
        access,
        binaries: binaries.clone(),
        audit_log,
        images: Images::Nowhere,
        supervisor,
    })
}

/// Removes what clusters left whose supervisor was killed. What fails is told when somebody needs the place.
fn sweep() {
    let entries = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let ours = |path: &Path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
            && path.is_dir()
    };
    for directory in entries.map(|entry| entry.path()).filter(|path| ours(path)) {
        let _ = supervisor::resume(&directory, None);
    }
}
