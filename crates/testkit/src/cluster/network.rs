//! The node's network: a bridge of our own, address ranges that nothing else uses, the few firewall rules that pods
//! need, and the kernel settings that components change. All of it is put back. No `portmap` and no `ipMasq` of
//! CNI's: they would leave chains behind when pods are killed; one rule of ours does what we need of them.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use flowctl_supervisor::Undo;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::packages::Packages;
use crate::supervisor::Supervisor;
use crate::{Error, Result, command};

/// The bridge's name; one node cluster a machine.
pub(super) const BRIDGE: &str = "flowctl0";
const POD_RANGES: [&str; 4] = ["10.244.0.0/24", "10.245.0.0/24", "172.29.244.0/24", "192.168.244.0/24"];
const SERVICE_RANGES: [&str; 4] = ["10.96.0.0/16", "10.97.0.0/16", "10.110.0.0/16", "172.30.0.0/16"];
/// What kubelet, kube-proxy and CNI write: restored in the end.
const SETTINGS: [&str; 8] = [
    "net/ipv4/ip_forward",
    "net/bridge/bridge-nf-call-iptables",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Range {
    base: Ipv4Addr,
    bits: u8,
}

/// The ranges of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Network {
    /// Pods; the first address is the bridge's, the node's and the apiserver's.
    pub(super) pods: Range,
    /// Services; the first address is the apiserver's Service, the tenth is DNS.
    pub(super) services: Range,
}

// === impl Range ===

impl Range {
    /// Reads `10.0.0.0/8`; a single address is a range of one.
    fn parse(text: &str) -> Option<Self> {
        let (base, bits) = text.split_once('/').unwrap_or((text, "32"));
        let (base, bits): (Ipv4Addr, u8) = (base.parse().ok()?, bits.parse().ok()?);
        (bits <= 32).then_some(Self { base, bits })
    }

    /// The address at this place in the range.
    pub(super) fn address(self, place: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) + place)
    }

    fn overlaps(self, other: Self) -> bool {
        let bits = self.bits.min(other.bits);
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        u32::from(self.base) & mask == u32::from(other.base) & mask
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.base, self.bits)
    }
}

// === impl Network ===

impl Network {
    /// Chooses ranges that no route and no address of this machine touches.
    pub(super) async fn choose(packages: &Packages) -> Result<Self> {
        let mut taken = Vec::new();
        for arguments in [["-4", "-o", "address", "show"], ["-4", "-o", "route", "show"]] {
            let listing = command::run(Command::new(&packages.ip).args(arguments)).await?;
            taken.extend(listing.split_whitespace().filter_map(Range::parse));
        }
        let free = |candidates: [&str; 4], purpose: &str| {
            let mut ranges = candidates.iter().filter_map(|text| Range::parse(text));
            ranges
                .find(|range| !taken.iter().any(|other| other.overlaps(*range)))
                .ok_or_else(|| {
                    Error::impossible(format!(
                        "no free address range for {purpose}: {} all overlap with this machine's routes",
                        candidates.join(", ")
                    ))
                })
        };
        Ok(Self {
            pods: free(POD_RANGES, "pods")?,
            services: free(SERVICE_RANGES, "services")?,
        })
    }

    /// The node's address.
    pub(super) fn host(self) -> Ipv4Addr {
        self.pods.address(1)
    }

    /// The address of cluster DNS.
    pub(super) fn dns(self) -> Ipv4Addr {
        self.services.address(10)
    }

    /// Makes the bridge, the rules and the settings.
    pub(super) async fn create(self, packages: &Packages, supervisor: &mut Supervisor) -> Result<()> {
        // Where they are built in, or there is no modprobe, the settings below tell.
        for module in ["bridge", "br_netfilter", "overlay"] {
            let _ = command::run(Command::new("modprobe").arg(module)).await;
        }
        remember_settings(supervisor)?;
        write_setting("net/ipv4/ip_forward", "1")?;
        // Without it a pod that reaches itself or a neighbour through a Service gets answers from the wrong address.
        if setting_path("net/bridge/bridge-nf-call-iptables").exists() {
            write_setting("net/bridge/bridge-nf-call-iptables", "1")?;
        }
        let ip = packages.ip.display().to_string();
        let shell = |script: String| Undo::Run(vec!["sh".to_owned(), "-c".to_owned(), script]);
        supervisor.undo(shell(format!(
            "[ ! -e /sys/class/net/{BRIDGE} ] || {ip} link delete {BRIDGE}"
        )))?;
        // The host's end of a pod's cable goes with the pod's namespace, but only some time later.
        supervisor.undo(shell(format!(
            "for port in /sys/class/net/{BRIDGE}/brif/*; do {ip} link delete \"$(basename \"$port\")\" 2>&1; done; true"
        )))?;
        let address = format!("{}/{}", self.host(), self.pods.bits);
        for arguments in [
            ["link", "add", BRIDGE, "type", "bridge"].as_slice(),
            &["address", "add", &address, "dev", BRIDGE],
            &["link", "set", BRIDGE, "up"],
        ] {
            command::run(Command::new(&packages.ip).args(arguments)).await?;
        }
        let iptables = packages.iptables.display();
        for (table, chain, rule) in self.rules() {
            // Where the policy is DROP (a machine with Docker or a firewall) these let pods talk; kube-proxy puts
            // its own rules in front of them.
            let delete = format!("{iptables} -w -t {table} -D {chain} {rule}");
            let check = format!("{iptables} -w -t {table} -C {chain} {rule} 2>&1");
            supervisor.undo(shell(format!("if {check}; then {delete}; fi")))?;
            let insert = ["-w", "-t", table, "-I", chain];
            command::run(Command::new(&packages.iptables).args(insert).args(rule.split(' '))).await?;
        }
        Ok(())
    }

    fn rules(self) -> [(&'static str, &'static str, String); 4] {
        let pods = self.pods;
        [
            ("nat", "POSTROUTING", format!("-s {pods} ! -d {pods} -j MASQUERADE")),
            ("filter", "INPUT", format!("-i {BRIDGE} -j ACCEPT")),
            ("filter", "FORWARD", format!("-i {BRIDGE} -j ACCEPT")),
            ("filter", "FORWARD", format!("-o {BRIDGE} -j ACCEPT")),
        ]
    }
}

fn remember_settings(supervisor: &mut Supervisor) -> Result<()> {
    for setting in SETTINGS {
        let path = setting_path(setting);
        if let Ok(content) = fs::read_to_string(&path) {
            supervisor.undo(Undo::Restore { path, content })?;
        }
    }
    Ok(())
}

fn write_setting(setting: &str, value: &str) -> Result<()> {
    let path = setting_path(setting);
    // In a container settings are often read-only, and right.
    if fs::read_to_string(&path).is_ok_and(|found| found.trim_end() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(Error::file("write", &path))
}

fn setting_path(setting: &str) -> PathBuf {
    Path::new("/proc/sys").join(setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_is_in_use_is_not_chosen() {
        let range = |text| Range::parse(text).expect("a range");
        assert!(range("10.96.0.0/16").overlaps(range("10.0.0.0/8")));
        assert!(range("10.96.0.0/16").overlaps(range("10.96.4.2")));
        assert!(range("10.96.0.0/16").overlaps(range("0.0.0.0/0")));
        assert!(!range("10.244.0.0/24").overlaps(range("10.244.1.0/24")));
        assert_eq!(Range::parse("10.0.0.0/33"), None);
        assert_eq!(Range::parse("dev"), None);
    }
}
