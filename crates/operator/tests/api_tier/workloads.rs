//! What the pods of an object do is what its status says.

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_testkit::{
    fake_kubelet::{Outcome, Selector},
    wait,
};
use k8s_openapi::api::{batch::v1::Job, events::v1::Event};
use serde_json::{Value, json};

use crate::{
    objects::{processor, quiet},
    support::{LIMIT, Place, TestResult, in_namespace},
};

fn batch(name: &str) -> Value {
    json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline", "metadata": {"name": name},
        "spec": {
            "mode": "Batch",
            "source": {"type": "BufferedStorageSourceAdapter", "config": {"storage_type": "FS", "path": "/ledgers"}},
            "consumers": [{"type": "StdoutConsumer"}],
            "batch": {"backoffLimit": 0},
        },
    })
}

fn pods_of(name: &str) -> Selector {
    Selector::labels(&[("flowctl.dev/name", name)])
}

// A batch run that ended must say how, and must never be run again by an operator that comes later.
#[test]
fn a_batch_pipeline_ends_as_its_pod_does_and_is_not_run_again() {
    in_namespace("batch", async |place| {
        place.world.kubelet.script(pods_of("range-good"), Outcome::Exit(0));
        place.world.kubelet.script(pods_of("range-bad"), Outcome::Exit(1));
        let operator = place.operator().await?;
        place.apply(batch("range-good")).await?;
        place.apply(batch("range-bad")).await?;
        place
            .condition::<Pipeline>("range-good", "Ready", "True", "Complete")
            .await?;
        place
            .condition::<Pipeline>("range-bad", "Available", "False", "Failed")
            .await?;
        place.settled().await?;
        operator.stop().await?;
        let operator = place.operator().await?;
        quiet(&place).await?;
        assert_eq!(place.list::<Job>().await?.len(), 2);
        operator.stop().await
    });
}

// The first thing that a user does about a pod that does not start is to read the object's `why`.
#[test]
fn an_image_that_cannot_be_pulled_is_told_and_recovered_from() {
    in_namespace("image", async |place| {
        place
            .world
            .kubelet
            .script(pods_of("unpullable"), Outcome::ImagePullBackOff);
        let operator = place.operator().await?;
        place.apply(processor("unpullable", "Processor")).await?;
        let status = place
            .condition::<ExternalProcessor>("unpullable", "Available", "False", "ImagePullBackOff")
            .await?;
        assert!(status.why.contains("ImagePullBackOff"), "{}", status.why);
        wait::until("an event tells it", LIMIT, async || {
            let events: Vec<Event> = place.list().await?;
            let told = events
                .iter()
                .any(|event| event.reason.as_deref() == Some("ImagePullBackOff"));
            Ok(told.then_some(()))
        })
        .await?;
        place.world.kubelet.script(pods_of("unpullable"), Outcome::Ready);
        place.ready::<ExternalProcessor>("unpullable").await?;
        operator.stop().await
    });
}

// Suspending must stop the pods and keep everything else, and resuming must bring back the same number.
#[test]
fn suspend_and_resume_keep_the_number_of_pods() {
    in_namespace("suspend", async |place| {
        let operator = place.operator().await?;
        place.apply(processor("ttp", "Processor")).await?;
        place
            .world
            .cluster
            .kubectl(&["scale", "xproc/ttp", "--replicas=3", "-n", "suspend"])
            .await?;
        all_three(&place).await?;
        place
            .merge::<ExternalProcessor>("ttp", json!({"spec": {"suspend": true}}))
            .await?;
        place
            .condition::<ExternalProcessor>("ttp", "Available", "True", "Suspended")
            .await?;
        place
            .merge::<ExternalProcessor>("ttp", json!({"spec": {"suspend": null}}))
            .await?;
        let status = place.ready::<ExternalProcessor>("ttp").await?;
        assert_ne!(status.pods.as_deref(), Some("0/3"), "Ready without a pod");
        all_three(&place).await?;
        operator.stop().await
    });
}

async fn all_three(place: &Place) -> TestResult {
    wait::until("all pods are ready", LIMIT, async || {
        let status = place.ready::<ExternalProcessor>("ttp").await?;
        Ok((status.pods.as_deref() == Some("3/3")).then_some(()))
    })
    .await
}
