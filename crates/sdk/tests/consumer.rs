//! A consumer as its pipeline sees it, over loopback.

mod common;

use common::{args, consume, start, within};
use flowctl_proto::pipeline::v1::ConsumptionStatus;
use flowctl_sdk::{BoxError, Consumer, Consumption, Message, Service};
use futures::{StreamExt as _, stream};

/// Takes numbers, but not all of them now.
struct Numbers;

impl Consumer for Numbers {
    async fn consume(&self, message: Message) -> Result<Consumption, BoxError> {
        let number: u32 = message.json()?;
        if number == 13 {
            return Ok(Consumption::Retry("13 is full".into()));
        }
        Ok(Consumption::Consumed)
    }
}

// A pipeline tells "lost for ever" from "try again" by the status alone.
#[tokio::test]
async fn each_end_has_its_status() {
    let running = start(Service::consumer(Numbers), &args()).await;
    let mut client = running.consumer().await;
    for (payload, status, says) in [
        ("1", ConsumptionStatus::Success, ""),
        ("13", ConsumptionStatus::Retry, "13 is full"),
        ("one", ConsumptionStatus::Error, "line 1"),
    ] {
        let answer = within(client.consume(consume(payload, payload)))
            .await
            .expect("gRPC OK");
        let answer = answer.into_inner();
        assert_eq!((answer.status(), answer.trace_id.as_str()), (status, payload));
        assert!(answer.error_message.contains(says), "{}", answer.error_message);
    }
}

#[tokio::test]
async fn a_stream_is_answered_in_order() {
    let running = start(Service::consumer(Numbers), &args()).await;
    let mut client = running.consumer().await;
    let requests = (0..100).map(|n| consume(&n.to_string(), &n.to_string()));
    let answers = within(client.stream_consume(stream::iter(requests)))
        .await
        .expect("a stream");
    let answers: Vec<_> = within(answers.into_inner().collect()).await;
    assert_eq!(answers.len(), 100);
    for (n, answer) in answers.into_iter().enumerate() {
        let answer = answer.expect("an answer");
        let expected = if n == 13 {
            ConsumptionStatus::Retry
        } else {
            ConsumptionStatus::Success
        };
        assert_eq!(
            (answer.trace_id.as_str(), answer.status()),
            (n.to_string().as_str(), expected)
        );
    }
}
