//! What the node tier takes from the distribution: containerd, runc, CNI plugins, iptables, conntrack, ip. Installed
//! when we are root on a Debian; otherwise one line says what to install.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::{Error, Result, binaries, command};

/// Where CNI plugins are: Debian's folder, then the upstream convention.
const CNI_DIRECTORIES: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];
/// The CNI plugins a node needs.
const CNI_PLUGINS: [&str; 3] = ["bridge", "host-local", "loopback"];
/// A program that must be there, and Debian's package for it.
const PROGRAMS: [(&str, &str); 7] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
];

/// Where the distribution's programs are.
#[derive(Clone, Debug)]
pub(crate) struct Packages {
    pub(crate) containerd: PathBuf,
    pub(crate) ctr: PathBuf,
    pub(crate) iptables: PathBuf,
    pub(crate) ip: PathBuf,
    pub(crate) cni: PathBuf,
}

// === impl Packages ===

impl Packages {
    /// Finds everything, installs what is missing if that is possible.
    pub(crate) async fn ensure() -> Result<Self> {
        let mut missing = missing();
        if !missing.is_empty() {
            // Two apt-get at once: one of them fails. Who waited finds the other's work done.
            let _lock = binaries::lock().await?;
            missing = self::missing();
            if !missing.is_empty() {
                install(&missing).await?;
            }
        }
        let program = |name| command::require(name, &remedy(&missing));
        Ok(Self {
            containerd: program("containerd")?,
            ctr: program("ctr")?,
            iptables: program("iptables")?,
            ip: program("ip")?,
            cni: cni().ok_or_else(|| Error::impossible(format!("no CNI plugins: {}", remedy(&missing))))?,
        })
    }
}

/// The packages that are missing, in the order of the table.
pub(crate) fn missing() -> Vec<&'static str> {
    let mut missing: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|(program, _)| command::find(program, &[]).is_none())
        .map(|(_, package)| package)
        .collect();
    if cni().is_none() {
        missing.push("containernetworking-plugins");
    }
    missing.dedup();
    missing
}

/// Whether we could install packages.
pub(crate) fn can_install() -> bool {
    nix::unistd::geteuid().is_root() && command::find("apt-get", &[]).is_some()
}

/// What a person has to do.
pub(crate) fn remedy(packages: &[&str]) -> String {
    format!("install {} (on Debian: apt-get install {0})", packages.join(" "))
}

fn cni() -> Option<PathBuf> {
    let complete = |folder: &&str| {
        CNI_PLUGINS
            .iter()
            .all(|plugin| Path::new(folder).join(plugin).is_file())
    };
    CNI_DIRECTORIES
        .iter()
        .find(|folder| complete(folder))
        .map(PathBuf::from)
}

async fn install(packages: &[&str]) -> Result<()> {
    if !can_install() {
        return Err(Error::impossible(remedy(packages)));
    }
    eprintln!("installing {} ...", packages.join(" "));
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    command::run(apt().arg("update")).await?;
    command::run(
        apt()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages),
    )
    .await?;
    Ok(())
}
