//! What a kubelet and a Prometheus see of a program that uses this crate.

use std::net::SocketAddr;

use flowctl_runtime::{AdminServer, METRICS_CONTENT_TYPE, Metrics, Readiness};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::counter::Counter;

struct Answer {
    status: StatusCode,
    content_type: String,
    body: String,
}

async fn get(address: SocketAddr, path: &str) -> Answer {
    let stream = tokio::net::TcpStream::connect(address).await.expect("connect");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("handshake");
    let driver = tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .expect("request");
    let response = sender.send_request(request).await.expect("answer");
    let status = response.status();
    let content_type = response.headers()[header::CONTENT_TYPE]
        .to_str()
        .expect("text")
        .to_owned();
    let body = response.into_body().collect().await.expect("body").to_bytes();
    driver.abort();
    Answer {
        status,
        content_type,
        body: String::from_utf8(body.into()).expect("UTF-8"),
    }
}

async fn bind(readiness: &Readiness, metrics: &Metrics) -> AdminServer {
    let any = "127.0.0.1:0".parse().expect("an address");
    AdminServer::bind(any, readiness, metrics).await.expect("a free port")
}

// A probe must see "not ready", and an operator of the program why, until every part has started.
#[tokio::test]
async fn readyz_names_what_is_not_ready() {
    let readiness = Readiness::new();
    let check = readiness.check("cache", "waiting for the first list");
    let admin = bind(&readiness, &Metrics::new("test", "0")).await.spawn();

    let waiting = get(admin.local_addr(), "/readyz").await;
    assert_eq!(waiting.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        waiting.body.contains("cache: waiting for the first list"),
        "{}",
        waiting.body
    );
    assert_eq!(get(admin.local_addr(), "/livez").await.status, StatusCode::OK);

    check.ready();
    assert_eq!(get(admin.local_addr(), "/readyz").await.status, StatusCode::OK);
}

// Prometheus refuses a scrape whose type or text it does not know.
#[tokio::test]
async fn metrics_are_openmetrics() {
    let metrics = Metrics::new("test", "1.2.3");
    let admin = bind(&Readiness::new(), &metrics).await.spawn();
    let seen = metrics.register(|registry| {
        let seen = Counter::<u64>::default();
        registry.register("seen", "Things seen", seen.clone());
        seen
    });
    seen.inc();

    let answer = get(admin.local_addr(), "/metrics").await;
    assert_eq!(answer.content_type, METRICS_CONTENT_TYPE);
    assert!(
        answer
            .body
            .contains(r#"flowctl_build_info{component="test",version="1.2.3"} 1"#),
        "{}",
        answer.body
    );
    assert!(answer.body.contains("seen_total 1\n"), "{}", answer.body);
    assert!(answer.body.ends_with("# EOF\n"), "{}", answer.body);
}

// Two programs in one pod are a common mistake: the message must name the port.
#[tokio::test]
async fn a_taken_address_is_named() {
    let (readiness, metrics) = (Readiness::new(), Metrics::new("test", "0"));
    let first = bind(&readiness, &metrics).await;
    let taken = first.local_addr();
    let error = AdminServer::bind(taken, &readiness, &metrics).await.expect_err("taken");
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
}
