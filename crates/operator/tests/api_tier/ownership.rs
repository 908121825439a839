//! What is ours is mended and goes with us; what is not is left alone.

use std::time::Duration;

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_testkit::{Error, wait};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::ResourceExt as _;
use serde_json::json;

use crate::{
    objects::{nothing_was_forbidden, payments, processor},
    support::{LIMIT, in_namespace},
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
