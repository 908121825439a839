//! From nothing to Ready, with few writes, and then silence.

use std::time::Duration;

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_testkit::{Error, wait};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use crate::{
    objects::{file, nothing_was_forbidden, payments, pipeline, processor, quiet, replica_sets},
    support::{LIMIT, in_namespace},
};

// A user who applies a Pipeline and its processors gets them running and wired, with few writes, and then the
// apiserver is left alone, also by a restarted operator.
#[test]
fn a_pipeline_becomes_ready_and_then_nothing_is_written() {
    in_namespace("converge", async |place| {
        let operator = place.operator().await?;
        payments(&place).await?;
        let wired = file(&place, "payments").await?;
        for endpoint in ["ttp-processor-pods.converge.svc", "sink-processor-pods.converge.svc"] {
            assert!(wired.contains(endpoint), "{wired}");
        }
        place.settled().await?;
        quiet(&place).await?;
        operator.stop().await?;

        let operator = place.operator().await?;
        quiet(&place).await?;
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

// Each write costs the whole cluster: what one object may cost until it is Ready is part of the contract.
#[test]
fn becoming_ready_takes_few_writes() {
    in_namespace("frugal", async |place| {
        let operator = place.operator().await?;
        place.apply(processor("ttp", "Processor")).await?;
        let mut single = pipeline("payments");
        single["spec"]["consumers"] = json!([{"type": "StdoutConsumer"}]);
        place.apply(single).await?;
        place.ready::<Pipeline>("payments").await?;
        let pipeline = place.writes_for("payments")?;
        place.ready::<ExternalProcessor>("ttp").await?;
        for writes in [pipeline, place.writes_for("ttp")?] {
            println!("{} writes until Ready: {writes:?}", writes.len());
            assert!(writes.len() <= 9, "{writes:?}");
        }
        operator.stop().await
    });
}

// A missing processor must not start half a pipeline, and its appearance must be enough.
#[test]
fn a_missing_processor_is_named_and_waited_for() {
    in_namespace("missing", async |place| {
        let operator = place.operator().await?;
        place.apply(processor("sink", "Consumer")).await?;
        place.apply(pipeline("payments")).await?;
        let reason = "ProcessorNotFoundOrNotGranted";
        let status = place
            .condition::<Pipeline>("payments", "ResolvedRefs", "False", reason)
            .await?;
        assert!(status.why.contains("ttp"), "{}", status.why);
        place.ready::<ExternalProcessor>("sink").await?;
        assert!(
            place
                .api::<Deployment>()
                .get_opt("payments-pipeline")
                .await
                .map_err(Error::kube("read"))?
                .is_none()
        );

        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<Pipeline>("payments").await?;
        let used = wait::until("the processors know who uses them", LIMIT, async || {
            let ttp: ExternalProcessor = place.get("ttp").await?;
            Ok(ttp.status.and_then(|status| status.used_by).filter(|used| *used == 1))
        });
        used.await?;
        operator.stop().await
    });
}

// An object of a newer version is told what is wrong, and blocks nobody.
#[test]
fn an_object_that_cannot_be_read_says_so_and_blocks_nobody() {
    in_namespace("unreadable", async |place| {
        let operator = place.operator().await?;
        let mut strange = processor("strange", "Oracle");
        strange["metadata"]["labels"] = json!({"kept": "yes"});
        place.apply(strange).await?;
        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        let read = [
            "get",
            "xproc",
            "strange",
            "-n",
            "unreadable",
            "-o",
            "jsonpath={.status}",
        ];
        let status = wait::until("the object is told", LIMIT, async || {
            let text = place.world.cluster.kubectl(&read).await?;
            Ok(text.contains("Accepted").then_some(text))
        })
        .await?;
        assert!(status.contains("Invalid") && status.contains("Oracle"), "{status}");
        place.settled().await?;
        quiet(&place).await?;
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

// An operator that dies anywhere leaves work that the next one ends.
#[test]
fn an_operator_that_is_killed_again_and_again_gets_there() {
    in_namespace("killed", async |place| {
        for object in [
            processor("ttp", "Processor"),
            processor("sink", "Consumer"),
            pipeline("payments"),
        ] {
            place.apply(object).await?;
        }
        for milliseconds in [30, 60, 90, 120, 150, 200, 250, 300] {
            let operator = place.operator().await?;
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            operator.kill().await;
        }
        let operator = place.operator().await?;
        place.ready::<Pipeline>("payments").await?;
        place.settled().await?;
        assert_eq!(replica_sets(&place).await?.len(), 1, "no roll-out too many");
        operator.stop().await
    });
}
