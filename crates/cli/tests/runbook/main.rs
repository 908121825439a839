//! The runbooks of seeds 001 and 002, typed word by word against a running server; and what scripts rely on.

mod stage;

use std::path::Path;

use flowctl_proto::flowctl::control_plane_client::ControlPlaneClient;
use flowctl_proto::flowctl::{CreatePipelineRunRequest, RunMetrics, RunStatus, UpdatePipelineRunRequest};
use flowctl_sdk::control_plane::{
    Component, PipelineMetadata, ProcessorMetadata, Registration, Role, STELLAR_LEDGER_EVENT, Session, Settings,
    SinkMetadata, SourceMetadata, State, Statistics, TTP_EVENT,
};
use stage::{DEADLINE, Receiver, Server};

const PIPELINE: &str = "cdp-contract-events-123";

fn settings(server: &Server, id: &str) -> Settings {
    let endpoint = flowctl_bridge::Endpoint::parse(&server.endpoint).expect("an endpoint");
    Settings {
        interval: std::time::Duration::from_millis(500),
        id: Some(id.to_owned()),
        ..Settings::new(endpoint)
    }
}

async fn registered(session: &Session) {
    let mut state = session.state();
    let registered = state.wait_for(|state| matches!(state, State::Registered(_)));
    tokio::time::timeout(DEADLINE, registered)
        .await
        .expect("in time")
        .expect("alive");
}

/// The pipeline of seed 001's runbook, with one of its components to play with.
async fn pipeline(server: &Server) -> (Session, Component) {
    let statistics = Statistics::new();
    let source = statistics.component("source", "BufferedStorageSourceAdapter");
    source.report([("processed_ledgers", 125_000.0), ("current_ledger", 52_125_000.0)]);
    let sink = statistics.component("consumer", "SaveToParquet");
    sink.report([("files_written", 234.0), ("total_bytes", 48_318_382_080.0)]);
    let registration = Registration::new(Role::Pipeline, "contract-events").metadata(PipelineMetadata {
        config_file: "contract_events.yaml".into(),
        version: "1.0".into(),
        network: "mainnet".into(),
    });
    let session = Session::spawn(settings(server, PIPELINE), registration, statistics);
    registered(&session).await;
    (session, sink)
}

// Seed 001, "Status Commands", "Health Checks" and "Operational Runbook": whoever is called at night types these.
#[tokio::test(flavor = "multi_thread")]
async fn the_runbook_of_seed_001_works() {
    let server = Server::start("server", &["--storage-type", "boltdb"]).await;
    let (session, sink) = pipeline(&server).await;

    let overview = server.run(&["status"]);
    let mut lines = overview.out.lines();
    assert_eq!(
        lines.next().expect("a head").split_whitespace().collect::<Vec<_>>(),
        ["ID", "TYPE", "STATUS", "UPTIME"]
    );
    let row: Vec<_> = lines.next().expect("a row").split_whitespace().collect();
    assert_eq!(row[..3], [PIPELINE, "cdp-pipeline", "healthy"]);

    let detail = server.run(&["status", PIPELINE]).out;
    for line in [
        "Pipeline: cdp-contract-events-123",
        "Type: cdp-pipeline",
        "Status: healthy",
        "Config: contract_events.yaml",
        "Network: mainnet",
        "  pipeline.component_count: 2",
        "  source.BufferedStorageSourceAdapter.processed_ledgers: 125000",
        "  source.BufferedStorageSourceAdapter.current_ledger: 52125000",
        "  consumer.SaveToParquet.files_written: 234",
        "  consumer.SaveToParquet.total_bytes: 48318382080",
        "Health Details:",
        "  BufferedStorageSourceAdapter_status: healthy",
        "  SaveToParquet_status: healthy",
    ] {
        assert!(detail.lines().any(|shown| shown == line), "{line}\n{detail}");
    }
    let verbose = server.run(&["status", PIPELINE, "--verbose"]).out;
    assert!(
        verbose.contains("Last heartbeat: ") && verbose.contains("Liveness: live"),
        "{verbose}"
    );

    // flowctl status ID --json | jq '.metrics' | grep -q processed_ledgers
    let json: serde_json::Value = serde_json::from_str(&server.run(&["status", PIPELINE, "--json"]).out).expect("JSON");
    assert_eq!(
        json["metrics"]["source.BufferedStorageSourceAdapter.processed_ledgers"],
        125_000
    );
    let yaml = server.run(&["status", PIPELINE, "-o", "yaml"]).out;
    assert!(yaml.contains("service_id: cdp-contract-events-123"), "{yaml}");

    let health = server.run(&["health", PIPELINE]);
    assert_eq!(
        (health.code, health.out.as_str()),
        (0, "✓ cdp-contract-events-123 is healthy\n")
    );
    sink.in_trouble(true);
    server
        .until("degraded is exit code 3", |server| {
            server.run(&["health", PIPELINE]).code == 3
        })
        .await;
    assert!(
        server
            .run(&["status", PIPELINE])
            .out
            .contains("SaveToParquet_status: unhealthy")
    );

    let metrics = server.run(&["metrics", PIPELINE, "--duration", "1h"]);
    assert_eq!(metrics.code, 0, "{metrics:?}");
    let row = metrics
        .out
        .lines()
        .find(|line| line.starts_with("consumer.SaveToParquet.files_written"));
    let row: Vec<_> = row.expect("the metric").split_whitespace().collect();
    assert_eq!(row[1..4], ["234", "234", "234"], "{metrics:?}");
    assert!(row[6].chars().all(|bar| ('▁'..='█').contains(&bar)), "{metrics:?}");
    let some = server.json(&["metrics", PIPELINE, "--metric", "pipeline.component_count"]);
    assert_eq!(some["metrics"].as_array().expect("a list").len(), 1, "{some}");

    // Scripts tell these apart.
    assert_eq!(server.run(&["health", "nobody"]).code, 4);
    assert_eq!(server.run(&["status", "nobody"]).code, 4);
    assert_eq!(server.run(&["metrics", "nobody"]).code, 4);
    assert_eq!(server.run(&["status", "--no-such-flag"]).code, 2);
    assert_eq!(
        stage::run(Path::new(env!("CARGO_BIN_EXE_flowctl")), "127.0.0.1:1", &["health"]).code,
        5
    );

    session.end().await;
    assert_eq!(server.run(&["health", PIPELINE]).code, 4, "a clean end unregisters");
    server.stop().await;
}

// Seed 002, "End-to-End Testing Scenario": flowctl start, three components, curl.
#[tokio::test(flavor = "multi_thread")]
async fn the_scenario_of_seed_002_works() {
    let server = Server::start("start", &[]).await;
    let source = Registration::new(Role::Source, "stellar-arrow-source")
        .output_event_types([STELLAR_LEDGER_EVENT])
        .health_endpoint("http://localhost:8088/health")
        .metadata(SourceMetadata {
            network: "Test SDF Network ; September 2015".into(),
            storage_type: "datalake".into(),
            backend_type: "s3".into(),
        });
    let processor = Registration::new(Role::Processor, "ttp-arrow-processor")
        .input_event_types([STELLAR_LEDGER_EVENT])
        .output_event_types([TTP_EVENT])
        .metadata(ProcessorMetadata {
            processor_type: "ttp_event_extraction".into(),
            ..Default::default()
        });
    let sink = Registration::new(Role::Sink, "arrow-analytics-sink")
        .input_event_types([TTP_EVENT])
        .metadata(SinkMetadata {
            output_formats: vec!["parquet".into(), "websocket".into()],
            websocket: Some("ws://localhost:8080/ws".into()),
            ..Default::default()
        });
    let statistics = Statistics::new();
    let mut sessions = Vec::new();
    for registration in [(source, "source-1"), (processor, "processor-1"), (sink, "sink-1")] {
        let session = Session::spawn(settings(&server, registration.1), registration.0, statistics.clone());
        registered(&session).await;
        sessions.push(session);
    }
    let services = server.get("/api/services").await;
    let listed = services
        .as_array()
        .or_else(|| services["services"].as_array())
        .expect("a list");
    assert_eq!(listed.len(), 3, "{services}");

    let table = server.run(&["services", "--type", "sink"]).out;
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(
        table.contains("sink-1") && table.contains("arrow-analytics-sink"),
        "{table}"
    );
    let sink = server.json(&["status", "sink-1"]);
    assert_eq!(sink["metadata"]["output_formats"], "parquet,websocket");
    assert_eq!(sink["input_event_types"][0], TTP_EVENT);
    for session in sessions {
        session.end().await;
    }
    server.stop().await;
}

// An alert that does not reach anybody, or that anybody can forge, is worse than none.
#[tokio::test(flavor = "multi_thread")]
async fn an_alert_calls_its_webhook_with_a_signature() {
    const SECRET: &str = "correct horse";
    let server = Server::start("server", &["--no-persistence"]).await;
    let receiver = Receiver::start(SECRET).await;
    let (session, sink) = pipeline(&server).await;
    let file = server.path().join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).expect("write");
    let made = server.json(&[
        "alert",
        "create",
        "--service",
        PIPELINE,
        "--condition",
        "status != healthy",
        "--webhook",
        &receiver.url,
        "--secret-file",
        file.to_str().expect("UTF-8"),
    ]);
    assert_eq!(made["signed"], true);
    let id = made["alert_id"].as_str().expect("an id").to_owned();
    let state = |server: &Server| server.json(&["alert", "list"])[0]["instances"][0]["state"].clone();
    server
        .until("the condition does not hold", |server| state(server) == "ok")
        .await;
    assert!(
        receiver.calls().is_empty(),
        "nothing happened yet: {:?}",
        receiver.calls()
    );

    sink.in_trouble(true);
    server
        .until("the webhook is called", |_| !receiver.calls().is_empty())
        .await;
    assert_eq!(state(&server), "firing");
    sink.in_trouble(false);
    server
        .until("the webhook hears the end", |_| receiver.calls().len() >= 2)
        .await;
    let calls = receiver.calls();
    assert!(calls.iter().all(|call| call.genuine), "{calls:?}");
    assert!(
        calls.iter().all(|call| call.body.to_string().contains(PIPELINE)),
        "{calls:?}"
    );

    let table = server.run(&["alert", "list"]).out;
    assert!(
        table.contains(&id) && table.contains("status != healthy") && table.contains("ok"),
        "{table}"
    );
    assert_eq!(server.run(&["alert", "delete", &id]).code, 0);
    assert_eq!(server.run(&["alert", "delete", &id]).code, 4);
    assert_eq!(server.json(&["alert", "list"]), serde_json::json!([]));
    let refused = server.run(&[
        "alert",
        "create",
        "--condition",
        "status != fine",
        "--webhook",
        &receiver.url,
    ]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("fine"), "{refused:?}");
    session.end().await;
    server.stop().await;
}

// Runs are what a person looks at after the fact.
#[tokio::test(flavor = "multi_thread")]
async fn runs_are_listed_shown_and_stopped() {
    let server = Server::start("server", &["--no-persistence"]).await;
    let mut client = ControlPlaneClient::connect(format!("http://{}", server.endpoint))
        .await
        .expect("connect");
    for run_id in ["run-1", "run-2", "run-3"] {
        let request = CreatePipelineRunRequest {
            run_id: run_id.to_owned(),
            pipeline_name: "payments".to_owned(),
            config_yaml: "pipeline: {}".to_owned(),
            component_ids: vec!["ttp".to_owned()],
        };
        client.create_pipeline_run(request).await.expect("made");
    }
    let update = UpdatePipelineRunRequest {
        run_id: "run-1".to_owned(),
        status: RunStatus::Running.into(),
        metrics: Some(RunMetrics {
            events_processed: 42,
            ..Default::default()
        }),
        ..Default::default()
    };
    client.update_pipeline_run(update).await.expect("updated");

    let pipelines = server.run(&["pipelines", "list"]).out;
    assert!(
        pipelines
            .lines()
            .any(|line| line.starts_with("payments") && line.contains('3')),
        "{pipelines}"
    );
    let runs = server.json(&["pipelines", "runs", "payments"]);
    assert_eq!(runs[0]["run_id"], "run-3", "the newest first: {runs}");
    let info = server.run(&["pipelines", "run-info", "run-1"]).out;
    assert!(
        info.contains("Status: running") && info.contains("Events: 42"),
        "{info}"
    );
    let stopped = server.run(&["pipelines", "stop", "run-1"]);
    assert_eq!(
        (stopped.code, stopped.out.as_str()),
        (0, "run run-1 of payments is stopped\n")
    );
    let all = server.json(&["pipelines", "stop", "payments"]);
    assert_eq!(all["stopped"].as_array().expect("a list").len(), 2, "{all}");
    assert_eq!(server.run(&["pipelines", "stop", "nothing"]).code, 4);
    assert_eq!(server.run(&["pipelines", "run-info", "nothing"]).code, 4);
    server.stop().await;
}

// kubectl starts plugins by their names; a plugin that calls itself otherwise in its help sends people astray.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_a_plugin_of_kubectl_by_its_name() {
    let server = Server::start("server", &["--no-persistence"]).await;
    let plugin = server.path().join("kubectl-flowctl");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_flowctl"), &plugin).expect("a link");
    let help = stage::run(&plugin, "", &["--help"]).out;
    assert!(help.contains("Usage: kubectl flowctl"), "{help}");
    assert_eq!(
        stage::run(&plugin, &server.endpoint, &["health"]).code,
        0,
        "an endpoint still counts"
    );
    let lost = stage::run(&plugin, "", &["status"]);
    assert_eq!(lost.code, 5, "without a cluster there is nobody to ask: {lost:?}");
    assert!(server.run(&["version"]).out.starts_with("flowctl "));
    assert!(server.run(&["completions", "bash"]).out.contains("run-info"));
    server.stop().await;
}
