//! What is sent, seen from the apiserver's place.

use std::{convert::Infallible, sync::Mutex};

use flowctl_api::Pipeline;
use flowctl_runtime::Metrics as Registry;
use http::Response;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::client::Body;
use serde_json::json;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tower::service_fn;

use super::*;
use crate::leader::{Election, Leader};

type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// A writer behind this fence, and what it sent: method and path, and the body.
fn writer(fence: Fence) -> (Writer, Asked) {
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let service = service_fn(move |request: Request<Body>| {
        let seen = Arc::clone(&seen);
        async move {
            let line = format!("{} {}", request.method(), request.uri().path());
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            seen.lock().expect("no panic").push((line, body));
            Ok::<_, Infallible>(Response::new(Body::from(b"{}".to_vec())))
        }
    });
    let metrics = Metrics::register(&Registry::new("test", "0"));
    let client = Client::new(service, "ns");
    let budget = Arc::new(Budget::of_writes(None));
    let writer = Writer::new(client, Pushback::default(), fence, metrics, budget);
    (writer, asked)
}

// Two replicas that write would undo each other's work; the one that was away does not know yet that it must not.
#[tokio::test]
async fn a_replica_that_does_not_lead_sends_no_write() {
    let (writer, asked) = writer(Fence::closed());
    let body = json!({"metadata": {"name": "x"}});
    let answers = [
        writer.create::<Service>("ns", &body).await.map(drop),
        writer.apply::<Service>("ns", "x", &body, Force::Yes).await.map(drop),
        writer
            .apply_status::<Pipeline, Value>("ns", "x", &body, Payment::Due)
            .await
            .map(drop),
        writer.delete::<Service>("ns", "x", "u").await,
    ];
    for answer in answers {
        assert!(matches!(answer, Err(Error::NotLeader)), "{answer:?}");
    }
    assert_eq!(*asked.lock().expect("no panic"), []);
}

// Between our look and our request somebody may have made another object of the same name.
#[tokio::test]
async fn only_the_very_object_is_deleted() {
    let (writer, asked) = writer(Fence::always());
    writer.delete::<Service>("ns", "x", "u-1").await.expect("deleted");
    let asked = asked.lock().expect("no panic").clone();
    let [(line, body)] = asked.as_slice() else {
        panic!("{asked:?}")
    };
    assert_eq!(line, "DELETE /api/v1/namespaces/ns/services/x");
    assert_eq!(body["preconditions"]["uid"], "u-1", "{body}");
    assert_eq!(body["propagationPolicy"], "Background", "{body}");
}

// Who looks for the cause of a storm counts what was sent; and what was not sent must not delay what is.
#[tokio::test(start_paused = true)]
async fn what_is_not_sent_is_neither_counted_nor_paid() {
    let pushback = Pushback::default();
    let asked_to_wait = http::HeaderMap::from_iter([(http::header::RETRY_AFTER, http::HeaderValue::from_static("5"))]);
    let registry = Registry::new("test", "0");
    let (metrics, budget) = (
        Metrics::register(&registry),
        Arc::new(Budget::of_writes(std::num::NonZeroU32::new(1))),
    );
    let service =
        service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::from(b"{}".to_vec()))) });
    let client = Client::new(service, "ns");
    let writer = Writer::new(client, pushback.clone(), Fence::always(), metrics, Arc::clone(&budget));
    let body = json!({"metadata": {"name": "x"}});
    let counted = || {
        let text = registry.encode().expect("text");
        text.lines()
            .filter(|line| line.starts_with("flowctl_operator_writes_total"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    pushback.hear(http::StatusCode::TOO_MANY_REQUESTS, &asked_to_wait);
    for _ in 0..10 {
        let answer = writer.apply::<Service>("ns", "x", &body, Force::Yes).await;
        assert!(matches!(answer, Err(Error::Pushback(_))), "{answer:?}");
    }
    assert_eq!((counted(), budget.ready()), (Vec::<String>::new(), Ok(())));
    tokio::time::advance(Duration::from_secs(5)).await;
    writer
        .apply::<Service>("ns", "x", &body, Force::Yes)
        .await
        .expect("sent");
    assert_eq!(counted().len(), 1);
    let left = (0..10).filter(|_| budget.take().is_ok()).count();
    assert_eq!(left, 3, "of four");
    writer
        .apply_status::<Pipeline, Value>("ns", "x", &body, Payment::Done)
        .await
        .expect("sent");
    assert_eq!(budget.ready(), Ok(()), "it was paid before");
    writer
        .apply::<Service>("ns", "x", &body, Force::Yes)
        .await
        .expect("sent");
    assert!(budget.ready().is_err());
}

// A request that was dropped because another replica may lead by now is none that this one sent: whoever looks for two writers
// by their counts would find them.
#[tokio::test(start_paused = true)]
async fn what_the_fence_drops_is_not_counted() {
    // It grants the lease once, and is silent from then on.
    let granted = Arc::new(Mutex::new(false));
    let lease = service_fn(move |request: Request<Body>| {
        let is_read = request.method() == http::Method::GET;
        let first = !is_read && !std::mem::replace(&mut *granted.lock().expect("no panic"), true);
        async move {
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let none = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "message": "",
                "reason": "NotFound"});
            let mut made: Value = serde_json::from_slice(&body).unwrap_or_default();
            made["metadata"]["resourceVersion"] = json!("1");
            let (code, answer) = match (is_read, first) {
                (true, _) => (404, none.to_string().into_bytes()),
                (false, true) => (201, made.to_string().into_bytes()),
                (false, false) => std::future::pending().await,
            };
            let answer = Response::builder().status(code).body(Body::from(answer));
            Ok::<_, Infallible>(answer.expect("an answer"))
        }
    });
    let registry = Registry::new("test", "0");
    let (metrics, fence) = (Metrics::register(&registry), Fence::closed());
    let election = Election {
        namespace: "ns".to_owned(),
        name: "lease".to_owned(),
        identity: "one".to_owned(),
    };
    let (fit, leading) = (
        tokio::sync::watch::channel(true).1,
        tokio::sync::watch::channel(false).0,
    );
    let leader = Leader::new(
        Client::new(lease, "ns"),
        election,
        fence.clone(),
        metrics.clone(),
        fit,
        leading,
    );
    let _leader = AbortOnDropHandle::new(tokio::spawn(leader.run(CancellationToken::new())));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(fence.is_open(), "it leads");
    let silent = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let (client, budget) = (Client::new(silent, "ns"), Arc::new(Budget::of_writes(None)));
    let writer = Writer::new(client, Pushback::default(), fence, metrics, budget);
    let answer = writer.delete::<Service>("ns", "x", "u").await;
    assert!(matches!(answer, Err(Error::NotLeader)), "{answer:?}");
    let text = registry.encode().expect("text");
    assert!(!text.contains("flowctl_operator_writes_total{"), "{text}");
}

// "Cannot reach the apiserver" sends people to the network; and what was made must not count as lost.
#[tokio::test]
async fn an_answer_that_cannot_be_read_is_no_lost_request() {
    for (body, is_garbled) in [("{}", false), ("<html>", true), ("[]", true), ("", true)] {
        let registry = Registry::new("test", "0");
        let service = service_fn(move |_: Request<Body>| async move {
            Ok::<_, Infallible>(Response::new(Body::from(body.as_bytes().to_vec())))
        });
        let writer = Writer::new(
            Client::new(service, "ns"),
            Pushback::default(),
            Fence::always(),
            Metrics::register(&registry),
            Arc::new(Budget::of_writes(None)),
        );
        let answer = writer
            .create::<Service>("ns", &json!({"metadata": {"name": "x"}}))
            .await;
        assert_eq!(
            matches!(answer, Err(Error::Garbled(_))),
            is_garbled,
            "{body}: {answer:?}"
        );
        let text = registry.encode().expect("text");
        assert!(text.contains(r#"verb="create",code="200"} 1"#), "{body}: {text}");
    }
}
