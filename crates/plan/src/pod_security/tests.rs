//! One template for each control, at both levels.

use serde_json::json;

use super::*;

fn hardened() -> Value {
    json!({
        "metadata": {},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "main",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

fn with(change: &Value) -> Value {
    let mut template = hardened();
    k8s_openapi::DeepMerge::merge_from(&mut template, change.clone());
    template
}

fn paths(template: &Value, level: PodSecurity) -> Vec<String> {
    violations(template, level)
        .into_iter()
        .map(|violation| violation.path)
        .collect()
}

fn main_with(mut container: Value) -> Value {
    k8s_openapi::DeepMerge::merge_from(&mut container, json!({"name": "main"}));
    let mut main = hardened()["spec"]["containers"][0].clone();
    k8s_openapi::DeepMerge::merge_from(&mut main, container);
    json!({"spec": {"containers": [main]}})
}

/// A pod template would be refused although the cluster takes it.
#[test]
fn a_hardened_template_passes() {
    for level in [PodSecurity::Restricted, PodSecurity::Baseline] {
        assert_eq!(paths(&hardened(), level), Vec::<String>::new());
    }
}

/// A namespace that enforces the standard would refuse the pods, and nothing would say so on the object.
#[test]
fn both_levels_refuse_what_reaches_the_host() {
    let cases = [
        (json!({"spec": {"hostNetwork": true}}), "spec.hostNetwork"),
        (json!({"spec": {"hostPID": true}}), "spec.hostPID"),
        (json!({"spec": {"hostIPC": true}}), "spec.hostIPC"),
        (
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}),
            "spec.volumes[v].hostPath",
        ),
        (
            json!({"spec": {"securityContext": {"windowsOptions": {"hostProcess": true}}}}),
            "spec.securityContext.windowsOptions.hostProcess",
        ),
        (
            json!({"spec": {"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}}),
            "spec.securityContext.seLinuxOptions.type",
        ),
        (
            json!({"spec": {"securityContext": {"seLinuxOptions": {"user": "u"}}}}),
            "spec.securityContext.seLinuxOptions.user",
        ),
        (
            json!({"spec": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}}),
            "spec.securityContext.seccompProfile.type",
        ),
        (
            json!({"spec": {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}}),
            "spec.securityContext.appArmorProfile.type",
        ),
        (
            json!({"spec": {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}}),
            "spec.securityContext.sysctls",
        ),
        (
            json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/main": "unconfined"}}}),
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/main]",
        ),
        (
            main_with(json!({"securityContext": {"privileged": true}})),
            "spec.containers[main].securityContext.privileged",
        ),
        (
            main_with(json!({"securityContext": {"procMount": "Unmasked"}})),
            "spec.containers[main].securityContext.procMount",
        ),
        (
            main_with(json!({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}})),
            "spec.containers[main].securityContext.capabilities.add",
        ),
        (
            main_with(json!({"ports": [{"containerPort": 1, "hostPort": 1}]})),
            "spec.containers[main].ports",
        ),
        (
            main_with(json!({"livenessProbe": {"httpGet": {"host": "10.0.0.1", "port": 1}}})),
            "spec.containers[main].livenessProbe.httpGet.host",
        ),
        (
            main_with(json!({"lifecycle": {"preStop": {"tcpSocket": {"host": "10.0.0.1", "port": 1}}}})),
            "spec.containers[main].lifecycle.preStop.tcpSocket.host",
        ),
    ];
    for (change, path) in cases {
        for level in [PodSecurity::Restricted, PodSecurity::Baseline] {
            assert_eq!(paths(&with(&change), level), [path], "{change}");
        }
    }
}

/// As above, in a namespace that enforces "restricted"; and an operator set to baseline would be needlessly strict.
#[test]
fn restricted_refuses_more_than_baseline() {
    let sidecar = json!({"spec": {"initContainers": [{"name": "side"}]}});
    let cases = [
        (
            json!({"spec": {"volumes": [{"name": "v", "nfs": {"path": "/", "server": "x"}}]}}),
            vec!["spec.volumes[v].nfs"],
        ),
        (
            json!({"spec": {"securityContext": {"runAsUser": 0}}}),
            vec!["spec.securityContext.runAsUser"],
        ),
        (
            json!({"spec": {"securityContext": {"runAsNonRoot": false}}}),
            vec![
                "spec.securityContext.runAsNonRoot",
                "spec.containers[main].securityContext.runAsNonRoot",
            ],
        ),
        (
            main_with(json!({"securityContext": {"capabilities": {"add": ["CHOWN"]}}})),
            vec!["spec.containers[main].securityContext.capabilities.add"],
        ),
        (
            main_with(json!({"securityContext": {"allowPrivilegeEscalation": true}})),
            vec!["spec.containers[main].securityContext.allowPrivilegeEscalation"],
        ),
        (
            sidecar,
            vec![
                "spec.initContainers[side].securityContext.allowPrivilegeEscalation",
                "spec.initContainers[side].securityContext.capabilities.drop",
            ],
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(paths(&with(&change), PodSecurity::Restricted), expected, "{change}");
        assert_eq!(
            paths(&with(&change), PodSecurity::Baseline),
            Vec::<String>::new(),
            "{change}"
        );
    }
    let net_bind = main_with(json!({"securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"]}}}));
    assert_eq!(paths(&with(&net_bind), PodSecurity::Restricted), Vec::<String>::new());
}
