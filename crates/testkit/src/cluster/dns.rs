//! Cluster DNS: CoreDNS as a Deployment, the way a cluster has it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

/// The image's name.
pub(super) const IMAGE: &str = "flowctl-local/coredns:dev";
/// Where Deployment and Service are.
pub(super) const NAMESPACE: &str = "kube-system";
/// The Deployment's name.
pub(super) const NAME: &str = "coredns";
/// Not 53: a process without rights may not listen there.
const PORT: u16 = 1053;

/// The objects of cluster DNS at this address, as one list.
pub(super) fn objects(address: Ipv4Addr) -> Value {
    let metadata = json!({"name": NAME, "namespace": NAMESPACE, "labels": {"k8s-app": "kube-dns"}});
    let global = json!({"name": "system:coredns"});
    let read = json!(["list", "watch"]);
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": global, "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": read},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        ]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": global,
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
         "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}]},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"Corefile": corefile()}},
        {"apiVersion": "v1", "kind": "Service",
         "metadata": {"name": "kube-dns", "namespace": NAMESPACE, "labels": {"k8s-app": "kube-dns"}},
         "spec": {"clusterIP": address, "selector": {"k8s-app": "kube-dns"}, "ports": [
            {"name": "dns", "port": 53, "targetPort": PORT, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "targetPort": PORT, "protocol": "TCP"},
         ]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {
            "selector": {"matchLabels": {"k8s-app": "kube-dns"}},
            "template": {"metadata": {"labels": {"k8s-app": "kube-dns"}}, "spec": pod()},
        }},
    ]})
}

fn pod() -> Value {
    json!({
        "serviceAccountName": NAME,
        "priorityClassName": "system-cluster-critical",
        // Its own resolver is the one thing that cannot come from cluster DNS.
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": NAME,
            "image": IMAGE,
            "imagePullPolicy": "Never",
            "args": ["-conf", "/etc/coredns/Corefile"],
            "ports": [{"containerPort": PORT, "protocol": "UDP"}, {"containerPort": PORT, "protocol": "TCP"}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": true}],
        }],
        "volumes": [{"name": "config", "configMap": {"name": NAME}}],
    })
}

/// The `kubernetes` block's braces must be on lines of their own.
fn corefile() -> String {
    let servers = upstream_servers();
    let forward = if servers.is_empty() {
        String::new()
    } else {
        format!("    forward . {}\n", servers.join(" "))
    };
    format!(
        ".:{PORT} {{\n    errors\n    ready :8181\n    kubernetes cluster.local in-addr.arpa {{\n        \
         pods insecure\n        ttl 5\n    }}\n{forward}    cache 5\n    reload\n}}\n"
    )
}

/// This machine's name servers. One on loopback is none for a pod; systemd-resolved keeps the real ones elsewhere.
fn upstream_servers() -> Vec<String> {
    let files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
    let servers_of = |file: &&str| -> Vec<String> {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.strip_prefix("nameserver ")?.trim().parse::<IpAddr>().ok())
            .filter(|server| !server.is_loopback())
            .take(3)
            .map(|server| server.to_string())
            .collect()
    };
    files
        .iter()
        .map(servers_of)
        .find(|servers| !servers.is_empty())
        .unwrap_or_default()
}
