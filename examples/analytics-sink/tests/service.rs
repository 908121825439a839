//! The program as a pod runs it: configured by its environment alone, fed over a gRPC stream, read over HTTP, ended by a signal.

mod program;

use flowctl_proto::pipeline::v1::consumer_service_client::ConsumerServiceClient;
use flowctl_proto::pipeline::v1::{ConsumeRequest, ConsumptionStatus};
use futures::{StreamExt as _, stream};
use program::{Program, free_port, get};
use serde_json::{Value, json};

fn request(payload: &Value) -> ConsumeRequest {
    ConsumeRequest {
        payload: payload.to_string().into(),
        ..ConsumeRequest::default()
    }
}

// The path that a user looks at in the end: what was sent, once or twice, is what the totals say.
#[tokio::test]
async fn totals_are_what_was_sent() {
    let http = free_port();
    let port = http.to_string();
    let program = Program::start(env!("CARGO_BIN_EXE_analytics-sink"), &[("HTTP_PORT", &port)]).await;
    let mut client = ConsumerServiceClient::connect(program.grpc()).await.expect("connect");

    let huge = i128::MAX.to_string();
    let ledger = |number: u32, amount: &str| {
        json!({"ledger": number, "closed_at": "2020-07-29T18:29:37Z", "events": [
            {"kind": "transfer", "from": "GA", "to": "GB", "asset": "native", "amount": "7", "ledger": number},
            {"kind": "mint", "to": "GB", "asset": "USD:GC", "amount": amount, "ledger": number},
        ]})
    };
    let bad = json!({"ledger": 4, "events": [{"kind": "transfer", "asset": "native", "amount": 7.5}]});
    let (first, second) = (ledger(1, "100"), ledger(3, &huge));
    let requests = [&first, &first, &bad, &second, &second].map(request);
    let answers = client.stream_consume(stream::iter(requests)).await.expect("a stream");
    let states: Vec<_> = answers
        .into_inner()
        .map(|answer| answer.expect("an answer").status())
        .collect()
        .await;
    use ConsumptionStatus::{Error, Success};
    assert_eq!(states, [Success, Success, Error, Success, Success]);

    let answer = get(http, "/totals").await.expect("an answer");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    let totals: Value = serde_json::from_str(body).expect("JSON");
    for (field, expected) in [
        ("ledgers", 2),
        ("first", 1),
        ("last", 3),
        ("missing", 1),
        ("duplicates_ignored", 2),
    ] {
        assert_eq!(totals[field], expected, "{field} in {totals}");
    }
    let assets = totals["assets"].as_array().expect("assets");
    assert_eq!(
        (&assets[0]["asset"], &assets[0]["events"]),
        (&json!("USD:GC"), &json!(2))
    );
    assert_eq!(assets[0]["mints"], json!({"events": 2, "amount": "overflow"}));
    assert_eq!(assets[1]["transfers"], json!({"events": 2, "amount": "14"}));
    assert_eq!(
        (&assets[1]["amount_in"], &assets[1]["amount_out"]),
        (&json!("14"), &json!("14"))
    );

    let text = get(http, "/totals?format=text&limit=1").await.expect("an answer");
    assert!(
        text.contains("text/plain") && text.contains("USD:GC") && !text.contains("native"),
        "{text}"
    );
    let refused = get(http, "/totals?format=xml").await.expect("an answer");
    assert!(
        refused.starts_with("HTTP/1.1 400") && refused.contains("`text`"),
        "{refused}"
    );

    drop(client);
    assert!(program.terminate().await.success());
}
