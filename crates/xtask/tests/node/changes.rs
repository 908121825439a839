//! Changes: which of them restart a pipeline, what a missing reference does, and what a lost pod does.

use std::time::Duration;

use flowctl_testkit::wait;
use serde_json::json;

use super::scene::{NAMESPACE, Scene};

const LIMIT: Duration = Duration::from_secs(120);

pub(crate) async fn what_restarts_and_what_does_not(scene: &Scene) {
    let mut pipeline = scene.pipeline("payments", "Streaming", scene.range);
    scene.apply(&pipeline).await;
    scene.wait("pipeline/payments", "condition=Ready", LIMIT).await;
    let (pods, first) = (scene.pods("payments").await, revision(scene).await);
    assert_eq!(pods.len(), 1);

    // Another image by name, the same one by content: the processor rolls out, the pipeline does not notice.
    let before = scene.pods("ttp-processor").await;
    let again = json!({"spec": {"workload": {"image": "docker.io/library/ttp-processor:dev"}}});
    patch(scene, "externalprocessors.flowctl.dev/ttp-processor", &again).await;
    until(scene, "the processor's pod is replaced", async || {
        let now = scene.pods("ttp-processor").await;
        now.len() == 1 && now != before
    })
    .await;
    scene.wait("processor/ttp-processor", "condition=Ready", LIMIT).await;
    assert_eq!(
        scene.pods("payments").await,
        pods,
        "a pipeline restarted because a processor changed"
    );

    // Another port: the file changes, and so does the pipeline.
    scene.apply(&scene.processor(50061, "ttp-processor:dev")).await;
    until(scene, "the pipeline follows the port", async || {
        revision(scene).await != first
    })
    .await;
    settled(scene).await;
    assert_ne!(scene.pods("payments").await, pods);
    scene.apply(&scene.processor(50051, "ttp-processor:dev")).await;
    until(scene, "going back is the old revision", async || {
        revision(scene).await == first
    })
    .await;
    settled(scene).await;

    // Another configuration: one roll-out.
    let generation = deployment_generation(scene).await;
    pipeline["spec"]["processors"][1]["config"]["timeout"] = json!("31s");
    scene.apply(&pipeline).await;
    until(scene, "the pipeline follows its configuration", async || {
        revision(scene).await != first
    })
    .await;
    settled(scene).await;
    assert_eq!(
        deployment_generation(scene).await,
        generation + 1,
        "one change of the spec is one roll-out"
    );
    pipeline["spec"]["processors"][1]["config"]["timeout"] = json!("30s");
    scene.apply(&pipeline).await;
    until(scene, "going back is the old revision", async || {
        revision(scene).await == first
    })
    .await;
    settled(scene).await;
}

pub(crate) async fn a_missing_processor_holds_the_pipeline_back_and_its_appearance_starts_it(scene: &Scene) {
    let mut pipeline = scene.pipeline("late", "Streaming", scene.range);
    pipeline["spec"]["processors"][1]["processorRef"]["name"] = json!("comes-later");
    scene.apply(&pipeline).await;
    let refused = |object: &serde_json::Value| {
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions
            .iter()
            .any(|one| one["type"] == "ResolvedRefs" && one["status"] == "False")
    };
    let object = scene
        .until("pipeline/late", "the missing processor is reported", LIMIT, refused)
        .await;
    let why = object["status"]["why"].as_str().unwrap_or_default();
    assert!(why.contains("comes-later"), "`why` does not name the processor: {why}");
    assert!(
        scene.list("deployments", "flowctl.dev/name=late").await.is_empty(),
        "a half-wired pipeline was started"
    );

    let mut processor = scene.processor(50051, "ttp-processor:dev");
    processor["metadata"]["name"] = json!("comes-later");
    scene.apply(&processor).await;
    scene.wait("pipeline/late", "condition=Ready", LIMIT).await;
    scene
        .kubectl(&["delete", "pipelines.flowctl.dev", "late", "--namespace", NAMESPACE])
        .await;
    scene
        .kubectl(&[
            "delete",
            "externalprocessors.flowctl.dev",
            "comes-later",
            "--namespace",
            NAMESPACE,
        ])
        .await;
}

pub(crate) async fn a_killed_pod_comes_back(scene: &Scene) {
    let before = scene.pods("ttp-processor").await;
    let selector = "flowctl.dev/name=ttp-processor";
    scene
        .kubectl(&[
            "delete",
            "pods",
            "--namespace",
            NAMESPACE,
            "-l",
            selector,
            "--wait=false",
        ])
        .await;
    until(scene, "another pod takes its place", async || {
        let now = scene.pods("ttp-processor").await;
        now.len() == 1 && now != before
    })
    .await;
    scene.wait("processor/ttp-processor", "condition=Ready", LIMIT).await;
    scene.wait("pipeline/payments", "condition=Ready", LIMIT).await;
}

async fn revision(scene: &Scene) -> String {
    let object = scene.get("pipeline/payments").await;
    object["status"]["revision"]["current"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

async fn deployment_generation(scene: &Scene) -> i64 {
    let object = scene.get("deployments/payments-pipeline").await;
    object["metadata"]["generation"].as_i64().expect("a generation")
}

/// The roll-out is over.
async fn settled(scene: &Scene) {
    scene
        .wait("pipeline/payments", "condition=Reconciling=false", LIMIT)
        .await;
    scene.wait("pipeline/payments", "condition=Ready", LIMIT).await;
}

async fn patch(scene: &Scene, object: &str, patch: &serde_json::Value) {
    scene
        .kubectl(&[
            "patch",
            object,
            "--namespace",
            NAMESPACE,
            "--type",
            "merge",
            "-p",
            &patch.to_string(),
        ])
        .await;
}

async fn until(_: &Scene, what: &str, holds: impl AsyncFn() -> bool) {
    let waited = wait::until(what, LIMIT, async || Ok(holds().await.then_some(()))).await;
    if let Err(error) = waited {
        panic!("{error}");
    }
}
