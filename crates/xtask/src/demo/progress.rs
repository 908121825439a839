//! Waiting, with what changes told as it changes.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use flowctl_testkit::cluster::Cluster;
use serde_json::Value;

const POLL: Duration = Duration::from_millis(500);

/// Waits until every object of both kinds is Ready; a finished batch run is.
pub(super) async fn until_ready(cluster: &Cluster, namespace: &str, limit: Duration) -> Result<()> {
    let begin = Instant::now();
    let mut told = BTreeMap::new();
    loop {
        let states = states(cluster, namespace).await?;
        for (object, state) in &states {
            if told.get(object) != Some(state) {
                eprintln!("{:>4}s  {object:<36} {}", begin.elapsed().as_secs(), state.text);
            }
        }
        if let Some((object, state)) = states.iter().find(|(_, state)| state.failed) {
            bail!("{object} failed: {}", state.text);
        }
        if !states.is_empty() && states.values().all(|state| state.settled) {
            return Ok(());
        }
        if begin.elapsed() > limit {
            let pods = cluster
                .kubectl(&["get", "pods", "--namespace", namespace, "-o", "wide"])
                .await?;
            bail!("not everything is Ready after {} s\n{pods}", limit.as_secs());
        }
        told = states;
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until the sink has counted this many ledgers, and returns its totals.
pub(super) async fn until_counted(cluster: &Cluster, namespace: &str, ledgers: u64, limit: Duration) -> Result<String> {
    let totals = format!("/api/v1/namespaces/{namespace}/services/analytics-sink-processor:http/proxy/totals");
    let begin = Instant::now();
    let mut told = None;
    loop {
        let counted = match cluster.kubectl(&["get", "--raw", &totals]).await {
            Ok(answer) => {
                let answer: Value = serde_json::from_str(&answer).context("the sink's totals are not JSON")?;
                answer["ledgers"].as_u64().unwrap_or(0)
            }
            // The Service may not have its first endpoint yet.
            Err(_) => 0,
        };
        if told != Some(counted) {
            eprintln!("{:>4}s  {counted} of {ledgers} ledgers", begin.elapsed().as_secs());
            told = Some(counted);
        }
        if counted >= ledgers {
            return Ok(cluster
                .kubectl(&["get", "--raw", &format!("{totals}?format=text")])
                .await?);
        }
        if begin.elapsed() > limit {
            let log = cluster
                .kubectl(&[
                    "logs",
                    "--namespace",
                    namespace,
                    "-l",
                    "flowctl.dev/name=payments",
                    "--tail",
                    "30",
                ])
                .await
                .unwrap_or_else(|error| error.to_string());
            bail!(
                "only {counted} of {ledgers} ledgers after {} s; the pipeline says:\n{log}",
                limit.as_secs()
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

#[derive(Clone, Debug, PartialEq)]
struct State {
    text: String,
    settled: bool,
    failed: bool,
}

async fn states(cluster: &Cluster, namespace: &str) -> Result<BTreeMap<String, State>> {
    let answer = cluster
        .kubectl(&[
            "get",
            "pipelines.flowctl.dev,externalprocessors.flowctl.dev",
            "--namespace",
            namespace,
            "-o",
            "json",
        ])
        .await?;
    let answer: Value = serde_json::from_str(&answer).context("kubectl did not print JSON")?;
    let items = answer["items"].as_array().cloned().unwrap_or_default();
    Ok(items.iter().map(|item| (name(item), state(item))).collect())
}

fn name(item: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{} {}", text(&item["kind"]), text(&item["metadata"]["name"]))
}

fn state(item: &Value) -> State {
    let condition = |kind: &str| {
        let conditions = item["status"]["conditions"].as_array();
        conditions
            .and_then(|all| all.iter().find(|condition| condition["type"] == kind))
            .cloned()
            .unwrap_or_default()
    };
    let (ready, available) = (condition("Ready"), condition("Available"));
    // A batch run that runs is Ready already: the demo shows its end.
    let batch = item["spec"]["mode"] == "Batch";
    let settled = ready["status"] == "True" && (!batch || available["reason"] == "Complete");
    let failed = available["reason"] == "Failed";
    let why = item["status"]["why"].as_str().unwrap_or_default();
    let reason = if batch { &available["reason"] } else { &ready["reason"] };
    let text = match (ready["status"].as_str(), reason.as_str()) {
        (Some("True"), Some("Ready")) => "Ready".to_owned(),
        (Some("True"), Some(reason)) => format!("Ready ({reason})"),
        (Some(_), Some(reason)) if why.is_empty() => reason.to_owned(),
        (Some(_), Some(_)) => why.to_owned(),
        _ => "waiting for the operator".to_owned(),
    };
    State { text, settled, failed }
}
