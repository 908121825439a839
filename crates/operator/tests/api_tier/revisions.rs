//! The two objects of a revision, when the operator that wrote the one is another than the operator that misses the other.

use std::collections::BTreeSet;

use flowctl_api::{ControlPlane, ControlPlaneTls, Pipeline};
use flowctl_plan::Settings;
use flowctl_testkit::{Error, wait};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    core::v1::{ConfigMap, Pod},
};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::{
    objects::nothing_was_forbidden,
    support::{LIMIT, Place, in_namespace, settings},
};

/// An operator's settings with this CA of its control plane: it is in every file, and in no hash.
fn with_ca(ca: &str) -> Settings {
    let bundle = format!("-----BEGIN CERTIFICATE-----\n{ca}\n-----END CERTIFICATE-----\n");
    let tls = ControlPlaneTls {
        secret_name: None,
        ca_bundle: Some(bundle),
    };
    Settings {
        control_plane: Some(ControlPlane {
            endpoint: "flowctl.flowctl-system:8080".to_owned(),
            tls: Some(tls),
        }),
        ..settings()
    }
}

fn pipeline() -> Value {
    json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline", "metadata": {"name": "half"},
        "spec": {
            "source": {"type": "BufferedStorageSourceAdapter", "config": {"storage_type": "FS", "path": "/ledgers"}},
            "consumers": [{"type": "StdoutConsumer"}],
        },
    })
}

async fn pods(place: &Place) -> Result<BTreeSet<Option<String>>, Error> {
    Ok(place.list::<Pod>().await?.iter().map(Pod::uid).collect())
}

async fn is_stored(place: &Place, name: &str) -> Result<(), Error> {
    wait::until("the ControllerRevision is there", LIMIT, async || {
        let found = place.api::<ControllerRevision>().get_opt(name).await;
        Ok(found.map_err(Error::kube("read the ControllerRevision"))?.map(drop))
    })
    .await
}

fn text(file: &ConfigMap) -> String {
    json!(file.data).to_string()
}

// An operator that is upgraded between two writes, or a tidy colleague, would leave a pipeline that no operator can write any
// more, until a person finds the file; or what runs would be rolled out because its record is gone.
#[test]
fn half_a_revision_of_another_operator_is_made_whole_again() {
    in_namespace("half", async |place| {
        let older = place.operator_with(place.options(), with_ca("QUFB")).await?;
        place.apply(pipeline()).await?;
        let revision = place.ready::<Pipeline>("half").await?.revision.unwrap_or_default();
        let name = format!("half-{}", revision.current);
        place.settled().await?;
        older.stop().await?;

        // It runs: its file stays, and nothing rolls.
        let (file, running) = (place.get::<ConfigMap>(&name).await?, pods(&place).await?);
        let generation = place.get::<Deployment>("half-pipeline").await?.metadata.generation;
        assert!(text(&file).contains("QUFB") && running.len() == 1, "{running:?}");
        place.delete::<ControllerRevision>(&name).await?;
        let newer = place.operator_with(place.options(), with_ca("QkJC")).await?;
        is_stored(&place, &name).await?;
        place.settled().await?;
        place.ready::<Pipeline>("half").await?;
        assert_eq!(place.get::<ConfigMap>(&name).await?.uid(), file.uid());
        assert_eq!(pods(&place).await?, running);
        let after = place.get::<Deployment>("half-pipeline").await?.metadata.generation;
        assert_eq!(after, generation);
        newer.stop().await?;

        // Nothing runs it: it is as if the pass had ended after the first write.
        place.delete::<Deployment>("half-pipeline").await?;
        place.delete::<ControllerRevision>(&name).await?;
        wait::until("its pods are gone", LIMIT, async || {
            Ok(pods(&place).await?.is_empty().then_some(()))
        })
        .await?;
        let newer = place.operator_with(place.options(), with_ca("QkJC")).await?;
        is_stored(&place, &name).await?;
        place.ready::<Pipeline>("half").await?;
        let made = place.get::<ConfigMap>(&name).await?;
        assert!(made.uid() != file.uid() && text(&made).contains("QkJC"), "{made:?}");
        assert_eq!(pods(&place).await?.len(), 1);
        newer.stop().await?;
        nothing_was_forbidden(&place)
    });
}
