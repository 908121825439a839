//! What a pod template becomes when it is merged: what the user meant, in a form that the apiserver keeps.

mod support;

use flowctl_plan::{ChildKind, Plan};
use serde_json::{Value, json};
use support::{World, only, problems, xproc};

fn plan(template: &str) -> Plan {
    let spec = format!("role: Processor\nworkload:\n  image: x\n  podTemplate: {template}\nport: 50051");
    World::usual().plan_processor(&xproc("x", &spec))
}

fn pod(template: &str) -> Value {
    let plan = plan(template);
    assert_eq!(problems(&plan), Vec::<String>::new());
    only(&plan, ChildKind::Deployment)["spec"]["template"]["spec"].clone()
}

/// The apiserver stores the default in the place of an empty value, so the Deployment would be written in every pass.
#[test]
fn what_asks_for_a_default_is_left_out() {
    let pod = pod(
        "{spec: {schedulerName: '', dnsPolicy: '', containers: [{name: main, imagePullPolicy: '', terminationMessagePath: '', \
         terminationMessagePolicy: '', ports: [{containerPort: 53, protocol: ''}], env: [{name: EMPTY, value: ''}], \
         livenessProbe: {httpGet: {path: '', port: 1, scheme: ''}, periodSeconds: 0, timeoutSeconds: 0, failureThreshold: 0, \
         successThreshold: 0}}]}}",
    );
    let main = &pod["containers"][0];
    for (within, key) in [
        (&pod, "schedulerName"),
        (&pod, "dnsPolicy"),
        (main, "imagePullPolicy"),
        (main, "terminationMessagePath"),
        (main, "terminationMessagePolicy"),
    ] {
        assert_eq!(within.get(key), None, "{key}");
    }
    assert_eq!(main["ports"][1], json!({"containerPort": 53}));
    assert_eq!(main["livenessProbe"], json!({"httpGet": {"port": 1}}));
    // What is not defaulted stays as it was written.
    let env = main["env"].as_array().unwrap();
    assert_eq!(env.last(), Some(&json!({"name": "EMPTY", "value": ""})));
}

/// Two handlers in one probe are refused by the apiserver, so nobody could choose another.
#[test]
fn another_handler_takes_the_place_of_ours() {
    let probe = |probe: &str| {
        let pod = pod(&format!(
            "{{spec: {{containers: [{{name: main, readinessProbe: {probe}}}]}}}}"
        ));
        pod["containers"][0]["readinessProbe"].clone()
    };
    let numbers = json!({"periodSeconds": 5, "timeoutSeconds": 3, "failureThreshold": 3});
    let with = |key: &str, handler: Value| {
        let mut probe = numbers.clone();
        probe[key] = handler;
        probe
    };
    assert_eq!(
        probe("{exec: {command: [check]}}"),
        with("exec", json!({"command": ["check"]}))
    );
    assert_eq!(probe("{httpGet: {port: 1}}"), with("httpGet", json!({"port": 1})));
    assert_eq!(probe("{grpc: {port: 1}}"), with("grpc", json!({"port": 1})));
    assert_eq!(probe("{tcpSocket: {port: 1}}"), with("tcpSocket", json!({"port": 1})));
    let mut slower = with("tcpSocket", json!({"port": "grpc"}));
    slower["periodSeconds"] = json!(60);
    assert_eq!(probe("{periodSeconds: 60}"), slower);
}

/// Our port would answer UDP, and no caller would reach it.
#[test]
fn our_port_stays_as_it_is() {
    let ports = |ports: &str| plan(&format!("{{spec: {{containers: [{{name: main, ports: [{ports}]}}]}}}}"));
    for refused in [
        "{containerPort: 50051, protocol: UDP}",
        "{containerPort: 50051, name: other}",
        "{containerPort: 1, name: grpc}",
        "{containerPort: 53}, {containerPort: 53, protocol: UDP}",
    ] {
        assert_eq!(problems(&ports(refused)).len(), 1, "{refused}");
    }
    for taken in [
        "{containerPort: 50051}",
        "{containerPort: 50051, protocol: TCP, name: grpc}",
        "{containerPort: 53}",
    ] {
        assert_eq!(problems(&ports(taken)), Vec::<String>::new(), "{taken}");
    }
}
