//! Batch runs to their end: complete, failed, tried again, never run twice; and the way between the modes.

use std::collections::BTreeSet;

use flowctl_api::Pipeline;
use flowctl_testkit::{
    Error,
    fake_kubelet::{Outcome, Selector},
    wait,
};
use k8s_openapi::api::{apps::v1::Deployment, batch::v1::Job, core::v1::Pod};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::{
    objects::nothing_was_forbidden,
    support::{LIMIT, Place, TestResult, in_namespace},
};

fn run(name: &str, limit: Option<i32>) -> Value {
    let mut object = json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline", "metadata": {"name": name},
        "spec": {
            "mode": "Batch",
            "source": {"type": "BufferedStorageSourceAdapter", "config": {"storage_type": "FS", "path": "/ledgers"}},
            "consumers": [{"type": "StdoutConsumer"}],
        },
    });
    if let Some(limit) = limit {
        object["spec"]["batch"] = json!({"backoffLimit": limit});
    }
    object
}

fn streaming(name: &str) -> Value {
    let mut object = run(name, None);
    object["spec"]["mode"] = json!("Streaming");
    object
}

fn script(place: &Place, name: &str, outcome: Outcome) {
    let pods = Selector::labels(&[("flowctl.dev/name", name)]);
    place.world.kubelet.script(pods, outcome);
}

async fn jobs_of(place: &Place, name: &str) -> Result<BTreeSet<String>, Error> {
    let jobs: Vec<Job> = place.list().await?;
    let ours = jobs
        .iter()
        .filter(|job| job.labels().get("flowctl.dev/name").map(String::as_str) == Some(name));
    Ok(ours.map(Job::name_any).collect())
}

async fn restart(place: &Place, name: &str, at: &str) -> TestResult {
    place
        .merge::<Pipeline>(name, json!({"spec": {"restartedAt": at}}))
        .await
}

// A backfill that runs twice writes everything twice, whatever became of its Job: a tidy colleague, a time to live, a new
// operator.
#[test]
fn a_run_that_is_over_is_not_run_again_when_its_job_goes() {
    in_namespace("over", async |place| {
        script(&place, "over-good", Outcome::Exit(0));
        script(&place, "over-bad", Outcome::Exit(1));
        let operator = place.operator().await?;
        place.apply(run("over-good", None)).await?;
        place.apply(run("over-bad", Some(0))).await?;
        let over = async || {
            place
                .condition::<Pipeline>("over-good", "Ready", "True", "Complete")
                .await?;
            place
                .condition::<Pipeline>("over-bad", "Ready", "False", "Failed")
                .await
        };
        let status = over().await?;
        assert!(status.why.contains("exit code 1"), "{}", status.why);
        let stalled = status.conditions.iter().find(|condition| condition.type_ == "Stalled");
        assert!(
            stalled.is_some_and(|stalled| stalled.status == "True" && stalled.message.contains("spec.restartedAt")),
            "{stalled:?}"
        );
        place.kubectl(&["delete", "jobs", "--all"]).await?;
        place.settled().await?;
        over().await?;
        operator.stop().await?;
        let operator = place.operator().await?;
        place.settled().await?;
        over().await?;
        assert_eq!(place.list::<Job>().await?.len(), 0, "it was run again");

        // Its author may ask for another one, which is another Job.
        script(&place, "over-bad", Outcome::Exit(0));
        restart(&place, "over-bad", "1").await?;
        place
            .condition::<Pipeline>("over-bad", "Ready", "True", "Complete")
            .await?;
        let first = jobs_of(&place, "over-bad").await?;
        restart(&place, "over-bad", "2").await?;
        wait::until("there is another Job", LIMIT, async || {
            let jobs = jobs_of(&place, "over-bad").await?;
            Ok((jobs.len() == 2 && jobs.is_superset(&first)).then_some(()))
        })
        .await?;
        place
            .condition::<Pipeline>("over-bad", "Ready", "True", "Complete")
            .await?;
        assert_eq!(place.list::<Job>().await?.len(), 2);
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

// A run is tried as often as its author said, and not once more; a file that the runner refuses is not tried again at all.
#[test]
fn a_failing_run_is_tried_as_often_as_asked() {
    in_namespace("tries", async |place| {
        script(&place, "twice", Outcome::Exit(1));
        script(&place, "once", Outcome::Exit(2));
        let operator = place.operator().await?;
        place.apply(run("twice", Some(1))).await?;
        place.apply(run("once", None)).await?;
        for (name, reason) in [("once", "PodFailurePolicy"), ("twice", "BackoffLimitExceeded")] {
            let status = place
                .condition::<Pipeline>(name, "Available", "False", "Failed")
                .await?;
            assert!(status.why.contains("exit code"), "{}", status.why);
            let available = status
                .conditions
                .iter()
                .find(|condition| condition.type_ == "Available");
            let message = available.map(|condition| condition.message.clone()).unwrap_or_default();
            assert!(message.contains(reason), "{name}: {message}");
        }
        place.settled().await?;
        let pods: Vec<Pod> = place.list().await?;
        let of = |name: &str| {
            pods.iter()
                .filter(|pod| pod.labels().get("flowctl.dev/name").map(String::as_str) == Some(name))
                .count()
        };
        assert_eq!((of("once"), of("twice")), (1, 2), "pods that were tried");
        operator.stop().await
    });
}

// Two copies of a pipeline process the same ledgers twice: the one of the other mode must be gone first, and must go.
#[test]
fn the_mode_may_be_switched_to_and_fro() {
    in_namespace("modes", async |place| {
        let operator = place.operator().await?;
        place.apply(streaming("flow")).await?;
        place.ready::<Pipeline>("flow").await?;
        place.apply(run("flow", None)).await?;
        place.condition::<Pipeline>("flow", "Ready", "True", "Ready").await?;
        alone(&place, "Job").await?;

        place.apply(streaming("flow")).await?;
        place.ready::<Pipeline>("flow").await?;
        alone(&place, "ReplicaSet").await?;
        assert_eq!(jobs_of(&place, "flow").await?.len(), 0);

        script(&place, "flow", Outcome::Exit(0));
        place.apply(run("flow", None)).await?;
        place.condition::<Pipeline>("flow", "Ready", "True", "Complete").await?;
        let left = place.api::<Deployment>().get_opt("flow-pipeline").await;
        assert!(left.map_err(Error::kube("read"))?.is_none());
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

/// Waits until the one pod that has not ended belongs to an object of this kind.
async fn alone(place: &Place, kind: &str) -> TestResult {
    wait::until_explained(&format!("one pod runs, of a {kind}"), LIMIT, async || {
        let pods: Vec<Pod> = place.list().await?;
        let live = pods.iter().filter(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            !matches!(phase, Some("Succeeded" | "Failed"))
        });
        let owners: Vec<String> = live
            .flat_map(|pod| pod.owner_references().iter().map(|owner| owner.kind.clone()))
            .collect();
        Ok(if owners == [kind] {
            Ok(())
        } else {
            Err(format!("{owners:?}"))
        })
    })
    .await
}
