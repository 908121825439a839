//! The program as a pod runs it: configured by its environment alone, asked over gRPC, ended by a signal.

mod program;

use flowctl_proto::pipeline::v1::processor_service_client::ProcessorServiceClient;
use flowctl_proto::pipeline::v1::{ProcessRequest, ProcessingStatus};
use flowctl_stellar::stellar_xdr::LedgerCloseMeta;
use program::Program;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use ttp_processor::LedgerEvents;

fn request(payload: Vec<u8>) -> ProcessRequest {
    ProcessRequest {
        trace_id: "t".into(),
        payload: payload.into(),
        ..ProcessRequest::default()
    }
}

// A quiet ledger must go on as an empty list: skipped, the next step could not tell it from a missing one. And what is no
// ledger must be answered with what is wrong with it.
#[tokio::test]
async fn ledgers_become_events() {
    let program = Program::start(env!("CARGO_BIN_EXE_ttp-processor"), &[]).await;
    let mut client = ProcessorServiceClient::connect(program.grpc()).await.expect("connect");

    let ledger = flowctl_stellar::json::to_vec(&LedgerCloseMeta::default()).expect("JSON");
    let answer = client.process(request(ledger)).await.expect("gRPC OK").into_inner();
    assert_eq!(answer.status(), ProcessingStatus::Success, "{}", answer.error_message);
    let events: LedgerEvents = serde_json::from_slice(&answer.payload).expect("events");
    assert_eq!((events.ledger, events.events.len()), (0, 0));

    for (payload, says) in [("{}", "LedgerCloseMeta"), ("no", "line 1"), (r#"{"v9":{}}"#, "v9")] {
        let answer = client
            .process(request(payload.into()))
            .await
            .expect("gRPC OK")
            .into_inner();
        assert_eq!(answer.status(), ProcessingStatus::Error);
        assert!(
            answer.error_message.contains(says),
            "{payload}: {}",
            answer.error_message
        );
    }
    drop(client);
    assert!(program.terminate().await.success());
}

// Seed 002: off by default, and on with one variable. A service that speaks unasked calls a stranger; one that does not
// speak when asked is never seen.
#[tokio::test]
async fn it_reports_to_a_control_plane_only_when_it_is_told_to() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0";
    let control_plane = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = control_plane.local_addr().expect("an address").to_string();
    let silent = [("FLOWCTL_ENDPOINT", endpoint.as_str())];
    let program = Program::start(env!("CARGO_BIN_EXE_ttp-processor"), &silent).await;
    assert!(program.terminate().await.success());

    let told = [("ENABLE_FLOWCTL", "true"), ("FLOWCTL_ENDPOINT", endpoint.as_str())];
    let program = Program::start(env!("CARGO_BIN_EXE_ttp-processor"), &told).await;
    let (mut first, _) = program::in_time(control_plane.accept()).await.expect("a connection");
    let mut preface = [0; PREFACE.len()];
    // A connection of the silent one would be closed by now.
    program::in_time(first.read_exact(&mut preface))
        .await
        .expect("an open connection");
    assert_eq!(preface, PREFACE);
    assert!(
        program.terminate().await.success(),
        "a control plane that never answers does not hinder the end"
    );
}
