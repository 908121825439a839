//! The end of the server, as its clients see it.

mod support;

use std::time::{Duration, Instant};

use flowctl_control_plane::{LimitArgs, ServerArgs};
use flowctl_proto::flowctl::registry::v1 as ours;
use flowctl_proto::flowctl::v1;
use futures::StreamExt as _;
use support::{LIMIT, args, component, get, register, start};
use tokio::net::TcpStream;
use tonic::Code;

// Clients must be told at once, in a way that makes them connect to the next server, and the process must end by itself.
#[tokio::test]
async fn open_streams_end_with_unavailable_and_idle_connections_close() {
    let server = start(args()).await;
    let mut client = server.ours();
    let mut watch = client
        .watch(ours::WatchRequest::default())
        .await
        .expect("a stream")
        .into_inner();
    watch.message().await.expect("started").expect("started");
    let (beats, requests) = tokio::sync::mpsc::channel(4);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut acks = client.stream_heartbeats(requests).await.expect("a stream").into_inner();
    let _idle = TcpStream::connect(server.address).await.expect("a connection");

    let began = Instant::now();
    server.shutdown.request();
    let end = loop {
        match watch.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Unavailable);
    let end = loop {
        match acks.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Unavailable);
    drop(beats);
    server.stop().await;
    // Well before the grace period is over, which would end it in any case.
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

// A client that never reads must not keep the server from ending.
#[tokio::test]
async fn what_does_not_end_is_cut_after_the_grace_period() {
    let grace = Duration::from_secs(1);
    let server = start(ServerArgs {
        limits: LimitArgs {
            grace_period: grace,
            ..LimitArgs::default()
        },
        ..args()
    })
    .await;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let call = |method: &str, body| {
        let request = http::Request::post(format!(
            "http://{}/flowctl.v1.ControlPlaneService/{method}",
            server.address
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .expect("a request");
        client.request(request)
    };
    let frames = |frames: Vec<bytes::Bytes>| {
        let frames = frames
            .into_iter()
            .map(|data| Ok::<_, std::convert::Infallible>(http_body::Frame::data(data)));
        futures::stream::iter(frames)
    };
    let list = || http_body_util::StreamBody::new(frames(vec![bytes::Bytes::from_static(&[0; 5])]).boxed());
    call("ListComponents", list()).await.expect("connected");
    // A unary call whose message never comes to its end. What is answered on the same connection later came after it.
    let never = http_body_util::StreamBody::new(frames(Vec::new()).chain(futures::stream::pending()).boxed());
    let stuck = tokio::spawn(call("Heartbeat", never));
    tokio::task::yield_now().await;
    call("ListComponents", list()).await.expect("an answer");
    let began = Instant::now();
    server.stop().await;
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(500) && took < grace + LIMIT / 2,
        "{took:?}"
    );
    let ended = tokio::time::timeout(LIMIT, stuck).await.expect("the connection is cut");
    drop(ended);
}

// A load balancer must stop sending before the port is gone.
#[tokio::test]
async fn readiness_goes_first() {
    let server = start(args()).await;
    server
        .v1()
        .register_component(register(component("s1")))
        .await
        .expect("registered");
    assert_eq!(get(server.admin, "/readyz", false).await.0, 200);
    let mut client = server.v1();
    client
        .list_components(v1::ListComponentsRequest::default())
        .await
        .expect("connected");
    server.stop().await;
    let error = client
        .list_components(v1::ListComponentsRequest::default())
        .await
        .expect_err("nobody is there");
    assert_eq!(error.code(), Code::Unavailable);
}
