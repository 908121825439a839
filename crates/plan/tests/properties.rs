//! What holds for every plan, over generated objects.

#![allow(clippy::unwrap_used, reason = "a fixture that cannot be made fails its test")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_plan::{Child, ChildKind, PipelineObserved, Plan, pipeline};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    batch::v1::Job,
    core::v1::{ConfigMap, Service},
    policy::v1::PodDisruptionBudget,
};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use support::{World, settings, sink, ttp, xproc};

/// Stands in every value that only a Secret or the environment may hold.
const SECRET: &str = "hunter2";

fn config_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "yes",
            "on",
            "0123",
            "1_000",
            "1e3",
            "~",
            "null",
            "2024-01-01",
            "- x",
            "a: b",
            "é\n\nü",
            "${NAME}",
            "$${x"
        ])
        .prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,8}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn config() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-z_]{1,10}", config_value(), 0..4).prop_map(|map| {
        let written = ["endpoint", "protocol", "tls"];
        Value::Object(
            map.into_iter()
                .filter(|(key, _)| !written.contains(&key.as_str()))
                .collect(),
        )
    })
}

fn name() -> impl Strategy<Value = String> {
    "[a-z]([-a-z0-9]{0,46}[a-z0-9])?"
}

/// Pipelines that are accepted, with an image of their own (so that any step type is).
fn pipeline_spec() -> impl Strategy<Value = (String, String, Value)> {
    let steps = prop::collection::vec(config(), 1..4);
    (name(), "[a-z]([-a-z0-9]{0,61}[a-z0-9])?", steps, any::<[bool; 5]>(), "[a-z]{0,8}").prop_map(
        |(name, namespace, configs, [batch, suspend, cdp, checkpoint, template], label)| {
            let types = configs.iter().enumerate();
            let mut processors: Vec<Value> =
                types.map(|(index, config)| json!({"type": "Any", "name": format!("step {index}"), "config": config})).collect();
            if !cdp {
                processors.push(json!({"processorRef": {"name": "ttp-processor", "namespace": "stellar"}, "config": configs[0]}));
            }
            let mut spec = json!({
                "mode": if batch { "Batch" } else { "Streaming" },
                "source": {"type": "From", "config": configs[0]},
                "processors": processors,
                "consumers": [{"type": "To"}],
                "runtime": {
                    "flavor": if cdp { "Cdp" } else { "Runner" },
                    "image": "own:1",
                    "command": ["/run"],
                    "env": [
                        {"name": "PLAIN", "value": SECRET},
                        {"name": "POD_NAME", "value": SECRET},
                        {"name": "REF", "valueFrom": {"secretKeyRef": {"name": SECRET, "key": SECRET}}},
                    ],
                    "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "secret": {"secretName": SECRET}}],
                },
                "suspend": suspend,
                "restartedAt": label,
            });
            if checkpoint {
                spec["checkpoint"] = json!({"claimName": "c"});
            }
            if template {
                spec["runtime"]["podTemplate"] = json!({"metadata": {"labels": {"team": "x"}}, "spec": {"nodeSelector": {"a": "b"}, "tolerations": []}});
            }
            (name, namespace, spec)
        },
    )
}

fn build<T: DeserializeOwned>(kind: &str, name: &str, namespace: &str, spec: &Value) -> T {
    let metadata = json!({"name": name, "namespace": namespace, "uid": "u", "generation": 1});
    serde_json::from_value(
        json!({"apiVersion": "flowctl.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}),
    )
    .unwrap()
}

fn world(namespace: &str) -> World {
    let mut ttp = ttp();
    ttp.spec.allowed_namespaces = serde_json::from_value(json!({"names": [namespace]})).unwrap();
    World::with([ttp, sink()])
}

fn check_children(plan: &Plan) {
    for child in &plan.present {
        let name = &child.id.name;
        assert!(name.len() <= 63 && !name.is_empty(), "{name}");
        assert_eq!(child.body["metadata"]["name"], *name);
        assert_no_empties(&child.body, "");
        round_trip(child);
        for (key, value) in child.body["metadata"]["labels"].as_object().unwrap() {
            assert!(value.as_str().unwrap().len() <= 63, "{key}: {value}");
        }
        if matches!(child.id.kind, ChildKind::Deployment) {
            let selector = child.body["spec"]["selector"]["matchLabels"].as_object().unwrap();
            let labels = child.body["spec"]["template"]["metadata"]["labels"]
                .as_object()
                .unwrap();
            for (key, value) in selector {
                assert_eq!(
                    labels.get(key),
                    Some(value),
                    "the selector is not within the template's labels"
                );
            }
        }
    }
}

/// An empty list or map in an apply takes two writes to be rid of.
fn assert_no_empties(value: &Value, path: &str) {
    match value {
        Value::Null => panic!("null at {path}"),
        Value::Array(items) => {
            assert!(!items.is_empty(), "[] at {path}");
            items.iter().for_each(|item| assert_no_empties(item, path));
        }
        Value::Object(map) => {
            let may = ["emptyDir", "labelSelector", "namespaceSelector"]
                .iter()
                .any(|key| path.ends_with(key));
            assert!(!map.is_empty() || may, "{{}} at {path}");
            map.iter()
                .for_each(|(key, item)| assert_no_empties(item, &format!("{path}.{key}")));
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A field that Kubernetes does not know would be dropped in silence.
fn round_trip(child: &Child) {
    fn through<T: DeserializeOwned + Serialize>(value: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<T>(value.clone()).unwrap()).unwrap()
    }
    let typed = match child.id.kind {
        ChildKind::ConfigMap => through::<ConfigMap>(&child.body),
        ChildKind::ControllerRevision => through::<ControllerRevision>(&child.body),
        ChildKind::Service => through::<Service>(&child.body),
        ChildKind::PodDisruptionBudget => through::<PodDisruptionBudget>(&child.body),
        ChildKind::Deployment => through::<Deployment>(&child.body),
        ChildKind::Job => through::<Job>(&child.body),
    };
    assert_eq!(typed, child.body, "{}", child.id);
}

/// The same value with the keys of every map in the opposite order.
fn reversed(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .rev()
            .map(|(key, inner)| (key.clone(), reversed(inner)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(reversed).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// A plan that differs from pass to pass would never converge; one that cannot be applied would never start.
    #[test]
    fn plans_of_pipelines((name, namespace, spec) in pipeline_spec()) {
        let object: Pipeline = build("Pipeline", &name, &namespace, &spec);
        let mut world = world(&namespace);
        let plan = world.plan(&object);
        prop_assert_eq!(support::problems(&plan), Vec::<String>::new());
        check_children(&plan);

        // Determinism, and no dependence on the order of keys.
        prop_assert_eq!(&world.plan(&object), &plan);
        let shuffled: Pipeline = build("Pipeline", &name, &namespace, &reversed(&spec));
        prop_assert_eq!(&world.plan(&shuffled), &plan);

        // Nor on the order of live children, nor on the instant.
        world.pass(&object);
        let mut restarted = object.clone();
        restarted.spec.restarted_at = Some("another".to_owned());
        world.pass(&restarted);
        let expected = world.plan(&object);
        world.children.revisions.reverse();
        world.children.config_maps.reverse();
        world.children.replica_sets.reverse();
        prop_assert_eq!(&world.plan(&object), &expected);
        let mut later = object.clone();
        later.status.clone_from(&world.status);
        let later = pipeline::plan(&PipelineObserved {
            object: Arc::new(later),
            processors: world.processors.clone(),
            unread: world.unread.clone(),
            children: world.children.clone(),
            heartbeats: flowctl_plan::heartbeat::Heartbeats::NotRead,
            settings: Arc::new(settings()),
            now: "2030-01-01T00:00:00Z".parse().unwrap(),
        });
        prop_assert_eq!(&later, &expected);
    }

    /// A secret would be readable by everyone who may read ConfigMaps (R10), or the runner would run another pipeline.
    #[test]
    fn files_of_pipelines((name, namespace, spec) in pipeline_spec()) {
        let object: Pipeline = build("Pipeline", &name, &namespace, &spec);
        let plan = world(&namespace).plan(&object);
        let files = &support::only(&plan, ChildKind::ConfigMap)["data"];
        prop_assert!(!files.to_string().contains(SECRET));
        let text = files["pipeline.yaml"].as_str().unwrap();
        let read = flowctl_pipeline::read(text).unwrap();
        prop_assert_eq!(&read.key, &format!("{namespace}.{name}"));
        prop_assert_eq!(flowctl_pipeline::write(&read), text);
        for (step, config) in read.processors.iter().zip(object.spec.processors.iter().map(|step| step.config.clone().unwrap_or_default())) {
            for (key, value) in config {
                prop_assert_eq!(step.config.get(&key), Some(&value), "{}", key);
            }
        }
    }

    /// As above, for processors.
    #[test]
    fn plans_of_processors(
        name in name(),
        namespace in "[a-z]([-a-z0-9]{0,61}[a-z0-9])?",
        replicas in 0..5,
        port in 1..=65535,
        flags in any::<[bool; 4]>(),
    ) {
        let [suspend, tls, extra, shared] = flags;
        let mut spec = json!({"role": "Processor", "workload": {"image": "x:1", "replicas": replicas}, "port": port, "suspend": suspend});
        if tls {
            spec["tls"] = json!({"secretName": "s", "clientAuth": "Required"});
        }
        if extra {
            spec["extraPorts"] = json!([{"name": "a", "port": if port == 1 { 2 } else { 1 }}]);
        }
        if shared {
            spec["heartbeat"] = json!({"identity": "Shared", "componentId": "c"});
        }
        let object: ExternalProcessor = build("ExternalProcessor", &name, &namespace, &spec);
        let mut world = World::usual();
        let plan = world.plan_processor(&object);
        prop_assert_eq!(support::problems(&plan), Vec::<String>::new());
        check_children(&plan);
        world.pass_processor(&object);
        prop_assert_eq!(&world.plan_processor(&object).present, &plan.present);
        let deployment = &support::only(&plan, ChildKind::Deployment)["spec"];
        prop_assert_eq!(&deployment["replicas"], &json!(if suspend { 0 } else { replicas }));
        prop_assert_eq!(support::has(&plan, ChildKind::PodDisruptionBudget), !suspend && replicas > 1);
        let main = &deployment["template"]["spec"]["containers"][0];
        prop_assert!(main.get("livenessProbe").is_none() && main.get("startupProbe").is_none());
        let wanted = format!("{name}-processor-pods.{namespace}.svc.cluster.local:{port}");
        prop_assert_eq!(plan.wiring.endpoint, Some(wanted));
    }
}

/// Revisions of a Pipeline and of an ExternalProcessor with one name would fight over one object.
#[test]
fn children_of_the_two_kinds_never_share_a_name() {
    let spec = "source: {type: From}\nconsumers: [{type: To}]\nruntime: {image: 'x:1'}";
    let pipeline = World::usual().plan(&support::fpl("same", spec));
    let processor = World::usual().plan_processor(&xproc("same", "role: Processor\nworkload: {image: 'x:1'}\nport: 1"));
    let mut seen = BTreeMap::new();
    for child in pipeline.present.iter().chain(&processor.present) {
        assert!(seen.insert(child.id.clone(), ()).is_none(), "{}", child.id);
    }
}
