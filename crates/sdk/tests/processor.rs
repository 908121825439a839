//! A processor as its pipeline sees it, over loopback.

mod common;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{args, process, start, within};
use flowctl_proto::MAX_MESSAGE_BYTES;
use flowctl_proto::pipeline::v1::{ProcessRequest, ProcessingStatus};
use flowctl_sdk::{BoxError, Message, Outcome, Processor, Service};
use futures::{StreamExt as _, stream};
use tokio::sync::{Barrier, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

/// Does what the message says.
struct Obedient {
    together: Arc<Barrier>,
}

impl Processor for Obedient {
    async fn process(&self, message: Message) -> Result<Outcome, BoxError> {
        let order: String = message.json()?;
        match order.as_str() {
            "skip" => Ok(Outcome::Skip),
            "panic" => panic!("as ordered: {}", message.trace_id),
            "large" => Ok(Outcome::Forward {
                payload: vec![b' '; MAX_MESSAGE_BYTES].into(),
                metadata: message.metadata,
            }),
            "together" => {
                self.together.wait().await;
                message.forward("together")
            }
            _ => message.forward(&order.to_uppercase()),
        }
    }
}

fn obedient(together: usize) -> Service {
    Service::processor(Obedient {
        together: Arc::new(Barrier::new(together)),
    })
    .name("obedient", "1")
}

// The whole contract of a unary call: correlation, payload, metadata, status.
#[tokio::test]
async fn a_call_is_answered() {
    let running = start(obedient(1), &args()).await;
    let mut request = process("t-1", r#""hello""#);
    request.metadata.insert("network".into(), "pubnet".into());
    let mut client = running.processor().await;
    let answer = within(client.process(request)).await.expect("an answer").into_inner();
    assert_eq!(answer.status(), ProcessingStatus::Success);
    assert_eq!(answer.payload, r#""HELLO""#);
    assert_eq!((answer.trace_id.as_str(), answer.error_message.as_str()), ("t-1", ""));
    assert_eq!(answer.metadata["network"], "pubnet");

    let answer = within(client.process(process("t-2", r#""skip""#)))
        .await
        .expect("an answer");
    assert_eq!(answer.into_inner().status(), ProcessingStatus::Skipped);
}

// A bad message must not look like a broken service: the bridge would retry it for ever.
#[tokio::test]
async fn a_wrong_payload_is_an_error_answer() {
    let running = start(obedient(1), &args()).await;
    let mut client = running.processor().await;
    for (payload, says) in [("{", "line 1"), ("", "empty"), ("17", "expected a string")] {
        let answer = within(client.process(process("t", payload))).await.expect("gRPC OK");
        let answer = answer.into_inner();
        assert_eq!(answer.status(), ProcessingStatus::Error);
        assert!(answer.error_message.contains(says), "{}", answer.error_message);
        assert_eq!((answer.trace_id.as_str(), answer.payload.len()), ("t", 0));
    }
}

// One message must not take the others, or the server, with it.
#[tokio::test]
async fn a_panic_is_an_error_answer() {
    let running = start(obedient(1), &args()).await;
    let mut client = running.processor().await;
    let orders = ["a", "panic", "b"].map(|order| process(order, &format!("{order:?}")));
    let answers = within(client.stream_process(stream::iter(orders)))
        .await
        .expect("a stream");
    let answers: Vec<_> = within(answers.into_inner().collect()).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("an answer")).collect();
    let states: Vec<_> = answers.iter().map(|answer| answer.status()).collect();
    use ProcessingStatus::{Error, Success};
    assert_eq!(states, [Success, Error, Success]);
    assert!(
        answers[1].error_message.contains("as ordered: panic"),
        "{}",
        answers[1].error_message
    );
}

// Ledgers must arrive in order, whatever takes longer.
#[tokio::test]
async fn a_stream_is_answered_in_order() {
    let running = start(obedient(1), &args()).await;
    let mut client = running.processor().await;
    let requests = (0..500).map(|n| process(&n.to_string(), &format!("\"m{n}\"")));
    let answers = within(client.stream_process(stream::iter(requests)))
        .await
        .expect("a stream");
    let ids: Vec<_> = within(
        answers
            .into_inner()
            .map(|answer| answer.expect("an answer").trace_id)
            .collect(),
    )
    .await;
    let expected: Vec<_> = (0..500).map(|n| n.to_string()).collect();
    assert_eq!(ids, expected);
}

// One slow message at a time would make a stream as slow as unary calls: these four finish only together.
#[tokio::test]
async fn messages_of_a_stream_are_processed_at_once() {
    let running = start(obedient(4), &args()).await;
    let mut client = running.processor().await;
    let requests = (0..4).map(|n| process(&n.to_string(), r#""together""#));
    let answers = within(client.stream_process(stream::iter(requests)))
        .await
        .expect("a stream");
    assert_eq!(within(answers.into_inner().count()).await, 4);
}

/// Sees how many messages are in it at once.
#[derive(Clone, Default)]
struct Crowd {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Processor for Crowd {
    async fn process(&self, message: Message) -> Result<Outcome, BoxError> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        // Enough turns for others to come in, if they may.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.now.fetch_sub(1, Ordering::SeqCst);
        message.forward("seen")
    }
}

// Code that needs order gets it whatever the settings say, and no setting is exceeded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_at_once_is_bounded() {
    for (author, bound) in [(None, 16), (Some(NonZeroUsize::MIN), 1)] {
        let crowd = Crowd::default();
        let mut service = Service::processor(crowd.clone());
        if let Some(most) = author {
            service = service.max_in_flight(most);
        }
        let running = start(service, &args()).await;
        let mut client = running.processor().await;
        let requests = (0..200).map(|n| process(&n.to_string(), "1"));
        let answers = within(client.stream_process(stream::iter(requests)))
            .await
            .expect("a stream");
        assert_eq!(within(answers.into_inner().count()).await, 200);
        let most = crowd.most.load(Ordering::SeqCst);
        assert!((1..=bound).contains(&most), "{most} at once, with a bound of {bound}");
    }
}

// The answer to a request must not wait for the next request: a live source sends one ledger every five seconds.
#[tokio::test]
async fn an_open_stream_answers_at_once() {
    let running = start(obedient(1), &args()).await;
    let mut client = running.processor().await;
    let (send, requests) = mpsc::channel(1);
    let answers = client.stream_process(ReceiverStream::new(requests));
    let mut answers = within(answers).await.expect("a stream").into_inner();
    for order in ["one", "two"] {
        send.send(process(order, &format!("{order:?}")))
            .await
            .expect("an open stream");
        let answer = within(answers.next()).await.expect("open").expect("an answer");
        assert_eq!(answer.trace_id, order);
    }
    drop(send);
    assert!(within(answers.next()).await.is_none());
}

// Ledgers are larger than gRPC's usual 4 MiB, and a limit must be named, not hang.
#[tokio::test]
async fn large_messages_pass_and_larger_are_refused() {
    let running = start(obedient(1), &args()).await;
    let mut client = running.processor().await;
    let text = "x".repeat(8 * 1024 * 1024);
    let answer = within(client.process(process("t", &format!("{text:?}"))))
        .await
        .expect("OK");
    assert_eq!(answer.into_inner().payload.len(), text.len() + 2);

    let oversize = ProcessRequest {
        payload: vec![b' '; MAX_MESSAGE_BYTES].into(),
        ..Default::default()
    };
    let refused = within(client.process(oversize)).await.expect_err("too large");
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");

    let requests = ["a", "large", "b"].map(|order| process(order, &format!("{order:?}")));
    let answers = within(client.stream_process(stream::iter(requests)))
        .await
        .expect("a stream");
    let answers: Vec<_> = within(answers.into_inner().collect()).await;
    assert_eq!(
        answers.len(),
        3,
        "{:?}",
        answers.iter().map(Result::is_ok).collect::<Vec<_>>()
    );
    let large = answers[1].as_ref().expect("an answer");
    assert_eq!(large.status(), ProcessingStatus::Error);
    assert!(large.error_message.contains("104857600"), "{}", large.error_message);
}

// Received must equal what became of it, or nobody can tell whether messages were lost.
#[tokio::test]
async fn every_message_is_counted_once() {
    let running = start(obedient(1), &args()).await;
    let mut client = running.processor().await;
    for order in ["a", "b", "skip", "panic"] {
        let request = process(order, &format!("{order:?}"));
        within(client.process(request)).await.expect("an answer");
    }
    let metrics = running.get("/metrics").await;
    for line in [
        "flowctl_received_total 4",
        "flowctl_sent_total 2",
        "flowctl_errors_total 1",
        r#"flowctl_discarded_total{intentional="true",reason="skipped"} 1"#,
        "flowctl_in_flight_messages 0",
        "flowctl_processing_seconds_count 3",
        r#"flowctl_build_info{component="obedient",version="1"} 1"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
}
