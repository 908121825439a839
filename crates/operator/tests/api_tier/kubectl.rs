//! The verbs that people know: kubectl, autoscalers, roll-outs.

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_testkit::{Error, wait};
use k8s_openapi::api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler};
use serde_json::{Value, json};

use crate::{
    objects::{nothing_was_forbidden, payments, pipeline, processor, replica_sets},
    support::{LIMIT, Place, TestResult, in_namespace},
};

/// `kubectl apply` in the namespace of the test.
pub(crate) async fn apply(place: &Place, manifest: &Value, flags: &[&str]) -> Result<String, Error> {
    let arguments = [&["--namespace", &place.namespace, "apply", "-f", "-"], flags].concat();
    let cluster = &place.world.cluster;
    cluster.kubectl_input(&arguments, &manifest.to_string()).await
}

async fn has_pods(place: &Place, pods: &str) -> TestResult {
    let what = format!("ttp has {pods} pods");
    wait::until_explained(&what, LIMIT, async || {
        let status = place.ready::<ExternalProcessor>("ttp").await?;
        Ok(match status.pods {
            Some(seen) if seen == pods => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await
}

async fn replicas(place: &Place) -> Result<String, Error> {
    place
        .kubectl(&["get", "xproc/ttp", "-o", "jsonpath={.spec.workload.replicas}"])
        .await
}

// Scripts, pipelines of other tools and people know these verbs; one that does not work, or that is undone, makes the
// kinds second-class objects.
#[test]
fn the_verbs_of_kubectl_work() {
    in_namespace("verbs", async |place| {
        let operator = place.operator().await?;
        apply(&place, &processor("sink", "Consumer"), &[]).await?;
        apply(&place, &processor("ttp", "Processor"), &[]).await?;
        apply(&place, &pipeline("payments"), &[]).await?;
        for object in ["xproc/ttp", "externalprocessor/sink", "fpl/payments"] {
            place
                .kubectl(&["wait", "--for=condition=Ready", object, "--timeout=60s"])
                .await?;
        }
        place.kubectl(&["scale", "xproc/ttp", "--replicas=2"]).await?;
        has_pods(&place, "2/2").await?;
        let scaled = place
            .kubectl(&[
                "get",
                "xproc/ttp",
                "-o",
                "jsonpath={.status.replicas} {.status.selector}",
            ])
            .await?;
        assert_eq!(scaled, "2 flowctl.dev/kind=ExternalProcessor,flowctl.dev/name=ttp");
        shows(&place).await?;
        explains(&place).await?;

        restarts(&place).await?;
        place.kubectl(&["delete", "flowctl", "--all"]).await?;
        wait::until_explained("nothing is left", LIMIT, async || {
            let left = place.children().await?;
            Ok(if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            })
        })
        .await?;
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

/// The words of a table, line by line.
fn table(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

async fn shows(place: &Place) -> TestResult {
    let shown = place.kubectl(&["get", "xproc", "ttp"]).await?;
    let rows = table(&shown);
    assert_eq!(
        rows[0],
        ["NAME", "READY", "HEALTH", "PODS", "BEATS", "ENDPOINT", "USED-BY", "AGE"],
        "{shown}"
    );
    let endpoint = "ttp-processor-pods.verbs.svc.cluster.local:50051";
    // No heartbeats are read, so BEATS is empty.
    assert_eq!(
        rows[1][..6],
        ["ttp", "True", "Unknown", "2/2", endpoint, "1"],
        "{shown}"
    );
    let wide = place.kubectl(&["get", "xproc", "ttp", "-o", "wide"]).await?;
    assert_eq!(table(&wide)[0].last(), Some(&"WHY"), "{wide}");

    let shown = place.kubectl(&["get", "pipelines.flowctl.dev", "payments"]).await?;
    let rows = table(&shown);
    assert_eq!(
        rows[0],
        ["NAME", "READY", "HEALTH", "STEPS", "REVISION", "AGE"],
        "{shown}"
    );
    assert_eq!(rows[1][..4], ["payments", "True", "Unknown", "2/2"], "{shown}");
    assert_eq!(rows[1][4].len(), 10, "a revision: {shown}");
    let wide = place.kubectl(&["get", "fpl", "payments", "-o", "wide"]).await?;
    let rows = table(&wide);
    assert_eq!(rows[0][6..], ["BEATS", "MODE", "VERDICT", "WHY", "IMAGE"], "{wide}");
    // Ready: WHY is empty. No heartbeats are read: BEATS is, too.
    assert_eq!(
        rows[1][6..],
        ["Streaming", "NotConfigured", "flowctl-runner:test"],
        "{wide}"
    );

    let both = place.kubectl(&["get", "flowctl", "-o", "name"]).await?;
    let mut names: Vec<_> = both.lines().collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "externalprocessor.flowctl.dev/sink",
            "externalprocessor.flowctl.dev/ttp",
            "pipeline.flowctl.dev/payments"
        ]
    );
    Ok(())
}

async fn explains(place: &Place) -> TestResult {
    for (field, words) in [
        (
            "xproc",
            "A processor, consumer or ingestor that runs as its own service",
        ),
        (
            "xproc.spec.workload.replicas",
            "Number of pods; autoscalers set it through the scale subresource",
        ),
        ("xproc.spec.tls.caBundle", "PEM certificates that sign the server's"),
        (
            "fpl.spec.processors.processorRef.namespace",
            "Another one needs a grant there",
        ),
        ("fpl.status.why", "The first cause of not being ready"),
    ] {
        let said = place.kubectl(&["explain", field]).await?;
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(words), "{field}: {said}");
    }
    Ok(())
}

/// `kubectl rollout restart` replaces the pods once, and nobody sets it back.
async fn restarts(place: &Place) -> TestResult {
    place.settled().await?;
    let written = place.child_writes()?.len();
    let revision = place.ready::<Pipeline>("payments").await?.revision;
    for deployment in ["deployment/ttp-processor", "deployment/payments-pipeline"] {
        place.kubectl(&["rollout", "restart", deployment]).await?;
        place
            .kubectl(&["rollout", "status", deployment, "--timeout=60s"])
            .await?;
    }
    place.settled().await?;
    assert_eq!(place.child_writes()?.split_off(written), Vec::<String>::new());
    for name in ["ttp-processor", "payments-pipeline"] {
        let path = "jsonpath={.spec.template.metadata.annotations.kubectl\\.kubernetes\\.io/restartedAt}";
        let stamp = place.kubectl(&["get", "deployment", name, "-o", path]).await?;
        assert!(!stamp.is_empty(), "the restart of {name} was undone");
    }
    assert_eq!(replica_sets(place).await?.len(), 2, "one roll-out each");
    assert_eq!(place.ready::<Pipeline>("payments").await?.revision, revision);
    has_pods(place, "2/2").await
}

// An autoscaler and a manifest in Git must not take the number of pods from each other: pods would come and go with every
// sync.
#[test]
fn an_autoscaler_sets_the_number_and_applying_the_manifest_again_does_not() {
    in_namespace("scaled", async |place| {
        let operator = place.operator().await?;
        let manifest = processor("ttp", "Processor");
        assert!(manifest["spec"]["workload"]["replicas"].is_null());
        apply(&place, &manifest, &[]).await?;
        has_pods(&place, "1/1").await?;
        let autoscaler = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "ttp"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor", "name": "ttp"},
                "minReplicas": 3, "maxReplicas": 5,
            },
        });
        apply(&place, &autoscaler, &[]).await?;
        has_pods(&place, "3/3").await?;
        let seen = wait::until("the autoscaler sees them", LIMIT, async || {
            let status = place.get::<HorizontalPodAutoscaler>("ttp").await?.status;
            Ok(status
                .and_then(|status| status.current_replicas)
                .filter(|pods| *pods == 3))
        });
        seen.await?;
        place.settled().await?;

        let generation = async || Ok::<_, Error>(place.get::<ExternalProcessor>("ttp").await?.metadata.generation);
        let before = (generation().await?, place.child_writes()?.len());
        for flags in [&[][..], &["--server-side"], &["--server-side"], &[]] {
            apply(&place, &manifest, flags).await?;
            assert_eq!(replicas(&place).await?, "3", "kubectl apply {flags:?}");
        }
        place.settled().await?;
        let after = (generation().await?, place.child_writes()?.len());
        assert_eq!(after, before, "nothing was asked for, and nothing was written");
        has_pods(&place, "3/3").await?;

        // Suspended and resumed, the number is the same.
        place
            .merge::<ExternalProcessor>("ttp", json!({"spec": {"suspend": true}}))
            .await?;
        let suspended = place.condition::<ExternalProcessor>("ttp", "Available", "True", "Suspended");
        suspended.await?;
        assert_eq!(replicas(&place).await?, "3");
        place
            .merge::<ExternalProcessor>("ttp", json!({"spec": {"suspend": null}}))
            .await?;
        has_pods(&place, "3/3").await?;
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

// A person, or an autoscaler, that scales the Deployment instead of the ExternalProcessor would fight the operator for ever:
// the status must name it and say where the number belongs.
#[test]
fn whoever_scales_the_deployment_instead_is_named() {
    in_namespace("astray", async |place| {
        let operator = place.operator().await?;
        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        place.settled().await?;
        for round in 1..=3 {
            place
                .kubectl(&["scale", "deployment/ttp-processor", "--replicas=4"])
                .await?;
            if round < 3 {
                wait::until("the number is taken back", LIMIT, async || {
                    let deployment: Deployment = place.get("ttp-processor").await?;
                    Ok((deployment.spec.and_then(|spec| spec.replicas) == Some(1)).then_some(()))
                })
                .await?;
            }
        }
        let status = place
            .condition::<ExternalProcessor>("ttp", "Available", "False", "ApplyFailed")
            .await?;
        for words in [
            "Deployment ttp-processor",
            "\"kubectl\"",
            ".spec.replicas",
            "set them in this object's spec",
        ] {
            assert!(status.why.contains(words), "{words}: {}", status.why);
        }
        // Obeying is enough.
        place.kubectl(&["scale", "xproc/ttp", "--replicas=4"]).await?;
        has_pods(&place, "4/4").await?;
        operator.stop().await
    });
}

fn with_strategy(strategy: Value) -> Value {
    let mut object = pipeline("payments");
    object["spec"]["strategy"] = strategy;
    object
}

// The apiserver refuses the bounds of a rolling update beside Recreate: a switch back that left them behind could not be
// made at all, and one that replaced the pods would interrupt the pipeline for nothing.
#[test]
fn the_strategy_of_a_pipeline_may_be_switched_to_and_fro() {
    in_namespace("strategy", async |place| {
        let operator = place.operator().await?;
        payments(&place).await?;
        let recreate = json!({"type": "Recreate"});
        let rolling = |surge: i32, unavailable: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
        for (asked, expected) in [
            (json!({"type": "RollingUpdate"}), rolling(1, json!(0))),
            (json!({"type": "Recreate"}), recreate.clone()),
            (rolling(2, json!("50%")), rolling(2, json!("50%"))),
            (Value::Null, recreate.clone()),
        ] {
            let manifest = match asked {
                Value::Null => pipeline("payments"),
                asked => with_strategy(asked),
            };
            apply(&place, &manifest, &["--server-side", "--force-conflicts"]).await?;
            wait::until_explained(&format!("the strategy is {expected}"), LIMIT, async || {
                let deployment: Deployment = place.get("payments-pipeline").await?;
                let strategy = deployment.spec.and_then(|spec| spec.strategy);
                let strategy = serde_json::to_value(strategy).map_err(|error| Error::impossible(error.to_string()))?;
                Ok(if strategy == expected {
                    Ok(())
                } else {
                    Err(strategy.to_string())
                })
            })
            .await?;
            place.ready::<Pipeline>("payments").await?;
        }
        place.settled().await?;
        assert_eq!(replica_sets(&place).await?.len(), 1, "no pod was replaced");
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}
