//! What only the operator can see is told on the object within seconds, with the field and the repair.

use std::time::{Duration, Instant};

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_testkit::Error;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::{
    objects::{nothing_was_forbidden, pipeline, processor},
    support::{Place, Subject, TestResult, in_namespace},
};

/// An answer that comes later is looked for elsewhere.
const SOON: Duration = Duration::from_secs(5);
/// 1.2 MiB: with it an object is about as large as etcd takes it.
const LARGE: usize = 1_258_291;

/// The condition, its reason, and words of its message.
type Answer = (&'static str, &'static str, &'static [&'static str]);

/// Applies an object, and expects the answer in time.
async fn answered<K: Subject>(place: &Place, object: Value, (condition, reason, words): Answer) -> TestResult {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    place.apply(object).await?;
    let since = Instant::now();
    let status = place.condition::<K>(&name, condition, "False", reason).await?;
    let took = since.elapsed();
    println!("{name}: {reason} after {} ms", took.as_millis());
    assert!(took < SOON, "{name} was answered after {took:?}");
    let said = status.conditions.iter().find(|said| said.type_ == condition);
    let said = said.map(|said| said.message.as_str()).unwrap_or_default();
    for word in words {
        assert!(said.contains(word), "{name}: {word:?} is not in: {said}");
    }
    assert!(
        status.why.starts_with(reason),
        "{name}: `why` tells something else: {}",
        status.why
    );
    Ok(())
}

fn broken(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut object = processor(name, "Processor");
    change(&mut object["spec"]);
    object
}

fn flow(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut object = pipeline(name);
    change(&mut object["spec"]);
    object
}

// Whoever applies a wrong object looks at it once. What is not said then is looked for in logs and pods.
#[test]
fn a_wrong_pipeline_is_answered_in_time() {
    in_namespace("answers", async |place| {
        let operator = place.operator().await?;
        for (name, role) in [("ttp", "Processor"), ("sink", "Consumer")] {
            place.apply(processor(name, role)).await?;
            place.ready::<ExternalProcessor>(name).await?;
        }
        let foreign = broken("other-speech", |spec| spec["protocol"] = json!("flowctl.v1"));
        place.apply(foreign).await?;
        let guarded = broken("guarded", |spec| {
            let bundle = "-----BEGIN CERTIFICATE-----\nMAo=\n-----END CERTIFICATE-----\n";
            spec["tls"] = json!({"secretName": "guarded", "caBundle": bundle, "clientAuth": "Required"});
        });
        place.apply(guarded).await?;
        let cases: Vec<(Value, Answer)> = vec![
            (
                flow("role", |spec| {
                    spec["processors"][1]["processorRef"]["name"] = json!("sink")
                }),
                (
                    "ResolvedRefs",
                    "RoleMismatch",
                    &[
                        "spec.processors[1].processorRef",
                        "needs role Processor",
                        "refer to another one",
                    ],
                ),
            ),
            (
                flow("speech", |spec| {
                    spec["processors"][1]["processorRef"]["name"] = json!("other-speech");
                }),
                (
                    "ResolvedRefs",
                    "ProtocolMismatch",
                    &["spec.processors[1].processorRef", "speaks flowctl.v1", "is pipeline.v1"],
                ),
            ),
            (
                flow("certificate", |spec| {
                    spec["processors"][1]["processorRef"]["name"] = json!("guarded");
                }),
                (
                    "ResolvedRefs",
                    "ProtocolMismatch",
                    &["spec.runtime.clientTls", "set clientTls.secretName"],
                ),
            ),
            (
                flow("large", |spec| {
                    spec["processors"][0]["config"]["note"] = json!("x".repeat(LARGE))
                }),
                (
                    "Accepted",
                    "ConfigTooLarge",
                    &[
                        "spec.processors[0].config",
                        "a ConfigMap takes 1048576",
                        "move large values of config into files",
                    ],
                ),
            ),
            (
                flow("step", |spec| spec["processors"][0]["type"] = json!("LedgerReeder")),
                (
                    "Accepted",
                    "Invalid",
                    &["spec.processors[0].type", "did you mean \"LedgerReader\"?"],
                ),
            ),
            (
                flow("twice", |spec| spec["consumers"][0]["name"] = json!("ttp")),
                (
                    "Accepted",
                    "Invalid",
                    &["spec.consumers[0].name", "give one of the two another name"],
                ),
            ),
            (
                flow("outside", |spec| {
                    spec["controlPlane"] = json!({"endpoint": "flowctl.example.com:443"})
                }),
                ("Accepted", "Invalid", &["spec.controlPlane.endpoint"]),
            ),
            (
                flow("by-hand", |spec| {
                    spec["processors"][1]["config"]["protocol"] = json!("pipeline.v1")
                }),
                (
                    "Accepted",
                    "EndpointConflict",
                    &["spec.processors[1].config.protocol", "remove config.protocol"],
                ),
            ),
            (
                // Everything at once: whoever repairs the first must not meet the second only then.
                flow("everything", |spec| {
                    spec["processors"][1]["processorRef"]["name"] = json!("nobody");
                    spec["runtime"] = json!({
                        "volumes": [{"name": "disk", "hostPath": {"path": "/"}}],
                        "podTemplate": {"spec": {"hostNetwork": true, "tolerationes": []}},
                    });
                }),
                (
                    "Accepted",
                    "PodTemplateRefused",
                    &[
                        "spec.runtime.podTemplate.spec.tolerationes",
                        "did you mean \"tolerations\"?",
                        "spec.runtime.podTemplate.spec.hostNetwork",
                        "spec.runtime.volumes[0].hostPath",
                    ],
                ),
            ),
        ];
        for (object, answer) in cases {
            answered::<Pipeline>(&place, object, answer).await?;
        }
        let status = place
            .condition::<Pipeline>("everything", "ResolvedRefs", "False", "ProcessorNotFoundOrNotGranted")
            .await?;
        assert!(!status.conditions.is_empty());
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

// As above, of what the operator runs itself.
#[test]
fn a_wrong_processor_is_answered_in_time() {
    in_namespace("replies", async |place| {
        let operator = place.operator().await?;
        let cases: Vec<(Value, Answer)> = vec![
            (
                broken("host", |spec| {
                    let volumes = json!([{"name": "disk", "hostPath": {"path": "/"}}]);
                    spec["workload"]["podTemplate"] = json!({"spec": {"volumes": volumes}});
                }),
                (
                    "Accepted",
                    "PodTemplateRefused",
                    &[
                        "spec.workload.podTemplate.spec.volumes[disk].hostPath",
                        "use a persistentVolumeClaim",
                    ],
                ),
            ),
            (
                broken("mistyped", |spec| {
                    spec["workload"]["podTemplate"] = json!({"spec": {"nodeselector": {"disk": "ssd"}}});
                }),
                (
                    "Accepted",
                    "PodTemplateRefused",
                    &[
                        "spec.workload.podTemplate.spec.nodeselector",
                        "did you mean \"nodeSelector\"?",
                    ],
                ),
            ),
            (
                broken("key", |spec| {
                    spec["tls"] = json!({"caBundle": "-----BEGIN PRIVATE KEY-----\n"});
                }),
                (
                    "Accepted",
                    "Invalid",
                    &["spec.tls.caBundle", "keep the certificates only"],
                ),
            ),
            (
                broken("mount", |spec| {
                    spec["workload"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
                    spec["workload"]["volumeMounts"] = json!([{"name": "dat", "mountPath": "/data"}]);
                }),
                (
                    "Accepted",
                    "Invalid",
                    &["spec.workload.volumeMounts[0].name", "did you mean \"data\"?"],
                ),
            ),
            (
                broken("probe", |spec| {
                    spec["probe"] = json!({"grpc": {}});
                    spec["tls"] = json!({"secretName": "probe"});
                }),
                (
                    "Accepted",
                    "Invalid",
                    &["spec.probe.grpc", "use http on another port, or tcp"],
                ),
            ),
            (
                broken("upstream", |spec| {
                    spec["connections"] = json!([{"env": "POD_NAME", "processorRef": {"name": "nobody"}}]);
                }),
                (
                    "Accepted",
                    "Invalid",
                    &["spec.connections[0].env", "choose another name"],
                ),
            ),
        ];
        for (object, answer) in cases {
            answered::<ExternalProcessor>(&place, object, answer).await?;
        }

        let foreign = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken-processor-pods"},
            "spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}},
        });
        place.apply(foreign).await?;
        let before: Service = place.get("taken-processor-pods").await?;
        let answer: Answer = (
            "Available",
            "NameConflict",
            &[
                "Service taken-processor-pods",
                "is not ours",
                "a-user",
                "or give this object another name",
            ],
        );
        answered::<ExternalProcessor>(&place, processor("taken", "Processor"), answer).await?;
        place.settled().await?;
        let after: Service = place.get("taken-processor-pods").await?;
        assert_eq!(after.resource_version(), before.resource_version(), "it was touched");
        assert!(operator_wrote(&place, "taken-processor-pods")?.is_empty());
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

/// What the operator sent to change an object of that name.
fn operator_wrote(place: &Place, name: &str) -> Result<Vec<String>, Error> {
    let all = place.child_writes()?;
    Ok(all
        .into_iter()
        .filter(|write| write.ends_with(&format!(" {name}")))
        .collect())
}
