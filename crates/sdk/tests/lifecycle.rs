//! Health in its three dialects, and the end of a service: what a pod sees when it is deleted under load.

mod common;

use std::sync::Arc;

use common::{Running, args, process, start, within};
use flowctl_proto::pipeline::v1::{HealthCheckRequest, HealthStatus, ProcessingStatus};
use flowctl_runtime::Readiness;
use flowctl_sdk::{BoxError, Message, Outcome, Processor, ServeError, Service};
use futures::StreamExt as _;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const NAME: &str = "pipeline.v1.ProcessorService";

/// Says when it has a message, and keeps it until it is let go.
#[derive(Clone, Default)]
struct Gate {
    entered: Arc<Notify>,
    open: Arc<Notify>,
}

impl Processor for Gate {
    async fn process(&self, message: Message) -> Result<Outcome, BoxError> {
        self.entered.notify_one();
        self.open.notified().await;
        message.forward("done")
    }
}

async fn probe(running: &Running, name: &str) -> Result<ServingStatus, tonic::Status> {
    let request = tonic_health::pb::HealthCheckRequest {
        service: name.to_owned(),
    };
    let mut client = HealthClient::new(running.channel().await);
    within(client.check(request))
        .await
        .map(|answer| answer.into_inner().status())
}

// Three kinds of callers ask three questions, and must never get different answers.
#[tokio::test]
async fn the_three_dialects_agree() {
    let readiness = Readiness::new();
    let store = readiness.check("store", "opening");
    let service = Service::processor(Gate::default())
        .name("gate", "7")
        .readiness(&readiness);
    let running = start(service, &args()).await;
    let mut client = running.processor().await;

    let answer = within(client.health_check(HealthCheckRequest {}))
        .await
        .expect("an answer");
    let answer = answer.into_inner();
    assert_eq!(answer.status(), HealthStatus::Unhealthy);
    assert!(answer.message.contains("store: opening"), "{}", answer.message);
    assert_eq!(answer.metadata["version"], "7");
    for name in ["", NAME] {
        assert_eq!(probe(&running, name).await.expect("known"), ServingStatus::NotServing);
    }
    assert_eq!(
        probe(&running, "other").await.expect_err("unknown").code(),
        Code::NotFound
    );
    let ready = running.get("/readyz").await;
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains("store: opening"),
        "{ready}"
    );

    let watch = tonic_health::pb::HealthCheckRequest {
        service: NAME.to_owned(),
    };
    let mut watcher = HealthClient::new(running.channel().await);
    let mut states = within(watcher.watch(watch)).await.expect("a stream").into_inner();
    assert_eq!(
        within(states.next()).await.expect("open").expect("a state").status(),
        ServingStatus::NotServing
    );
    store.ready();
    assert_eq!(
        within(states.next()).await.expect("open").expect("a state").status(),
        ServingStatus::Serving
    );
    assert_eq!(probe(&running, "").await.expect("known"), ServingStatus::Serving);
    let answer = within(client.health_check(HealthCheckRequest {}))
        .await
        .expect("an answer");
    assert_eq!(answer.into_inner().status(), HealthStatus::Healthy);
    assert!(running.get("/readyz").await.starts_with("HTTP/1.1 200"));

    // An open Watch must not keep the service from ending.
    within(running.end()).await.expect("a clean end");
}

// A roll-out under load: nothing that was begun is lost, and callers hear early that they should go elsewhere.
#[tokio::test]
async fn work_under_way_is_finished() {
    let gate = Gate::default();
    let running = start(Service::processor(gate.clone()), &args()).await;
    let watch = tonic_health::pb::HealthCheckRequest {
        service: NAME.to_owned(),
    };
    let mut watcher = HealthClient::new(running.channel().await);
    let mut states = within(watcher.watch(watch)).await.expect("a stream").into_inner();
    within(states.next()).await.expect("open").expect("serving");

    let mut unary = running.processor().await;
    let call = tokio::spawn(async move { unary.process(process("unary", "1")).await });
    within(gate.entered.notified()).await;
    let mut streaming = running.processor().await;
    let (send, requests) = mpsc::channel(4);
    send.send(process("streamed", "1")).await.expect("an open stream");
    let answers = within(streaming.stream_process(ReceiverStream::new(requests))).await;
    let mut answers = answers.expect("a stream").into_inner();
    within(gate.entered.notified()).await;

    running.shutdown.request();
    let state = within(states.next()).await.expect("open").expect("a state").status();
    assert_eq!(state, ServingStatus::NotServing);
    assert!(!running.ended.is_finished());
    assert!(
        running.get("/livez").await.starts_with("HTTP/1.1 200"),
        "alive while it drains"
    );
    assert!(running.get("/readyz").await.contains("shutting down"));

    gate.open.notify_waiters();
    let answer = within(call).await.expect("no panic").expect("an answer").into_inner();
    assert_eq!(answer.status(), ProcessingStatus::Success);
    let answer = within(answers.next()).await.expect("open").expect("an answer");
    assert_eq!(
        (answer.trace_id.as_str(), answer.status()),
        ("streamed", ProcessingStatus::Success)
    );
    let end = within(answers.next())
        .await
        .expect("a last word")
        .expect_err("the stream ends");
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    within(running.ended).await.expect("no panic").expect("a clean end");
}

// A message that never ends must not keep a pod for ever; its sender must hear that it may send it again.
#[tokio::test]
async fn the_grace_period_ends() {
    let gate = Gate::default();
    let mut settings = args();
    settings.grace_period_seconds = 0;
    let running = start(Service::processor(gate.clone()), &settings).await;
    let mut client = running.processor().await;
    let call = tokio::spawn(async move { client.process(process("stuck", "1")).await });
    within(gate.entered.notified()).await;
    let ended = running.end().await;
    assert!(
        matches!(ended, Err(ServeError::GracePeriodOver { calls: 1 })),
        "{ended:?}"
    );
    let refused = within(call).await.expect("no panic").expect_err("no answer");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
}

// A caller that gave up must not leave its work running and its place taken.
#[tokio::test]
async fn a_cancelled_call_is_given_up() {
    let gate = Gate::default();
    let running = start(Service::processor(gate.clone()), &args()).await;
    let mut client = running.processor().await;
    let call = tokio::spawn(async move { client.process(process("left", "1")).await });
    within(gate.entered.notified()).await;
    call.abort();
    let counted = async {
        let line = r#"flowctl_discarded_total{intentional="false",reason="cancelled"} 1"#;
        while !running.get("/metrics").await.contains(line) {
            tokio::task::yield_now().await;
        }
    };
    within(counted).await;
    within(running.end()).await.expect("nothing is under way");
}

// Two services on one port are a common mistake: the message must name the port and what it was for.
#[tokio::test]
async fn a_taken_port_is_named() {
    let running = start(Service::processor(Gate::default()), &args()).await;
    let mut taken = args();
    taken.port = running.grpc.port();
    let bound = Service::processor(Gate::default()).bind(&taken).await;
    let error = bound.err().expect("the port is taken").to_string();
    assert!(
        error.contains(&running.grpc.to_string()) && error.contains("gRPC"),
        "{error}"
    );
}
