//! A finite range: it completes with every ledger once, or fails and says which one is missing.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use stellar_xdr::LedgerCloseMeta;
use ttp_processor::{Extractor, Kind, LedgerEvents};

use super::scene::{NAMESPACE, Scene};

const COMPLETE: &str = r#"jsonpath={.status.conditions[?(@.type=="Available")].reason}=Complete"#;
const FAILED: &str = r#"jsonpath={.status.conditions[?(@.type=="Available")].reason}=Failed"#;

pub(crate) async fn every_ledger_once_and_the_books_balance(scene: &Scene) {
    scene.apply(&scene.processor(50051, "ttp-processor:dev")).await;
    scene.apply(&scene.pipeline("backfill", "Batch", scene.range)).await;
    scene
        .wait("processor/ttp-processor", "condition=Ready", Duration::from_secs(90))
        .await;
    scene
        .wait("pipeline/backfill", COMPLETE, Duration::from_secs(120))
        .await;
    scene
        .wait("pipeline/backfill", "condition=Ready", Duration::from_secs(10))
        .await;

    let job = scene.get("pipeline/backfill").await;
    let revision = job["status"]["revision"]["current"]
        .as_str()
        .expect("a revision")
        .to_owned();
    let selector = format!("flowctl.dev/name=backfill,flowctl.dev/revision={revision}");
    let log = scene
        .kubectl(&["logs", "--namespace", NAMESPACE, "-l", &selector, "--tail=-1"])
        .await;
    let arrived: Vec<LedgerEvents> = log
        .lines()
        .filter_map(payload)
        .map(|value| serde_json::from_value(value).expect("events"))
        .collect();

    let sequences: Vec<_> = arrived.iter().map(|ledger| ledger.ledger).collect();
    let wanted: Vec<_> = (scene.range.0..=scene.range.1).collect();
    assert_eq!(
        sequences, wanted,
        "a ledger is missing, came twice, or came out of order"
    );

    let extractor = Extractor::for_known_networks();
    let mut pools = BTreeMap::new();
    for (ledger, events) in scene.decoded().iter().zip(&arrived) {
        let here = extractor.extract(&ledger.meta).expect("events");
        assert_eq!(
            &here, events,
            "what came out of the cluster is not what is in ledger {}",
            ledger.sequence
        );
        pools.insert(ledger.sequence, fee_pool(&ledger.meta));
    }
    // A fact that nobody here made: the headers' fee pools.
    for events in &arrived[1..] {
        let fees: i128 = events
            .events
            .iter()
            .filter(|event| event.kind == Kind::Fee)
            .map(|event| event.amount.0)
            .sum();
        let growth = i128::from(pools[&events.ledger]) - i128::from(pools[&(events.ledger - 1)]);
        assert_eq!(
            fees, growth,
            "the fees of ledger {} are not what its fee pool grew by",
            events.ledger
        );
    }
}

pub(crate) async fn a_gap_fails_and_names_the_ledger(scene: &Scene) {
    let (range, missing) = scene.broken;
    scene.apply(&scene.pipeline("gap", "Batch", range)).await;
    scene.wait("pipeline/gap", FAILED, Duration::from_secs(120)).await;
    let object = scene.get("pipeline/gap").await;
    let why = object["status"]["why"].as_str().unwrap_or_default();
    assert!(
        why.contains(&missing.to_string()),
        "the status does not name ledger {missing}: {why}"
    );
    let pods = scene.list("pods", "flowctl.dev/name=gap").await;
    let code = &pods[0]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"];
    assert_eq!(code, 1, "a missing ledger is a failure, not a bad file");
    scene
        .kubectl(&["delete", "pipelines.flowctl.dev", "gap", "--namespace", NAMESPACE])
        .await;
}

/// A line of the consumer; the runner's own lines are not JSON objects with events.
fn payload(line: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(line).ok()?;
    let value = value.get("payload").cloned().unwrap_or(value);
    value.get("events").is_some().then_some(value)
}

fn fee_pool(meta: &LedgerCloseMeta) -> i64 {
    match meta {
        LedgerCloseMeta::V0(meta) => meta.ledger_header.header.fee_pool,
        LedgerCloseMeta::V1(meta) => meta.ledger_header.header.fee_pool,
        LedgerCloseMeta::V2(meta) => meta.ledger_header.header.fee_pool,
    }
}
