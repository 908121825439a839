//! The program as a pod runs it: configured by its environment alone, asked over gRPC, ended by a signal.

mod program;

use flowctl_proto::pipeline::v1::processor_service_client::ProcessorServiceClient;
use flowctl_proto::pipeline::v1::{ProcessRequest, ProcessingStatus};
use flowctl_stellar::stellar_xdr::LedgerCloseMeta;
use program::Program;
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
