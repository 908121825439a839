//! Which live children are written again. Too many: the operator never comes to rest. Too few: a change by hand stays.

use serde_json::{Value, json};

use super::differs;
use crate::{Child, ChildKind, ChildRef};

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "ttp-processor", "namespace": "stellar", "labels": {"flowctl.dev/name": "ttp"},
            "ownerReferences": [{"apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor", "name": "ttp", "uid": "u-1", "controller": true}],
        },
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"flowctl.dev/name": "ttp"}},
            "template": {"spec": {
                "automountServiceAccountToken": false,
                "hostNetwork": false,
                "containers": [{
                    "name": "main", "image": "ttp:1", "args": ["--port", "50051"],
                    "env": [{"name": "A", "value": ""}, {"name": "B", "value": "b"}],
                    "ports": [{"containerPort": 50051, "name": "grpc"}],
                    "readinessProbe": {"tcpSocket": {"port": 50051}, "initialDelaySeconds": 0},
                    "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}, "limits": {"cpu": 2}},
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp", "readOnly": false}],
                }],
                "tolerations": [{"key": "k", "operator": "Exists"}],
                "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "0.5Gi"}}],
            }},
        },
    })
}

/// The same as an apiserver gives it back: defaulted, normalised, with other managers' fields, in another order.
fn live(sealed: &Child) -> Value {
    let annotations = sealed.body["metadata"]["annotations"].clone();
    let mut live = json!({
        "metadata": {
            "name": "ttp-processor", "namespace": "stellar", "uid": "d-1", "resourceVersion": "99", "generation": 4,
            "creationTimestamp": "2026-03-01T12:00:00Z", "managedFields": [{"manager": "flowctl-operator"}],
            "labels": {"flowctl.dev/name": "ttp", "team": "data"},
            "annotations": annotations,
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u-0"},
                {"apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor", "name": "ttp", "uid": "u-1", "controller": true},
            ],
        },
        "spec": {
            "replicas": 3, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"flowctl.dev/name": "ttp"}},
            "template": {"metadata": {"creationTimestamp": null}, "spec": {
                "automountServiceAccountToken": false, "dnsPolicy": "ClusterFirst",
                "containers": [
                    {"name": "injected-proxy", "image": "proxy"},
                    {
                        "name": "main", "image": "ttp:1", "imagePullPolicy": "IfNotPresent", "args": ["--port", "50051"],
                        "env": [{"name": "B", "value": "b"}, {"name": "A"}],
                        "ports": [{"containerPort": 50051, "name": "grpc", "protocol": "TCP"}],
                        "readinessProbe": {"tcpSocket": {"port": 50051}, "periodSeconds": 10, "failureThreshold": 3},
                        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "2"}},
                        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                    },
                ],
                "tolerations": [{"key": "k", "operator": "Exists"}],
                "volumes": [{"name": "token", "emptyDir": {}}, {"name": "tmp", "emptyDir": {"sizeLimit": "512Mi"}}],
            }},
        },
        "status": {"replicas": 3},
    });
    live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("2");
    live
}

fn child(body: Value) -> Child {
    Child {
        id: ChildRef {
            kind: ChildKind::Deployment,
            name: "ttp-processor".to_owned(),
        },
        body,
    }
}

fn sealed() -> Child {
    child(deployment()).sealed()
}

#[test]
fn what_the_apiserver_made_of_our_own_write_is_left_alone() {
    let sealed = sealed();
    let difference = differs(&sealed, &live(&sealed));
    assert_eq!(
        difference,
        None,
        "{}",
        difference.clone().map(|found| found.to_string()).unwrap_or_default()
    );
}

#[test]
fn a_change_by_hand_is_found_where_it_was_made() {
    let sealed = sealed();
    let container = "/spec/template/spec/containers/1";
    let cases = [
        ("/spec/replicas".to_owned(), Some(json!(1)), "spec.replicas"),
        (
            format!("{container}/image"),
            Some(json!("evil:1")),
            "spec.template.spec.containers[main].image",
        ),
        (
            format!("{container}/args"),
            Some(json!(["--port"])),
            "spec.template.spec.containers[main].args",
        ),
        (
            format!("{container}/env/0/value"),
            Some(json!("x")),
            "spec.template.spec.containers[main].env[B].value",
        ),
        (
            format!("{container}/env"),
            Some(json!([])),
            "spec.template.spec.containers[main].env[A]",
        ),
        (
            format!("{container}/ports/0/protocol"),
            Some(json!("UDP")),
            "spec.template.spec.containers[main].ports[50051]",
        ),
        (
            format!("{container}/resources/requests/cpu"),
            Some(json!("600m")),
            "spec.template.spec.containers[main].resources.requests.cpu",
        ),
        (
            format!("{container}/volumeMounts/0/readOnly"),
            Some(json!(true)),
            "spec.template.spec.containers[main].volumeMounts[/tmp].readOnly",
        ),
        // A pointer in the apiserver: without it pods get a token again.
        (
            "/spec/template/spec/automountServiceAccountToken".to_owned(),
            None,
            "spec.template.spec.automountServiceAccountToken",
        ),
        (
            "/spec/template/spec/tolerations/0/key".to_owned(),
            Some(json!("other")),
            "spec.template.spec.tolerations[0].key",
        ),
        (
            "/spec/template/spec/volumes/1/emptyDir/sizeLimit".to_owned(),
            Some(json!("1Gi")),
            "spec.template.spec.volumes[tmp].emptyDir.sizeLimit",
        ),
        (
            "/metadata/labels/flowctl.dev~1name".to_owned(),
            None,
            "metadata.labels[flowctl.dev/name]",
        ),
        (
            "/metadata/ownerReferences/1/uid".to_owned(),
            Some(json!("u-2")),
            "metadata.ownerReferences[u-1]",
        ),
        (
            "/metadata/annotations/flowctl.dev~1applied".to_owned(),
            Some(json!("0")),
            "metadata.annotations[flowctl.dev/applied]",
        ),
    ];
    for (pointer, value, path) in cases {
        let mut live = live(&sealed);
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let fields = live
            .pointer_mut(parent)
            .and_then(Value::as_object_mut)
            .expect("an object");
        let key = key.replace("~1", "/");
        match value {
            Some(value) => drop(fields.insert(key, value)),
            None => drop(fields.shift_remove(&key).expect("the field is there")),
        }
        let difference = differs(&sealed, &live).unwrap_or_else(|| panic!("{pointer} is not found"));
        assert_eq!(difference.path, path, "{difference}");
    }
}

// Taking a field out of a spec must reach the child, although the child still contains everything else.
#[test]
fn a_field_that_is_no_longer_wanted_is_a_difference() {
    let live = live(&sealed());
    let mut fewer = deployment();
    fewer["spec"]["template"]["spec"]["containers"][0]
        .as_object_mut()
        .expect("a container")
        .shift_remove("args");
    assert!(differs(&child(fewer).sealed(), &live).is_some());
}

#[test]
fn the_seal_depends_on_content_alone() {
    let other_order: Value = serde_json::from_str(
        r#"{"kind": "ConfigMap", "data": {"b": "2", "a": "1"}, "metadata": {"namespace": "n", "name": "x"}}"#,
    )
    .expect("JSON");
    let one = json!({"metadata": {"name": "x", "namespace": "n"}, "kind": "ConfigMap", "data": {"a": "1", "b": "2"}});
    let seal = |body: Value| child(body).sealed().body["metadata"]["annotations"]["flowctl.dev/applied"].clone();
    assert_eq!(seal(one.clone()), seal(other_order));
    assert_ne!(
        seal(one.clone()),
        seal(json!({"metadata": {"name": "x", "namespace": "n"}, "kind": "ConfigMap"}))
    );
    let sealed = child(one).sealed();
    assert_eq!(sealed.sealed(), sealed, "sealing twice changes nothing");
    assert!(
        differs(&child(deployment()), &json!({})).is_some(),
        "an unsealed child is never taken for applied"
    );
}

#[test]
fn maps_of_strings_keep_their_empty_strings() {
    let config = child(json!({"metadata": {"name": "x"}, "data": {"empty": ""}})).sealed();
    let annotations = config.body["metadata"]["annotations"].clone();
    let live = |data: Value| json!({"metadata": {"name": "x", "annotations": annotations}, "data": data});
    assert_eq!(differs(&config, &live(json!({"empty": ""}))), None);
    assert!(differs(&config, &live(json!({}))).is_some());
}

#[test]
fn a_service_is_compared_by_port_and_protocol() {
    let service = child(json!({"spec": {"clusterIP": "None", "ports": [
        {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "tcp", "port": 53, "targetPort": "grpc"}]}}))
    .sealed();
    let live = json!({"metadata": service.body["metadata"], "spec": {
    "clusterIP": "None", "clusterIPs": ["None"], "sessionAffinity": "None",
    "ports": [
        {"name": "tcp", "port": 53, "protocol": "TCP", "targetPort": "grpc"},
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
    ]}});
    assert_eq!(differs(&service, &live), None);
    let mut changed = live;
    changed["spec"]["ports"][0]["targetPort"] = json!(53);
    assert_eq!(
        differs(&service, &changed).map(|found| found.path).as_deref(),
        Some("spec.ports[53].targetPort")
    );
}

// What the apiserver rounds up when it stores it would be written again in every pass.
#[test]
fn resources_are_compared_as_they_are_stored() {
    let of = |cpu: &str| json!({"limits": {"cpu": cpu, "memory": "0.5"}, "requests": {"cpu": "0.25"}});
    let wanted = child(json!({"metadata": {"name": "x"}, "spec": {"resources": of("100u")}})).sealed();
    let live = |cpu: &str| {
        let metadata = wanted.body["metadata"].clone();
        let resources = json!({"limits": {"cpu": cpu, "memory": "500m"}, "requests": {"cpu": "250m"}});
        json!({"metadata": metadata, "spec": {"resources": resources}})
    };
    assert_eq!(differs(&wanted, &live("1m")), None);
    assert!(differs(&wanted, &live("2m")).is_some());
}
