//! The pod security standards, as far as a pod template can break them: <https://kubernetes.io/docs/concepts/security/pod-security-standards/>
//! at 1.33, with the ban of `host` in probes and hooks that came in 1.34. Checked here so that the refusal stands on the
//! object that asked for it, before a namespace that enforces the standard refuses the pods one by one. It knows nothing
//! of what the operator renders: the merged template is judged as a whole.

use serde_json::Value;

use crate::observed::PodSecurity;

/// A control that a template breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Path in the template, containers and volumes by name, as in `spec.containers[main].securityContext.privileged`.
    pub(crate) path: String,
    /// What is wrong and how to repair it.
    pub(crate) message: String,
}

const BASELINE_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];
const SELINUX_TYPES: [&str; 5] = [
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];
const RESTRICTED_VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Everything in the template that the level does not allow.
pub(crate) fn violations(template: &Value, level: PodSecurity) -> Vec<Violation> {
    let mut check = Check {
        level,
        found: Vec::new(),
    };
    check.pod(template);
    for (list, kind) in [
        ("initContainers", "init"),
        ("containers", ""),
        ("ephemeralContainers", "ephemeral"),
    ] {
        for container in items(&template["spec"][list]) {
            let name = container["name"].as_str().unwrap_or(kind);
            check.container(container, &template["spec"], &format!("spec.{list}[{name}]"));
        }
    }
    check.found
}

struct Check {
    level: PodSecurity,
    found: Vec<Violation>,
}

// === impl Check ===

impl Check {
    fn refuse(&mut self, path: String, problem: &str, repair: &str) {
        let level = match self.level {
            PodSecurity::Restricted => "restricted",
            PodSecurity::Baseline => "baseline",
        };
        let message = format!("{problem} is not allowed by pod security {level:?}; {repair}");
        self.found.push(Violation { path, message });
    }

    fn restricted(&self) -> bool {
        match self.level {
            PodSecurity::Restricted => true,
            PodSecurity::Baseline => false,
        }
    }

    fn pod(&mut self, template: &Value) {
        let spec = &template["spec"];
        for key in ["hostNetwork", "hostPID", "hostIPC"] {
            if spec[key] == true {
                self.refuse(format!("spec.{key}"), &format!("{key}: true"), "remove it");
            }
        }
        for volume in items(&spec["volumes"]) {
            self.volume(volume);
        }
        let context = &spec["securityContext"];
        let path = "spec.securityContext";
        self.any_context(context, path);
        for sysctl in items(&context["sysctls"]) {
            let name = sysctl["name"].as_str().unwrap_or_default();
            if !SAFE_SYSCTLS.contains(&name) {
                self.refuse(format!("{path}.sysctls"), &format!("sysctl {name:?}"), "remove it");
            }
        }
        let annotations = template["metadata"]["annotations"].as_object();
        for (key, value) in annotations.into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            let allowed = matches!(value, "" | "runtime/default") || value.starts_with("localhost/");
            if key.starts_with(APPARMOR_ANNOTATION) && !allowed {
                self.refuse(
                    format!("metadata.annotations[{key}]"),
                    &format!("AppArmor profile {value:?}"),
                    "use runtime/default",
                );
            }
        }
    }

    fn volume(&mut self, volume: &Value) {
        let name = volume["name"].as_str().unwrap_or_default();
        let kinds = volume.as_object().into_iter().flat_map(|map| map.keys());
        for kind in kinds.filter(|key| *key != "name") {
            if kind == "hostPath" || self.restricted() && !RESTRICTED_VOLUMES.contains(&kind.as_str()) {
                self.refuse(
                    format!("spec.volumes[{name}].{kind}"),
                    &format!("a {kind} volume"),
                    "use a persistentVolumeClaim, configMap, secret, emptyDir, csi, ephemeral or projected volume",
                );
            }
        }
    }

    /// What pods and containers share.
    fn any_context(&mut self, context: &Value, path: &str) {
        if context["windowsOptions"]["hostProcess"] == true {
            self.refuse(
                format!("{path}.windowsOptions.hostProcess"),
                "hostProcess: true",
                "remove it",
            );
        }
        let selinux = &context["seLinuxOptions"];
        if let Some(kind) = selinux["type"].as_str().filter(|kind| !SELINUX_TYPES.contains(kind)) {
            let problem = format!("SELinux type {kind:?}");
            self.refuse(format!("{path}.seLinuxOptions.type"), &problem, "remove it");
        }
        for key in ["user", "role"] {
            if selinux[key].as_str().is_some_and(|value| !value.is_empty()) {
                let problem = format!("an SELinux {key}");
                self.refuse(format!("{path}.seLinuxOptions.{key}"), &problem, "remove it");
            }
        }
        for (key, name) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
            let profile = context[key]["type"].as_str();
            if let Some(other) = profile.filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost")) {
                let problem = format!("{name} profile {other:?}");
                self.refuse(format!("{path}.{key}.type"), &problem, "use RuntimeDefault");
            }
        }
        if self.restricted() {
            if context["runAsNonRoot"] == false {
                self.refuse(format!("{path}.runAsNonRoot"), "runAsNonRoot: false", "remove it");
            }
            if context["runAsUser"] == 0 {
                let repair = "use a user id above 0, and an image that runs as it";
                self.refuse(format!("{path}.runAsUser"), "runAsUser: 0", repair);
            }
        }
    }

    fn container(&mut self, container: &Value, pod: &Value, root: &str) {
        let context = &container["securityContext"];
        let path = format!("{root}.securityContext");
        self.any_context(context, &path);
        if context["privileged"] == true {
            self.refuse(format!("{path}.privileged"), "privileged: true", "remove it");
        }
        if let Some(mount) = context["procMount"].as_str().filter(|mount| *mount != "Default") {
            let problem = format!("procMount {mount:?}");
            self.refuse(format!("{path}.procMount"), &problem, "remove it");
        }
        for port in items(&container["ports"]) {
            if port["hostPort"].as_i64().is_some_and(|port| port != 0) {
                self.refuse(format!("{root}.ports"), "a hostPort", "use the object's Service");
            }
        }
        self.capabilities(&context["capabilities"], &path);
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"];
        let probes = probes.map(|probe| (probe.to_owned(), &container[probe]));
        let hooks = ["postStart", "preStop"];
        let hooks = hooks.map(|hook| (format!("lifecycle.{hook}"), &container["lifecycle"][hook]));
        for (name, handler) in probes.into_iter().chain(hooks) {
            for action in ["httpGet", "tcpSocket"] {
                if handler[action]["host"].as_str().is_some_and(|host| !host.is_empty()) {
                    let path = format!("{root}.{name}.{action}.host");
                    self.refuse(path, "a probe or hook of another host", "remove it");
                }
            }
        }
        if self.restricted() {
            self.hardened(context, &pod["securityContext"], &path);
        }
    }

    fn capabilities(&mut self, capabilities: &Value, path: &str) {
        let restricted = self.restricted();
        for capability in items(&capabilities["add"]).filter_map(Value::as_str) {
            let allowed = if restricted {
                capability == "NET_BIND_SERVICE"
            } else {
                BASELINE_CAPABILITIES.contains(&capability)
            };
            if !allowed {
                let problem = format!("capability {capability}");
                self.refuse(format!("{path}.capabilities.add"), &problem, "remove it");
            }
        }
    }

    /// What "restricted" wants to see said.
    fn hardened(&mut self, context: &Value, pod: &Value, path: &str) {
        if context["allowPrivilegeEscalation"] != false {
            self.refuse(
                format!("{path}.allowPrivilegeEscalation"),
                "privilege escalation",
                "set allowPrivilegeEscalation: false",
            );
        }
        let mut dropped = items(&context["capabilities"]["drop"]);
        if !dropped.any(|capability| capability == "ALL") {
            self.refuse(
                format!("{path}.capabilities.drop"),
                "a container that keeps capabilities",
                "set capabilities: {drop: [ALL]}",
            );
        }
        if context["runAsNonRoot"].is_null() && pod["runAsNonRoot"] != true {
            self.refuse(
                format!("{path}.runAsNonRoot"),
                "a container that may run as root",
                "set runAsNonRoot: true",
            );
        }
        if context["seccompProfile"]["type"].is_null() && pod["seccompProfile"]["type"].is_null() {
            self.refuse(
                format!("{path}.seccompProfile.type"),
                "a container without a seccomp profile",
                "set seccompProfile: {type: RuntimeDefault}",
            );
        }
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests;
