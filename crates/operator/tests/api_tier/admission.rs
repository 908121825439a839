//! What the apiserver refuses before anything is stored: every classic mistake with `kubectl apply`, each with a message
//! that names the field and the repair.

use flowctl_testkit::Error;
use serde_json::{Value, json};

use crate::{
    kubectl::apply,
    objects::{pipeline, processor},
    support::in_namespace,
};

/// A mistake: what it is, an object with it, and what the message must hold.
type Mistake = (&'static str, Value, &'static [&'static str]);

/// A processor with this at this place of its spec; null: without it.
fn with(path: &str, value: Value) -> Value {
    put(processor("x", "Processor"), path, value)
}

/// A Pipeline with this at this place of its spec.
fn flow(path: &str, value: Value) -> Value {
    put(pipeline("x"), path, value)
}

fn put(mut object: Value, path: &str, value: Value) -> Value {
    let mut place = &mut object["spec"];
    for part in path.split('.') {
        place = match part.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[part],
        };
    }
    *place = value;
    object
}

fn named(mut object: Value, name: &str) -> Value {
    object["metadata"]["name"] = json!(name);
    object
}

fn of_processors() -> Vec<Mistake> {
    let external = json!({"endpoint": "plugins.internal:9002"});
    let mut elsewhere = with("external", external.clone());
    if let Some(spec) = elsewhere["spec"].as_object_mut() {
        spec.remove("workload");
    }
    let mut scheme = put(
        elsewhere.clone(),
        "external.endpoint",
        json!("https://plugins.internal:9002"),
    );
    if let Some(spec) = scheme["spec"].as_object_mut() {
        spec.remove("port");
    }
    let mut no_port = processor("x", "Processor");
    if let Some(spec) = no_port["spec"].as_object_mut() {
        spec.remove("port");
    }
    vec![
        (
            "port 0",
            with("port", json!(0)),
            &["spec.port", "greater than or equal to 1"],
        ),
        ("no port", no_port, &["spec.port", "port is required: the gRPC port"]),
        (
            "workload and external together",
            with("external", external),
            &["spec", "exactly one of `workload`", "and `external`", "must be set"],
        ),
        (
            "a port beside external",
            elsewhere,
            &["spec.port", "its endpoint carries the port"],
        ),
        (
            "a scheme",
            scheme,
            &["spec.external.endpoint", "host:port without a scheme"],
        ),
        (
            "a name of 60 characters",
            named(processor("x", "Processor"), &"x".repeat(60)),
            &["the name must be a DNS-1035 label of at most 48 characters"],
        ),
        (
            "a name with a dot",
            named(processor("x", "Processor"), "with.dot"),
            &["the name must be a DNS-1035 label", "a-z, 0-9 and '-'"],
        ),
        (
            "a name that begins with a digit",
            named(processor("x", "Processor"), "1st"),
            &["the name must be a DNS-1035 label", "a letter first"],
        ),
        (
            "env twice",
            with(
                "workload.env",
                json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
            ),
            &["spec.workload.env[1]", "Duplicate value", "\"A\""],
        ),
        (
            "replicas below zero",
            with("workload.replicas", json!(-1)),
            &["spec.workload.replicas", "greater than or equal to 0"],
        ),
        (
            "replicas without end",
            with("workload.replicas", json!(1001)),
            &["spec.workload.replicas", "less than or equal to 1000"],
        ),
        (
            "an empty image",
            with("workload.image", json!("")),
            &["spec.workload.image", "at least 1 chars long"],
        ),
        (
            "no image",
            with("workload", json!({"replicas": 1})),
            &["spec.workload.image", "image is required"],
        ),
        (
            "a role in small letters",
            with("role", json!("processor")),
            &["spec.role", "Unsupported value: \"processor\"", "\"Processor\""],
        ),
        (
            "an unknown protocol",
            with("protocol", json!("pipeline.v2")),
            &["spec.protocol", "Unsupported value", "\"pipeline.v1\""],
        ),
        (
            "a mistyped field",
            with("workload.imge", json!("x:1")),
            &["unknown field \"spec.workload.imge\""],
        ),
        (
            "replicas in the wrong place",
            with("replicas", json!(2)),
            &["unknown field \"spec.replicas\""],
        ),
        (
            "a text for a number",
            with("port", json!("50051")),
            &["spec.port", "must be of type integer"],
        ),
        (
            "two probes",
            with("probe", json!({"grpc": {}, "tcp": {}})),
            &["spec.probe", "exactly one of grpc, http and tcp"],
        ),
        (
            "the gRPC port once more",
            with("extraPorts", json!([{"name": "flight", "port": 50051}])),
            &["spec.extraPorts", "is the gRPC port"],
        ),
        (
            "a port twice",
            with(
                "extraPorts",
                json!([{"name": "a", "port": 1}, {"name": "b", "port": 1}]),
            ),
            &["spec.extraPorts", "must differ"],
        ),
        (
            "a port's name that is ours",
            with("extraPorts", json!([{"name": "grpc", "port": 1}])),
            &["spec.extraPorts[0].name", "is not `grpc`"],
        ),
        (
            "a variable with a hyphen",
            with(
                "connections",
                json!([{"env": "MY-VAR", "processorRef": {"name": "ttp"}}]),
            ),
            &["spec.connections[0].env", "letters, digits and '_'"],
        ),
        (
            "a shared id without an id",
            with("heartbeat", json!({"identity": "Shared"})),
            &["spec.heartbeat.componentId", "required with identity Shared"],
        ),
        (
            "stale after less than three beats",
            with("heartbeat", json!({"intervalSeconds": 20, "staleAfterSeconds": 30})),
            &[
                "spec.heartbeat.staleAfterSeconds",
                "at least three times intervalSeconds",
            ],
        ),
        (
            "tls that says nothing",
            with("tls", json!({})),
            &["spec.tls", "set secretName", "or caBundle"],
        ),
        (
            "a control plane as a URL",
            with("controlPlane", json!({"endpoint": "http://flowctl:8080"})),
            &["spec.controlPlane.endpoint", "host:port without a scheme"],
        ),
    ]
}

fn of_pipelines() -> Vec<Mistake> {
    let both = json!({"type": "LedgerReader", "processorRef": {"name": "ttp"}});
    vec![
        (
            "an endpoint beside processorRef",
            flow("processors.1.config", json!({"endpoint": "risk.example.com:443"})),
            &["spec.processors[1].config.endpoint", "remove one of the two"],
        ),
        (
            "an endpoint beside a consumer's processorRef",
            flow("consumers.0.config", json!({"endpoint": "risk.example.com:443"})),
            &["spec.consumers[0].config.endpoint", "remove one of the two"],
        ),
        (
            "a step that is both",
            flow("processors.0", both),
            &["spec.processors[0]", "exactly one of `type`", "`processorRef`"],
        ),
        (
            "a step that is nothing",
            flow("processors.0", json!({"name": "nothing"})),
            &["spec.processors[0]", "exactly one of `type`", "`processorRef`"],
        ),
        (
            "no consumer",
            flow("consumers", json!([])),
            &["spec.consumers", "should have at least 1 items"],
        ),
        (
            "no source",
            flow("source", Value::Null),
            &["spec.source", "Required value"],
        ),
        (
            "a mode in small letters",
            flow("mode", json!("batch")),
            &["spec.mode", "Unsupported value: \"batch\"", "\"Batch\""],
        ),
        (
            "batch without its mode",
            flow("batch", json!({"backoffLimit": 1})),
            &["spec.batch", "only used with mode: Batch"],
        ),
        (
            "a strategy for a batch run",
            put(flow("mode", json!("Batch")), "strategy", json!({"type": "Recreate"})),
            &["spec.strategy", "only used with mode: Streaming"],
        ),
        (
            "bounds beside Recreate",
            flow(
                "strategy",
                json!({"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),
            ),
            &["spec.strategy.rollingUpdate", "only used with type: RollingUpdate"],
        ),
        (
            "two checkpoints",
            flow("checkpoint", json!({"claimName": "a", "emptyDir": {}})),
            &["spec.checkpoint", "exactly one of claimName and emptyDir"],
        ),
        (
            "the Go binary without a command",
            flow("runtime", json!({"flavor": "Cdp", "image": "cdp:1"})),
            &["spec.runtime", "flavor Cdp needs image and command"],
        ),
        (
            "a mistyped field",
            flow("runtime", json!({"resource": {}})),
            &["unknown field \"spec.runtime.resource\""],
        ),
        (
            "a mistyped reference",
            flow("processors.1", json!({"processorref": {"name": "ttp"}})),
            &["unknown field \"spec.processors[1].processorref\""],
        ),
        (
            "a text for a switch",
            flow("suspend", json!("yes")),
            &["spec.suspend", "must be of type boolean"],
        ),
        (
            "a name that is too long for a Service",
            named(pipeline("x"), &"x".repeat(49)),
            &["the name must be a DNS-1035 label of at most 48 characters"],
        ),
    ]
}

// A mistake that is stored is found out of working hours; one that is refused is mended by the person who made it.
#[test]
fn mistakes_are_refused_with_the_field_and_the_repair() {
    in_namespace("mistakes", async |place| {
        // What the mistakes are made in is right.
        for right in [processor("x", "Processor"), pipeline("x")] {
            apply(&place, &right, &["--dry-run=server"]).await?;
        }
        let mut bad = Vec::new();
        for (what, object, words) in of_processors().into_iter().chain(of_pipelines()) {
            match refusal(apply(&place, &object, &[]).await)? {
                None => bad.push(format!("{what}: accepted")),
                Some(said) => bad.extend(lacks(what, &said, words)),
            }
        }
        assert!(bad.is_empty(), "{}", bad.join("\n\n"));
        Ok(())
    });
}

// A processor that changes its role under running pipelines would break them without a word.
#[test]
fn what_cannot_change_is_refused_with_a_way_out() {
    in_namespace("immutable", async |place| {
        apply(&place, &processor("x", "Processor"), &[]).await?;
        for flags in [&[][..], &["--server-side", "--force-conflicts"]] {
            let said = refusal(apply(&place, &processor("x", "Consumer"), flags).await)?.unwrap_or_default();
            let words = ["spec.role", "role cannot be changed; create another ExternalProcessor"];
            assert_eq!(lacks("role", &said, &words), None);
        }
        Ok(())
    });
}

/// What kubectl said, when it was refused.
fn refusal(answer: Result<String, Error>) -> Result<Option<String>, Error> {
    match answer {
        Ok(_) => Ok(None),
        Err(Error::Command { said, .. }) => Ok(Some(said)),
        Err(other) => Err(other),
    }
}

fn lacks(what: &str, said: &str, words: &[&str]) -> Option<String> {
    let missing: Vec<_> = words.iter().filter(|word| !said.contains(**word)).collect();
    (!missing.is_empty()).then(|| format!("{what}: {missing:?} is not in: {said}"))
}
