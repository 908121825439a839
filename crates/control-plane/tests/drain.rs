//! The end of the server, as its clients see it.

mod support;

use std::time::{Duration, Instant};

use flowctl_control_plane::{LimitArgs, ServerArgs};
use flowctl_proto::flowctl::registry::v1 as ours;
use flowctl_proto::flowctl::v1;
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
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
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
    // A unary call whose message never comes to its end.
    let stuck = tokio::spawn({
        let address = server.address;
        async move {
            let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
                .http2_only(true)
                .build_http();
            let never = http_body_util::StreamBody::new(futures::stream::pending::<
                Result<http_body::Frame<bytes::Bytes>, std::convert::Infallible>,
            >());
            let request = http::Request::post(format!("http://{address}/flowctl.v1.ControlPlaneService/Heartbeat"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(never)
                .expect("a request");
            client.request(request).await.map(drop)
        }
    });
    support::until("the call to arrive", async || {
        support::metric(server.admin, "flowctl_control_plane_connections ")
            .await
            .filter(|open| *open >= 1.0)
    })
    .await;
    let began = Instant::now();
    server.stop().await;
    assert!(began.elapsed() >= Duration::from_millis(500) && began.elapsed() < grace + Duration::from_secs(3));
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
