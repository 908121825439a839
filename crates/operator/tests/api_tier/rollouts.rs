//! What restarts a Pipeline, and what does not.

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_testkit::{Error, wait};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use crate::{
    objects::{deployment_version, file, image_of, nothing_was_forbidden, payments, pipeline, replica_sets},
    support::{LIMIT, Place, in_namespace},
};

// Only what a pipeline sees of a processor may restart it: the endpoint, not the image. A change of its own config is one
// roll-out, and the way back is the old revision.
#[test]
fn a_pipeline_restarts_for_its_wiring_and_its_config_only() {
    in_namespace("rollouts", async |place| {
        let operator = place.operator().await?;
        payments(&place).await?;
        place.settled().await?;
        let generation = deployment_version(&place, "payments-pipeline").await?;
        let first = place
            .ready::<Pipeline>("payments")
            .await?
            .revision
            .unwrap_or_default()
            .current;

        place
            .merge::<ExternalProcessor>("ttp", json!({"spec": {"workload": {"image": "ttp:v2"}}}))
            .await?;
        wait::until("the processor's Deployment has the new image", LIMIT, async || {
            let image = image_of(&place.get::<Deployment>("ttp-processor").await?);
            Ok((image.as_deref() == Some("ttp:v2")).then_some(()))
        })
        .await?;
        place.settled().await?;
        assert_eq!(deployment_version(&place, "payments-pipeline").await?, generation);

        place
            .merge::<ExternalProcessor>("ttp", json!({"spec": {"port": 50052}}))
            .await?;
        let second = another_revision(&place, &first).await?;
        assert!(file(&place, "payments").await?.contains(":50052"));
        place.settled().await?;

        let sets_before = replica_sets(&place).await?;
        place.apply(with_network("testnet")).await?;
        let third = another_revision(&place, &second).await?;
        place.settled().await?;
        let sets_after = replica_sets(&place).await?;
        assert_eq!(
            sets_after.difference(&sets_before).count(),
            1,
            "one roll-out: {sets_after:?}"
        );

        place.apply(with_network("pubnet")).await?;
        assert_eq!(
            another_revision(&place, &third).await?,
            second,
            "the old content is the old revision"
        );
        place.settled().await?;
        assert_eq!(
            replica_sets(&place).await?,
            sets_after,
            "the old revision is the old ReplicaSet"
        );
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

fn with_network(network: &str) -> Value {
    let mut changed = pipeline("payments");
    changed["spec"]["processors"][0]["config"]["network"] = json!(network);
    changed
}

async fn another_revision(place: &Place, before: &str) -> Result<String, Error> {
    wait::until("another revision is Ready", LIMIT, async || {
        let revision = place
            .ready::<Pipeline>("payments")
            .await?
            .revision
            .unwrap_or_default()
            .current;
        Ok((revision != before).then_some(revision))
    })
    .await
}
