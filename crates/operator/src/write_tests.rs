//! What is sent, seen from the apiserver's place.

use std::{convert::Infallible, sync::Mutex};

use flowctl_api::Pipeline;
use flowctl_runtime::Metrics as Registry;
use http::Response;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::client::Body;
use serde_json::json;
use tower::service_fn;

use super::*;

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
    let writer = Writer::new(client, Pushback::default(), fence, metrics, Budget::of_writes(None));
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
        writer.apply_status::<Pipeline, Value>("ns", "x", &body).await.map(drop),
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
