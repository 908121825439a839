//! What is not ours stays whose it is: foreign objects under the names of our children, and what others add to ours.

use std::collections::BTreeMap;

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_testkit::{
    Error,
    fake_kubelet::{Outcome, Selector},
    wait,
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Service},
};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::{
    objects::{image_of, nothing_was_forbidden, processor},
    support::{LIMIT, Place, TestResult, in_namespace},
};

/// A processor, a Pipeline or a batch run whose revision has the same name under every name of the object.
fn same(kind: &str, name: &str) -> Value {
    let source = json!({"type": "BufferedStorageSourceAdapter", "config": {"storage_type": "FS", "path": "/ledgers"}});
    let (kind, spec) = match kind {
        "processor" => (
            "ExternalProcessor",
            json!({"role": "Processor", "port": 50051, "workload": {"image": "same:v1", "replicas": 2}}),
        ),
        "stream" => (
            "Pipeline",
            json!({"source": source, "consumers": [{"type": "StdoutConsumer"}]}),
        ),
        _ => (
            "Pipeline",
            json!({"mode": "Batch", "source": source, "consumers": [{"type": "StdoutConsumer"}]}),
        ),
    };
    json!({"apiVersion": "flowctl.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// The revision of an object of this sort.
async fn revision_of(place: &Place, sort: &str) -> Result<String, Error> {
    let name = format!("model-{sort}");
    place.apply(same(sort, &name)).await?;
    wait::until("it has a revision", LIMIT, async || {
        let status = match sort {
            "processor" => place.get::<ExternalProcessor>(&name).await?.status,
            _ => place.get::<Pipeline>(&name).await?.status,
        };
        Ok(status
            .and_then(|status| status.revision)
            .map(|revision| revision.current))
    })
    .await
}

/// One child of each kind, as somebody else would have made it; beside it the object of ours that wants its name.
fn foreign_children(revisions: &BTreeMap<&str, String>) -> Vec<(Value, &'static str, &'static str)> {
    let labels = json!({"app": "theirs"});
    let pod = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "theirs:1"}]}});
    let service = json!({"ports": [{"port": 80}], "selector": labels});
    let deployment = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": pod});
    let mut job_pod = pod.clone();
    job_pod["spec"]["restartPolicy"] = json!("Never");
    let spec = |api: &str, kind: &str, name: String, spec: Value| json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec});
    let revision = |owner: &str, sort: &str| format!("{owner}-{}", revisions[sort]);
    vec![
        (
            spec("v1", "Service", "a-processor".into(), service.clone()),
            "processor",
            "a",
        ),
        (
            spec("v1", "Service", "b-processor-pods".into(), service.clone()),
            "processor",
            "b",
        ),
        (
            spec("apps/v1", "Deployment", "c-processor".into(), deployment.clone()),
            "processor",
            "c",
        ),
        (
            spec(
                "policy/v1",
                "PodDisruptionBudget",
                "d-processor".into(),
                json!({"maxUnavailable": 1, "selector": {"matchLabels": labels}}),
            ),
            "processor",
            "d",
        ),
        (
            json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1, "data": {"theirs": true},
                "metadata": {"name": revision("e", "processor")}}),
            "processor",
            "e",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"theirs": "yes"},
                "metadata": {"name": revision("f", "stream")}}),
            "stream",
            "f",
        ),
        (spec("v1", "Service", "g-pipeline".into(), service), "stream", "g"),
        (
            spec("apps/v1", "Deployment", "h-pipeline".into(), deployment),
            "stream",
            "h",
        ),
        (
            spec(
                "batch/v1",
                "Job",
                revision("i", "run"),
                json!({"suspend": true, "template": job_pod}),
            ),
            "run",
            "i",
        ),
    ]
}

// Taking over an object of somebody else would hand it to garbage collection: of no kind of child may that happen, each
// is named, and its removal must be enough.
#[test]
fn an_object_that_is_not_ours_is_named_and_left_alone_whatever_its_kind() {
    in_namespace("foreign", async |place| {
        let runs = Selector::labels(&[("flowctl.dev/name", "i")]);
        place.world.kubelet.script(runs, Outcome::Exit(0));
        let operator = place.operator().await?;
        let mut revisions = BTreeMap::new();
        for sort in ["processor", "stream", "run"] {
            revisions.insert(sort, revision_of(&place, sort).await?);
        }
        let cases = foreign_children(&revisions);
        for (foreign, sort, owner) in &cases {
            place.apply(foreign.clone()).await?;
            place.apply(same(sort, owner)).await?;
        }
        let child = |foreign: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&foreign["kind"]), text(&foreign["metadata"]["name"]))
        };
        for (foreign, sort, owner) in &cases {
            let status = match *sort {
                "processor" => refused::<ExternalProcessor>(&place, owner).await?,
                _ => refused::<Pipeline>(&place, owner).await?,
            };
            let (kind, name) = child(foreign);
            assert!(
                status.contains(&format!("{kind} {name}")) && status.contains("created by a-user"),
                "{owner}: {status}"
            );
        }
        place.settled().await?;
        let written = place.child_writes()?;
        for (foreign, ..) in &cases {
            let (kind, name) = child(foreign);
            let plural = match kind.as_str() {
                "PodDisruptionBudget" => "poddisruptionbudgets".to_owned(),
                kind => format!("{}s", kind.to_lowercase()),
            };
            let touched: Vec<_> = written
                .iter()
                .filter(|write| write.ends_with(&format!(" {plural} {name}")))
                .collect();
            assert!(touched.is_empty(), "{touched:?}");
            let live = place
                .kubectl(&[
                    "get",
                    &plural,
                    &name,
                    "-o",
                    "jsonpath={.metadata.ownerReferences}{.metadata.labels.flowctl\\.dev/name}",
                ])
                .await?;
            assert_eq!(live, "", "{kind} {name}");
            place.kubectl(&["delete", &plural, &name, "--wait=false"]).await?;
        }
        for (_, sort, owner) in &cases {
            match *sort {
                "processor" => place.ready::<ExternalProcessor>(owner).await?,
                _ => place.ready::<Pipeline>(owner).await?,
            };
        }
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

// Whoever may write ConfigMaps, but no Pipelines, would choose what a Pipeline does: by making its file before the operator
// does, with all signs of being ours.
#[test]
fn a_file_that_was_made_before_its_revision_is_not_believed() {
    in_namespace("forged", async |place| {
        let operator = place.operator().await?;
        let hash = revision_of(&place, "stream").await?;
        operator.stop().await?;
        let file = |name: &str| format!("{name}-{hash}");
        let signs = json!({"app.kubernetes.io/managed-by": "flowctl-operator"});
        // The last one is in no watch of ours.
        for (name, immutable, labels) in [
            ("fixed", true, &signs),
            ("open", false, &signs),
            ("unseen", true, &json!({})),
        ] {
            let object = place.apply(same("stream", name)).await?;
            let owner = json!({"apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline", "name": name,
                "uid": object.uid(), "controller": true});
            place
                .apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "immutable": immutable,
                    "data": {"pipeline.yaml": "forged: yes"},
                    "metadata": {"name": file(name), "labels": labels, "ownerReferences": [owner]}}))
                .await?;
        }
        let operator = place.operator().await?;
        for name in ["fixed", "open", "unseen"] {
            place.ready::<Pipeline>(name).await?;
        }
        place.settled().await?;
        let writes = place.child_writes()?;
        for name in ["fixed", "open", "unseen"] {
            let at = |write: String| writes.iter().position(|one| *one == write);
            let removed = at(format!("delete configmaps {}", file(name)));
            let run = at(format!("patch deployments {name}-pipeline"));
            assert!(removed.is_some() && removed < run, "it was run: {writes:?}");
        }
        for name in ["fixed", "open", "unseen"] {
            let live: ConfigMap = place.get(&file(name)).await?;
            let text = live
                .data
                .unwrap_or_default()
                .remove("pipeline.yaml")
                .unwrap_or_default();
            assert!(text.contains("StdoutConsumer"), "{name}: {text}");
        }
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

async fn refused<K: crate::support::Subject>(place: &Place, name: &str) -> Result<String, Error> {
    let status = place.condition::<K>(name, "Available", "False", "NameConflict").await?;
    let available = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Available");
    Ok(available.map(|condition| condition.message.clone()).unwrap_or_default())
}

// A service mesh, a cost controller, a person with kubectl: what they add to our children is theirs, costs no write, and
// outlives our own changes.
#[test]
fn what_others_add_to_our_children_stays() {
    in_namespace("guests", async |place| {
        let operator = place.operator().await?;
        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        place.settled().await?;
        let before = place.child_writes()?.len();

        // A manager of its own, as an injecting webhook or a mesh would be.
        place
            .apply(json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "ttp-processor", "labels": {"team": "payments"}, "annotations": {"cost/center": "7"}},
                "spec": {"template": {
                    "metadata": {"annotations": {"mesh/injected": "yes"}},
                    "spec": {"containers": [{"name": "proxy", "image": "proxy:1"}], "nodeSelector": {"disk": "ssd"}},
                }},
            }))
            .await?;
        place
            .kubectl(&["label", "service", "ttp-processor", "team=payments"])
            .await?;
        place
            .kubectl(&["annotate", "service", "ttp-processor-pods", "note=mine"])
            .await?;
        place
            .kubectl(&["set", "env", "deployment/ttp-processor", "--containers=main", "DEBUG=1"])
            .await?;
        place.settled().await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        let written = place.child_writes()?.split_off(before);
        assert_eq!(written, Vec::<String>::new());

        place
            .merge::<ExternalProcessor>("ttp", json!({"spec": {"workload": {"image": "ttp:v2"}}}))
            .await?;
        wait::until("the new image is rolled out", LIMIT, async || {
            let image = image_of(&place.get::<Deployment>("ttp-processor").await?);
            Ok((image.as_deref() == Some("ttp:v2")).then_some(()))
        })
        .await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        theirs_are_there(&place).await?;
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

async fn theirs_are_there(place: &Place) -> TestResult {
    let deployment: Deployment = place.get("ttp-processor").await?;
    assert_eq!(deployment.labels().get("team").map(String::as_str), Some("payments"));
    assert_eq!(
        deployment.annotations().get("cost/center").map(String::as_str),
        Some("7")
    );
    let shown = serde_json::to_value(&deployment).map_err(|error| Error::impossible(error.to_string()))?;
    let template = &shown["spec"]["template"];
    assert_eq!(template["metadata"]["annotations"]["mesh/injected"], "yes");
    assert_eq!(template["spec"]["nodeSelector"]["disk"], "ssd");
    let containers = template["spec"]["containers"].as_array().cloned().unwrap_or_default();
    assert!(containers.iter().any(|container| container["name"] == "proxy"));
    let debug = containers
        .iter()
        .filter_map(|container| container["env"].as_array())
        .flatten()
        .any(|entry| entry["name"] == "DEBUG");
    assert!(debug, "a variable of theirs in our container");
    let service: Service = place.get("ttp-processor").await?;
    assert_eq!(service.labels().get("team").map(String::as_str), Some("payments"));
    let pods: Service = place.get("ttp-processor-pods").await?;
    assert_eq!(pods.annotations().get("note").map(String::as_str), Some("mine"));
    Ok(())
}
