//! The CEL rules, evaluated as an apiserver would: what is refused at once, with a message that says what to change.

use serde_json::{Value, json};

use crate::{ExternalProcessor, Pipeline};

/// The object with one place changed; `Null` takes the place away.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let fields = object
        .pointer_mut(parent)
        .and_then(Value::as_object_mut)
        .expect("an object");
    match value {
        Value::Null => drop(fields.shift_remove(key)),
        value => drop(fields.insert(key.to_owned(), value)),
    }
    object
}

fn processor() -> Value {
    json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor",
        "metadata": {"name": "ttp-processor", "namespace": "stellar"},
        "spec": {"role": "Processor", "port": 50051, "workload": {"image": "ttp-processor:v1.0"}},
    })
}

fn elsewhere(endpoint: &str) -> Value {
    let object = with(processor(), "/spec/external", json!({"endpoint": endpoint}));
    with(with(object, "/spec/workload", Value::Null), "/spec/port", Value::Null)
}

fn pipeline() -> Value {
    json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline",
        "metadata": {"name": "payments", "namespace": "stellar"},
        "spec": {
            "source": {"type": "BufferedStorageSourceAdapter", "config": {"path": "/ledgers"}},
            "processors": [{"processorRef": {"name": "ttp"}, "config": {"timeout": "30s"}}],
            "consumers": [{"type": "StdoutConsumer"}],
        },
    })
}

/// The messages of the rules that an object breaks.
fn refusals(object: &Value) -> Vec<String> {
    fn read<K: serde::de::DeserializeOwned>(object: &Value) -> K {
        serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"))
    }
    let result = match object["kind"].as_str() {
        Some("Pipeline") => read::<Pipeline>(object).validate_cel(),
        _ => read::<ExternalProcessor>(object).validate_cel(),
    };
    match result {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

fn accepted(object: &Value) {
    let refusals = refusals(object);
    assert!(refusals.is_empty(), "{refusals:?}: {object}");
}

fn refused(object: &Value, with_words: &str) {
    let refusals = refusals(object);
    assert!(
        refusals.iter().any(|message| message.contains(with_words)),
        "{with_words:?} is not in {refusals:?}: {object}"
    );
}

#[test]
fn the_documented_shapes_are_accepted() {
    accepted(&processor());
    accepted(&elsewhere("plugins.internal:9002"));
    accepted(&elsewhere("[2001:db8::1]:9002"));
    accepted(&pipeline());
    let ports = json!([{"name": "flight", "port": 8816}, {"name": "metrics", "port": 9090}]);
    accepted(&with(processor(), "/spec/extraPorts", ports));
    for probe in [json!({"grpc": {}}), json!({"http": {"port": 8080}}), json!({"tcp": {}})] {
        accepted(&with(processor(), "/spec/probe", probe));
    }
    accepted(&with(
        processor(),
        "/spec/heartbeat",
        json!({"identity": "Shared", "componentId": "ttp", "intervalSeconds": 5, "staleAfterSeconds": 15}),
    ));
    accepted(&with(
        processor(),
        "/spec/controlPlane",
        json!({"endpoint": "flowctl.flowctl-system:8080"}),
    ));
    accepted(&with(
        processor(),
        "/spec/connections",
        json!([{"env": "SOURCE_ADDRESS", "processorRef": {"name": "live"}}]),
    ));
    accepted(&with(
        pipeline(),
        "/spec/strategy",
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}}),
    ));
    accepted(&with(pipeline(), "/spec/checkpoint", json!({"emptyDir": {}})));
    let batch = with(pipeline(), "/spec/mode", json!("Batch"));
    accepted(&with(batch, "/spec/batch", json!({"backoffLimit": 0})));
    accepted(&with(
        pipeline(),
        "/spec/runtime",
        json!({"flavor": "Cdp", "image": "cdp:1", "command": ["/app/cdp"]}),
    ));
    let by_hand = json!([{"type": "ExternalProcessor", "config": {"endpoint": "risk.example.com:443"}}]);
    accepted(&with(pipeline(), "/spec/processors", by_hand));
}

// Services are named after the object: a longer name would fail later, and far from where it was written.
#[test]
fn names_that_no_service_can_have_are_refused() {
    for name in [
        "a".repeat(49),
        "a".repeat(60),
        "ttp.processor".to_owned(),
        "1st".to_owned(),
        "ttp-".to_owned(),
        "TTP".to_owned(),
    ] {
        for object in [processor(), pipeline()] {
            refused(
                &with(object, "/metadata/name", json!(name)),
                "DNS-1035 label of at most 48",
            );
        }
    }
    for name in ["a".repeat(48), "a".to_owned(), "ttp-2".to_owned()] {
        accepted(&with(processor(), "/metadata/name", json!(name)));
    }
}

#[test]
fn a_processor_runs_here_or_elsewhere() {
    refused(
        &with(processor(), "/spec/external", json!({"endpoint": "x:1"})),
        "exactly one of `workload`",
    );
    refused(
        &with(
            with(processor(), "/spec/workload", Value::Null),
            "/spec/port",
            Value::Null,
        ),
        "exactly one of `workload`",
    );
    refused(&with(processor(), "/spec/port", Value::Null), "port is required");
    refused(
        &with(elsewhere("x:1"), "/spec/port", json!(50051)),
        "port is not used with `external`",
    );
    refused(
        &with(processor(), "/spec/workload/image", Value::Null),
        "image is required",
    );
    for endpoint in ["http://x:1", "x", "x:", "x:123456", ":9002", "x:1/path", "-x:1"] {
        refused(&elsewhere(endpoint), "host:port without a scheme");
    }
}

#[test]
fn ports_are_told_apart() {
    let extra = |ports| with(processor(), "/spec/extraPorts", ports);
    refused(&extra(json!([{"name": "flight", "port": 50051}])), "is the gRPC port");
    refused(
        &extra(json!([{"name": "a", "port": 8816}, {"name": "b", "port": 8816}])),
        "must differ",
    );
    for name in ["grpc", "Flight", "-a", "123"] {
        refused(&extra(json!([{"name": name, "port": 8816}])), "a port name has");
    }
}

#[test]
fn exactly_one_probe() {
    refused(
        &with(processor(), "/spec/probe", json!({})),
        "exactly one of grpc, http and tcp",
    );
    refused(
        &with(processor(), "/spec/probe", json!({"tcp": {}, "grpc": {}})),
        "exactly one of grpc, http and tcp",
    );
}

#[test]
fn heartbeats_are_consistent() {
    for object in [processor(), pipeline()] {
        let heartbeat = |value| with(object.clone(), "/spec/heartbeat", value);
        refused(&heartbeat(json!({"staleAfterSeconds": 29})), "at least three times");
        accepted(&heartbeat(json!({"staleAfterSeconds": 30})));
        refused(
            &heartbeat(json!({"intervalSeconds": 20, "staleAfterSeconds": 59})),
            "at least three times",
        );
        refused(
            &heartbeat(json!({"componentId": "ttp"})),
            "componentId is required with identity Shared",
        );
        refused(
            &heartbeat(json!({"identity": "Shared"})),
            "componentId is required with identity Shared",
        );
        refused(
            &with(
                object.clone(),
                "/spec/controlPlane",
                json!({"endpoint": "http://flowctl:8080"}),
            ),
            "without a scheme",
        );
    }
}

#[test]
fn what_would_be_ignored_is_refused() {
    refused(
        &with(processor(), "/spec/tls", json!({"clientAuth": "Required"})),
        "set secretName",
    );
    refused(
        &with(
            processor(),
            "/spec/connections",
            json!([{"env": "1ST", "processorRef": {"name": "live"}}]),
        ),
        "environment variable",
    );
    refused(
        &with(pipeline(), "/spec/batch", json!({"backoffLimit": 1})),
        "only used with mode: Batch",
    );
    let batch = with(pipeline(), "/spec/mode", json!("Batch"));
    refused(
        &with(batch, "/spec/strategy", json!({"type": "Recreate"})),
        "only used with mode: Streaming",
    );
    refused(
        &with(pipeline(), "/spec/strategy", json!({"rollingUpdate": {"maxSurge": 1}})),
        "only used with type: RollingUpdate",
    );
}

#[test]
fn a_step_has_one_kind_and_one_endpoint() {
    let step = |step| with(pipeline(), "/spec/processors", json!([step]));
    refused(
        &step(json!({"type": "LedgerReader", "processorRef": {"name": "ttp"}})),
        "exactly one of `type`",
    );
    refused(&step(json!({"name": "x"})), "exactly one of `type`");
    let both = json!({"processorRef": {"name": "ttp"}, "config": {"endpoint": "x:1"}});
    refused(&step(both), "config.endpoint is written by the operator");
    refused(
        &with(pipeline(), "/spec/consumers", json!([{}])),
        "exactly one of `type`",
    );
    refused(&with(pipeline(), "/spec/source", json!({})), "exactly one of `type`");
}

#[test]
fn progress_is_kept_in_one_place() {
    refused(
        &with(pipeline(), "/spec/checkpoint", json!({})),
        "exactly one of claimName and emptyDir",
    );
    refused(
        &with(
            pipeline(),
            "/spec/checkpoint",
            json!({"claimName": "c", "emptyDir": {}}),
        ),
        "exactly one of claimName and emptyDir",
    );
}

#[test]
fn the_go_binary_needs_an_image_and_a_command() {
    for runtime in [
        json!({"flavor": "Cdp"}),
        json!({"flavor": "Cdp", "image": "cdp:1"}),
        json!({"flavor": "Cdp", "command": ["/app/cdp"]}),
    ] {
        refused(
            &with(pipeline(), "/spec/runtime", runtime),
            "flavor Cdp needs image and command",
        );
    }
}

// The wired endpoint, and what callers expect behind it, depend on the role.
#[test]
fn a_role_stays() {
    let read = |object| serde_json::from_value::<ExternalProcessor>(object).expect("an object");
    let old = read(processor());
    assert!(
        read(with(processor(), "/spec/port", json!(1)))
            .validate_cel_update(&old)
            .is_ok()
    );
    let error = read(with(processor(), "/spec/role", json!("Consumer")))
        .validate_cel_update(&old)
        .expect_err("refused");
    assert!(error.to_string().contains("role cannot be changed"), "{error}");
}
