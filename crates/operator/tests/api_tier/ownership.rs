//! What is ours is mended and goes with us; what is not is left alone.

use std::time::{Duration, Instant};

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_testkit::{Error, wait};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use crate::{
    objects::{nothing_was_forbidden, payments, processor},
    support::{LIMIT, Place, TestResult, in_namespace},
};

// Stopping a workload must work on the day on which something beside it cannot be written.
#[test]
fn the_number_of_copies_is_obeyed_although_a_service_cannot_be_written() {
    in_namespace("beside", async |place| {
        let foreign = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "ttp-processor"},
            "spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}},
        });
        place.apply(foreign).await?;
        let operator = place.operator().await?;
        place.apply(processor("ttp", "Processor")).await?;
        let copies = async |wanted: i32| {
            wait::until("the Deployment wants this many copies", LIMIT, async || {
                let read = place.api::<Deployment>().get_opt("ttp-processor").await;
                let replicas = read
                    .map_err(Error::kube("read"))?
                    .and_then(|found| found.spec?.replicas);
                Ok((replicas == Some(wanted)).then_some(()))
            })
            .await
        };
        copies(1).await?;
        place
            .merge::<ExternalProcessor>("ttp", json!({"spec": {"workload": {"replicas": 0}}}))
            .await?;
        copies(0).await?;
        place
            .condition::<ExternalProcessor>("ttp", "Available", "False", "NameConflict")
            .await?;
        operator.stop().await
    });
}

// Whoever deletes a Pipeline expects nothing to be left, whether the operator runs or not.
#[test]
fn deleting_leaves_nothing_with_and_without_an_operator() {
    in_namespace("deleted", async |place| {
        let operator = place.operator().await?;
        payments(&place).await?;
        place.settled().await?;
        place.delete::<Pipeline>("payments").await?;
        place.delete::<ExternalProcessor>("ttp").await?;
        wait::until_explained("only the consumer is left", LIMIT, async || {
            let left = place.children().await?;
            let others = left.values().flatten().filter(|name| !name.contains("/sink-")).count();
            Ok(if others == 0 { Ok(()) } else { Err(format!("{left:?}")) })
        })
        .await?;
        operator.stop().await?;
        place.delete::<ExternalProcessor>("sink").await?;
        wait::until_explained("nothing is left", LIMIT, async || {
            let left = place.children().await?;
            Ok(if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            })
        })
        .await
    });
}

// A namesake that is made at once must get children of its own, not those that are being collected.
#[test]
fn an_object_made_again_at_once_gets_its_own_children() {
    in_namespace("again", async |place| {
        let operator = place.operator().await?;
        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        place.delete::<ExternalProcessor>("ttp").await?;
        place.apply(processor("ttp", "Processor")).await?;
        let uid = place.get::<ExternalProcessor>("ttp").await?.uid();
        place.ready::<ExternalProcessor>("ttp").await?;
        let mut owners = Vec::new();
        for service in place.list::<Service>().await? {
            owners.extend(service.owner_references().iter().map(|owner| Some(owner.uid.clone())));
        }
        assert_eq!(owners, [uid.clone(), uid], "both Services belong to the new object");
        operator.stop().await
    });
}

// What others break is mended within seconds, each with one write, and then there is silence again.
#[test]
fn drift_is_repaired_with_one_write_each() {
    in_namespace("drift", async |place| {
        let operator = place.operator().await?;
        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        place.settled().await?;
        let before = place.child_writes()?.len();

        place
            .merge::<Service>(
                "ttp-processor",
                json!({"spec": {"selector": {"flowctl.dev/name": "other"}}}),
            )
            .await?;
        place.delete::<Service>("ttp-processor-pods").await?;
        wait::until("both Services are as wanted", Duration::from_secs(5), async || {
            let mended = place.get::<Service>("ttp-processor").await?;
            let selector = mended.spec.and_then(|spec| spec.selector).unwrap_or_default();
            let back = place
                .api::<Service>()
                .get_opt("ttp-processor-pods")
                .await
                .map_err(Error::kube("read"))?;
            Ok((selector.get("flowctl.dev/name").is_some_and(|name| name == "ttp") && back.is_some()).then_some(()))
        })
        .await?;
        place.settled().await?;
        let writes = place.child_writes()?.split_off(before);
        assert_eq!(writes.len(), 2, "{writes:?}");
        operator.stop().await
    });
}

// A label that somebody takes away hides a child from our watch: it must be found by name and mended, not made twice.
#[test]
fn a_child_that_lost_its_labels_is_found_and_mended() {
    in_namespace("labels", async |place| {
        let operator = place.operator().await?;
        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        place.settled().await?;
        let uid = place.get::<Deployment>("ttp-processor").await?.uid();
        let without = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}});
        place.merge::<Deployment>("ttp-processor", without).await?;
        wait::until("the label is back", Duration::from_secs(5), async || {
            let mended = place.get::<Deployment>("ttp-processor").await?;
            Ok(mended
                .labels()
                .contains_key("app.kubernetes.io/managed-by")
                .then_some(mended.uid()))
        })
        .await?;
        assert_eq!(place.get::<Deployment>("ttp-processor").await?.uid(), uid);
        place.settled().await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

// Two controllers that set one field in turn would fill the audit log for ever: after two rounds the other one is named.
#[test]
fn a_fight_over_a_field_ends_with_the_other_ones_name() {
    in_namespace("fight", async |place| {
        let operator = place.operator().await?;
        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        let selector = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ttp-processor"},
            "spec": {"selector": {"flowctl.dev/name": "other"}}});
        for _ in 0..2 {
            place.apply(selector.clone()).await?;
            wait::until("it is taken back", LIMIT, async || {
                let selector = place
                    .get::<Service>("ttp-processor")
                    .await?
                    .spec
                    .and_then(|spec| spec.selector);
                let name = selector.and_then(|mut selector| selector.remove("flowctl.dev/name"));
                Ok((name.as_deref() == Some("ttp")).then_some(()))
            })
            .await?;
        }
        place.apply(selector).await?;
        let status = place
            .condition::<ExternalProcessor>("ttp", "Available", "False", "ApplyFailed")
            .await?;
        assert!(status.why.contains("a-user"), "{}", status.why);
        operator.stop().await
    });
}

/// How long somebody undoes what the operator writes, as soon as it is written.
const UNDOING: Duration = Duration::from_secs(20);

/// Expects that what is undone for a while costs few writes, is told in these words, and holds up nothing beside it; and that all is well by
/// itself afterwards.
async fn undoing(place: &Place, words: &str, undo: impl AsyncFn() -> Result<(), kube::Error>) -> TestResult {
    let operator = place.operator().await?;
    place.apply(processor("ttp", "Processor")).await?;
    place.ready::<ExternalProcessor>("ttp").await?;
    place.settled().await?;
    let before = place.child_writes()?.len();
    let begun = Instant::now();
    wait::until("the time is over", LIMIT, async || {
        match undo().await {
            // Not there, or changed just now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            other => other.map_err(Error::kube("undo what the operator wrote"))?,
        }
        Ok((begun.elapsed() > UNDOING).then_some(()))
    })
    .await?;
    let status = place
        .condition::<ExternalProcessor>("ttp", "Available", "False", "ApplyFailed")
        .await?;
    assert!(status.why.contains(words), "{}", status.why);
    let writes = place.child_writes()?.split_off(before);
    println!("{} writes in {} s", writes.len(), UNDOING.as_secs());
    assert!((3..=6).contains(&writes.len()), "{writes:?}");

    place.delete::<Deployment>("ttp-processor").await?;
    wait::until(
        "what is beside it is mended at once",
        Duration::from_secs(5),
        async || {
            let read = place.api::<Deployment>().get_opt("ttp-processor").await;
            Ok(read.map_err(Error::kube("read"))?.map(drop))
        },
    )
    .await?;
    place.ready::<ExternalProcessor>("ttp").await?;
    place.settled().await?;
    operator.stop().await
}

// A janitor that deletes what it does not know would cost as many writes as the apiserver takes, and nobody would be told
// why pods are not found.
#[test]
fn a_child_that_is_deleted_again_and_again_is_told_and_made_ever_more_rarely() {
    in_namespace("janitor", async |place| {
        let services = place.api::<Service>();
        let janitor = async || {
            let deleted = services.delete("ttp-processor-pods", &DeleteParams::default()).await;
            deleted.map(drop)
        };
        undoing(&place, "keeps deleting it", janitor).await?;
        place.get::<Service>("ttp-processor-pods").await.map(drop)
    });
}

// An older client that writes the whole object and does not know a field of ours takes it away, and owns nothing that the
// apiserver could name.
#[test]
fn a_field_that_is_dropped_again_and_again_is_told_and_set_ever_more_rarely() {
    const LABEL: &str = "app.kubernetes.io/component";
    in_namespace("dropped", async |place| {
        let services = place.api::<Service>();
        let older = async || {
            let mut service = services.get("ttp-processor").await?;
            match service.labels_mut().remove(LABEL) {
                Some(_) => services
                    .replace("ttp-processor", &PostParams::default(), &service)
                    .await
                    .map(drop),
                None => Ok(()),
            }
        };
        undoing(&place, "keeps changing metadata.labels", older).await?;
        let service = place.get::<Service>("ttp-processor").await?;
        assert!(service.labels().contains_key(LABEL), "{:?}", service.labels());
        Ok(())
    });
}
