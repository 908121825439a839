//! The two components that make this machine a node: kubelet and kube-proxy.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use flowctl_supervisor::Undo;
use serde_json::json;

use super::containerd::Containerd;
use super::control_plane::ControlPlane;
use super::network::Network;
use super::{NODE_NAME, NODE_USER, cgroups};
use crate::binaries::Program;
use crate::{Error, Result, command, ports};

/// The kubelet's socket for device plugins is here whatever `--root-dir` says.
const KUBELET_HOME: &str = "/var/lib/kubelet";
/// The kubelet's links to logs, likewise.
const CONTAINER_LOGS: &str = "/var/log/containers";

/// Starts the kubelet.
pub(super) fn start_kubelet(
    control_plane: &mut ControlPlane<'_>,
    network: Network,
    containerd: &Containerd,
) -> Result<()> {
    let directory = control_plane.directory.to_owned();
    let home = directory.join("kubelet");
    fs::create_dir_all(&home).map_err(Error::file("create", &home))?;
    forget_traces(control_plane, &directory)?;
    cgroups::create()?;
    let host = network.host();
    let server = control_plane.authority.server("kubelet", &[NODE_NAME], &[host])?;
    let configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": host,
        "port": ports::preferably(host, 10250)?,
        "readOnlyPort": 0,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": false},
            "x509": {"clientCAFile": control_plane.authority.certificate_file()},
        },
        // The only clients with a certificate of this authority are the apiserver's.
        "authorization": {"mode": "AlwaysAllow"},
        "tlsCertFile": server.certificate,
        "tlsPrivateKeyFile": server.key,
        "containerRuntimeEndpoint": format!("unix://{}", containerd.socket.display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroups::ROOT,
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": false,
        "clusterDomain": "cluster.local",
        "clusterDNS": [network.dns()],
        "resolvConf": "/dev/null",
        "podLogsDir": home.join("pod-logs"),
        "volumePluginDir": home.join("volume-plugins"),
        // A developer's disk is often nearly full; what the node needs is checked before it starts.
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "configMapAndSecretChangeDetectionStrategy": "Watch",
    });
    let arguments = vec![
        format!(
            "--config={}",
            write(&home.join("config.json"), &configuration)?.display()
        ),
        format!("--kubeconfig={}", control_plane.kubeconfig_of(NODE_USER)?.display()),
        format!("--root-dir={}", home.join("root").display()),
        format!("--cert-dir={}", home.join("certificates").display()),
        format!("--hostname-override={NODE_NAME}"),
        format!("--node-ip={host}"),
    ];
    control_plane.run(Program::Kubelet, arguments)
}

/// Starts kube-proxy. `nftables` mode would need a program that Debian does not install with the others.
pub(super) fn start_proxy(control_plane: &mut ControlPlane<'_>, network: Network) -> Result<()> {
    let configuration = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "bindAddress": network.host(),
        "clusterCIDR": network.pods.to_string(),
        "clientConnection": {"kubeconfig": control_plane.kubeconfig_of("system:kube-proxy")?},
        "hostnameOverride": NODE_NAME,
        "healthzBindAddress": format!("127.0.0.1:{}", ports::preferably(Ipv4Addr::LOCALHOST, 10256)?),
        "metricsBindAddress": format!("127.0.0.1:{}", ports::preferably(Ipv4Addr::LOCALHOST, 10249)?),
        // Zeros: leave the machine's connection tracking as it is.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"localhostNodePorts": false},
        "oomScoreAdj": 0,
    });
    let path = write(&control_plane.directory.join("kube-proxy.json"), &configuration)?;
    let program = control_plane.binaries.path(Program::KubeProxy)?.display().to_string();
    let configuration = format!("--config={}", path.display());
    forget_firewall(control_plane)?;
    control_plane
        .supervisor
        .undo(Undo::Run(vec![program, configuration.clone(), "--cleanup".to_owned()]))?;
    control_plane.run(Program::KubeProxy, vec![configuration])
}

/// kube-proxy's own cleanup leaves this chain, for a kubelet that may share it. One that was there before stays.
fn forget_firewall(control_plane: &mut ControlPlane<'_>) -> Result<()> {
    for tool in ["iptables", "ip6tables"] {
        let Some(tool) = command::find(tool, &[]) else { continue };
        let exists = Command::new(&tool)
            .args(["-w", "-S", "KUBE-FIREWALL"])
            .output()
            .is_ok_and(|it| it.status.success());
        if !exists {
            let tool = tool.display();
            let script = format!(
                "if {tool} -w -S KUBE-FIREWALL >/dev/null 2>&1; then \
                 for chain in INPUT OUTPUT; do {tool} -w -D $chain -j KUBE-FIREWALL 2>/dev/null; done; \
                 {tool} -w -F KUBE-FIREWALL && {tool} -w -X KUBE-FIREWALL; fi"
            );
            control_plane
                .supervisor
                .undo(Undo::Run(vec!["sh".to_owned(), "-c".to_owned(), script]))?;
        }
    }
    Ok(())
}

/// What the kubelet makes outside of its directory. What was there before stays.
fn forget_traces(control_plane: &mut ControlPlane<'_>, directory: &Path) -> Result<()> {
    let home = PathBuf::from(KUBELET_HOME);
    if !home.exists() {
        control_plane.supervisor.undo(Undo::RemoveDirectory(home))?;
    }
    let logs = PathBuf::from(CONTAINER_LOGS);
    let forget = format!(
        "[ ! -d {CONTAINER_LOGS} ] || find {CONTAINER_LOGS} -lname '{}/*' -delete",
        directory.display()
    );
    control_plane.supervisor.undo(Undo::RemoveEmpty {
        path: logs.clone(),
        top: logs,
    })?;
    control_plane
        .supervisor
        .undo(Undo::Run(vec!["sh".to_owned(), "-c".to_owned(), forget]))
}

/// Writes a component's configuration: JSON is YAML.
fn write(path: &Path, configuration: &serde_json::Value) -> Result<PathBuf> {
    fs::write(path, configuration.to_string()).map_err(Error::file("write", path))?;
    Ok(path.to_owned())
}
