//! What nobody should send, and somebody will. Each gets a clear status, the process lives on, and its memory is bounded:
//! otherwise one broken or bad client takes the registry from everybody.

#[path = "support/raw.rs"]
mod raw;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use flowctl_control_plane::{LimitArgs, Server, ServerArgs};
use flowctl_proto::flowctl::registry::v1 as ours;
use flowctl_proto::flowctl::v1::HealthStatus;
use flowctl_proto::flowctl::{self as legacy, v1};
use futures::StreamExt as _;
use prost::Message as _;
use raw::{call, field, number, varint};
use support::{args, component, get, register, start, until, v1_beat};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

const MIB: usize = 1024 * 1024;

/// Every method that takes one message with a text in field 1, and whether an empty message is refused.
const METHODS: [(&str, bool); 21] = [
    ("/flowctl.ControlPlane/Register", false),
    ("/flowctl.ControlPlane/Heartbeat", true),
    ("/flowctl.ControlPlane/GetServiceStatus", true),
    ("/flowctl.ControlPlane/CreatePipelineRun", true),
    ("/flowctl.ControlPlane/UpdatePipelineRun", true),
    ("/flowctl.ControlPlane/GetPipelineRun", true),
    ("/flowctl.ControlPlane/ListPipelineRuns", false),
    ("/flowctl.ControlPlane/StopPipelineRun", true),
    ("/flowctl.v1.ControlPlaneService/RegisterComponent", true),
    ("/flowctl.v1.ControlPlaneService/UnregisterComponent", false),
    ("/flowctl.v1.ControlPlaneService/Heartbeat", true),
    ("/flowctl.v1.ControlPlaneService/GetComponentStatus", true),
    ("/flowctl.registry.v1.RegistryService/GetService", true),
    ("/flowctl.registry.v1.RegistryService/BatchHeartbeats", false),
    ("/flowctl.registry.v1.RegistryService/GetMetricHistory", true),
    ("/flowctl.registry.v1.RegistryService/CreateAlert", true),
    ("/flowctl.registry.v1.RegistryService/ListAlerts", false),
    ("/flowctl.registry.v1.RegistryService/DeleteAlert", true),
    ("/flowctl.registry.v1.RegistryService/StopPipeline", true),
    ("/flowctl.v1.ControlPlaneService/DiscoverComponents", false),
    ("/flowctl.v1.ControlPlaneService/ListComponents", false),
];

/// Codes that tell a caller that it is the one who must change something.
fn is_callers_fault(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::OutOfRange
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Internal
    )
}

/// Memory is of the whole program: tests that measure it, or take much of it, run one at a time.
async fn alone() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: usize = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .expect("a number");
    kib * 1024
}

// Broken bytes at every method: truncated, of the wrong kind, longer than they say, no UTF-8, empty.
#[tokio::test]
async fn broken_messages_are_refused_by_every_method() {
    let server = start(args()).await;
    let channel = server.channel();
    let mut inputs = 0;
    let endless = [0xff; 11];
    for (path, refuses_nothing) in METHODS {
        let field_1 = if path.ends_with("DiscoverComponents") { 2 } else { 1 };
        let is_text = !path.ends_with("ListComponents")
            && !path.ends_with("BatchHeartbeats")
            && !path.ends_with("RegisterComponent");
        let mut broken: Vec<(&str, Vec<u8>)> = vec![
            ("a truncated tag", vec![0x80]),
            ("an endless number", endless.to_vec()),
            (
                "a length beyond the end",
                [varint(u64::from(field_1 << 3 | 2)), varint(1 << 40)].concat(),
            ),
            ("a group that never ends", vec![0x0b; 200]),
            ("field number 0", vec![0x02, 0x01, 0x00]),
        ];
        if is_text {
            broken.push(("no UTF-8", field(field_1, &[0xff, 0xfe, 0xc0, 0x80])));
            broken.push(("a number for a text", number(field_1, 7)));
        }
        for (what, message) in broken {
            let error = call(&channel, path, Bytes::from(message)).await.expect_err(path);
            assert!(is_callers_fault(error.code()), "{path} {what}: {error:?}");
            assert!(error.message().len() < 1000, "{path} {what}: {}", error.message());
            inputs += 1;
        }
        if refuses_nothing {
            let error = call(&channel, path, Bytes::new()).await.expect_err(path);
            assert!(is_callers_fault(error.code()), "{path} nothing: {error:?}");
            inputs += 1;
        }
    }
    assert!(inputs >= 100, "{inputs} inputs");
    server.assert_alive().await;
    server.stop().await;
}

// Ids and texts that are too long, at every place where one can be sent; no error sends them back.
#[tokio::test]
async fn texts_that_are_too_long_are_refused_and_not_echoed() {
    let _turn = alone().await;
    let server = start(args()).await;
    let channel = server.channel();
    let before = resident_bytes();
    let mib = vec![b'x'; MIB];
    let some = vec![b'x'; 100_000];
    for (path, refuses_nothing) in METHODS {
        if !refuses_nothing && !path.ends_with("/Register") {
            continue;
        }
        let nested = path.ends_with("RegisterComponent");
        for long in [&some, &mib] {
            let message = if nested {
                field(1, &field(1, long))
            } else {
                field(1, long)
            };
            let error = call(&channel, path, Bytes::from(message)).await.expect_err(path);
            assert!(
                is_callers_fault(error.code()) && error.code() != Code::Internal,
                "{path}: {error:?}"
            );
            assert!(error.message().len() < 1000, "{path} echoes: {}", error.message().len());
        }
    }
    let mut client = server.v1();
    let long = "x".repeat(100_000);
    for component in [
        v1::ComponentInfo {
            name: long.clone(),
            ..component("a")
        },
        v1::ComponentInfo {
            endpoint: long.clone(),
            ..component("a")
        },
        v1::ComponentInfo {
            output_event_types: vec![long.clone()],
            ..component("a")
        },
        v1::ComponentInfo {
            input_event_types: vec![String::new(); 10_000],
            ..component("a")
        },
        v1::ComponentInfo {
            metadata: [(long.clone(), String::new())].into(),
            ..component("a")
        },
        v1::ComponentInfo {
            metadata: [(String::new(), long.clone())].into(),
            ..component("a")
        },
        v1::ComponentInfo {
            metadata: (0..10_000).map(|number| (number.to_string(), String::new())).collect(),
            ..component("a")
        },
    ] {
        let error = client
            .register_component(register(component))
            .await
            .expect_err("too much");
        assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
        assert!(error.message().len() < 1000);
    }
    assert!(resident_bytes().saturating_sub(before) < 200 * MIB);
    server.assert_alive().await;
    server.stop().await;
}

// A million metrics, in one message or one by one: the bound is of the service, not of the message.
#[tokio::test]
async fn metrics_are_bounded() {
    let _turn = alone().await;
    let server = start(args()).await;
    let mut client = server.v1();
    client
        .register_component(register(component("s1")))
        .await
        .expect("registered");
    let before = resident_bytes();
    let million = v1::HeartbeatRequest {
        service_id: "s1".to_owned(),
        status: 0,
        metrics: (0..1_000_000)
            .map(|number| (number.to_string(), String::new()))
            .collect(),
    };
    let message = Bytes::from(million.encode_to_vec());
    drop(million);
    let path = "/flowctl.v1.ControlPlaneService/Heartbeat";
    let error = call(&server.channel(), path, message).await.expect_err("too many");
    assert!(
        matches!(error.code(), Code::OutOfRange | Code::ResourceExhausted),
        "{error:?}"
    );

    // Whoever sends too much is alive: the beats count, and what is too much is left out.
    for batch in 0..1_000 {
        let metrics: Vec<_> = (0..50).map(|number| format!("m{batch}.{number}")).collect();
        let metrics: Vec<_> = metrics.iter().map(|name| (name.as_str(), "1")).collect();
        client
            .heartbeat(v1_beat("s1", HealthStatus::Healthy, &metrics))
            .await
            .expect("a beat");
    }
    for bad in ["x".repeat(10_000), String::new()] {
        let beat = v1_beat("s1", HealthStatus::Healthy, &[(&bad, "1"), ("m0.0", "2")]);
        client.heartbeat(beat).await.expect("a beat");
    }
    let request = ours::GetServiceRequest {
        service_id: "s1".to_owned(),
    };
    let shown = server.ours().get_service(request).await.expect("there").into_inner();
    assert_eq!((shown.metrics.len(), shown.metrics_truncated), (512, true));
    assert_eq!(
        shown.metrics["m0.0"].value,
        Some(ours::metric_value::Value::Number(2.0))
    );
    assert!(resident_bytes().saturating_sub(before) < 300 * MIB);
    server.assert_alive().await;
    server.stop().await;
}

// Numbers that are none, and times that are none.
#[tokio::test]
async fn absurd_numbers_and_times_do_no_harm() {
    let _turn = alone().await;
    let server = start(args()).await;
    let mut client = server.legacy();
    let info = legacy::ServiceInfo {
        service_id: "s1".to_owned(),
        service_type: 99,
        max_inflight: i32::MIN,
        ..legacy::ServiceInfo::default()
    };
    // An enumeration value of a later version is no mistake (proto3); a negative bound may be refused or ignored.
    let _ = client.register(info).await;
    let info = legacy::ServiceInfo {
        service_id: "s1".to_owned(),
        service_type: 99,
        ..legacy::ServiceInfo::default()
    };
    client.register(info).await.expect("an unknown type counts as none");
    for (seconds, nanos) in [
        (i64::MAX, 0),
        (i64::MIN, 0),
        (0, -1),
        (0, i32::MAX),
        (253_402_300_800, 0),
    ] {
        let beat = legacy::ServiceHeartbeat {
            service_id: "s1".to_owned(),
            timestamp: Some(prost_types::Timestamp { seconds, nanos }),
            ..legacy::ServiceHeartbeat::default()
        };
        let error = client.heartbeat(beat).await.expect_err("no time");
        assert_eq!(error.code(), Code::InvalidArgument, "{seconds} {nanos}");
    }
    // A clock that is wrong by ten years is not the service's death.
    let beat = legacy::ServiceHeartbeat {
        service_id: "s1".to_owned(),
        timestamp: Some(prost_types::Timestamp {
            seconds: 1_000_000_000,
            nanos: 0,
        }),
        metrics: [
            ("nan", f64::NAN),
            ("infinite", f64::INFINITY),
            ("tiny", f64::MIN_POSITIVE),
            ("zero", -0.0),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
    };
    let _ = client.heartbeat(beat).await;
    client.list_services(()).await.expect("whatever was kept can be read");
    let (status, body) = get(server.address, "/api/services/s1", false).await;
    assert_eq!(status, 200);
    serde_json::from_str::<serde_json::Value>(&body).expect("valid JSON, whatever the numbers");
    let status = v1::HeartbeatRequest {
        service_id: "s1".to_owned(),
        status: -7,
        ..v1::HeartbeatRequest::default()
    };
    server
        .v1()
        .heartbeat(status)
        .await
        .expect("an unknown status counts as none");
    for duration in [i64::MIN, i64::MAX, -1] {
        let request = ours::GetMetricHistoryRequest {
            service_id: "s1".to_owned(),
            duration: Some(prost_types::Duration {
                seconds: duration,
                nanos: i32::MIN,
            }),
            ..ours::GetMetricHistoryRequest::default()
        };
        let _ = server.ours().get_metric_history(request).await;
        let request = ours::WatchRequest {
            ping_every: Some(prost_types::Duration {
                seconds: duration,
                nanos: -5,
            }),
            beats_every: Some(prost_types::Duration {
                seconds: duration,
                nanos: 0,
            }),
            ..ours::WatchRequest::default()
        };
        let _ = server.ours().watch(request).await;
    }
    server.assert_alive().await;
    server.stop().await;
}

// A client that registers under a new id at every start, for ever.
#[tokio::test]
async fn a_flood_of_registrations_fills_the_registry_and_no_more() {
    let _turn = alone().await;
    let server = start(ServerArgs {
        limits: LimitArgs {
            max_services: 500,
            ..LimitArgs::default()
        },
        ..args()
    })
    .await;
    let client = server.v1();
    let outcomes = futures::stream::iter(0..1_500).map(|number| {
        let mut client = client.clone();
        async move {
            let request = register(component(&format!("s{number}")));
            client
                .register_component(request)
                .await
                .map(drop)
                .map_err(|error| error.code())
        }
    });
    let outcomes: Vec<_> = outcomes.buffer_unordered(64).collect().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 500);
    let codes: BTreeSet<_> = outcomes
        .into_iter()
        .filter_map(Result::err)
        .map(|code| code as i32)
        .collect();
    assert_eq!(codes, BTreeSet::from([Code::ResourceExhausted as i32]));
    // Those who are in are not put out, nor kept from registering again.
    let list = server
        .v1()
        .list_components(v1::ListComponentsRequest::default())
        .await
        .expect("a list");
    let known = list.into_inner().components[0]
        .component
        .clone()
        .expect("a component")
        .id;
    server
        .v1()
        .register_component(register(component(&known)))
        .await
        .expect("known already");
    server.stop().await;
}

// A question that would be compared with every service, a hundred thousand times.
#[tokio::test]
async fn questions_are_bounded() {
    let server = start(args()).await;
    let many: Vec<_> = (0..100_000).map(|number| number.to_string()).collect();
    let by_type = v1::DiscoveryRequest {
        event_types: many.clone(),
        ..v1::DiscoveryRequest::default()
    };
    let by_property = v1::DiscoveryRequest {
        metadata_filters: many
            .iter()
            .take(50_000)
            .map(|one| (one.clone(), String::new()))
            .collect(),
        ..v1::DiscoveryRequest::default()
    };
    for request in [by_type, by_property] {
        let error = server.v1().discover_components(request).await.expect_err("too many");
        assert_eq!(error.code(), Code::InvalidArgument);
    }
    let request = ours::GetMetricHistoryRequest {
        service_id: "s1".to_owned(),
        keys: many,
        ..ours::GetMetricHistoryRequest::default()
    };
    let error = server.ours().get_metric_history(request).await.expect_err("too many");
    assert_eq!(error.code(), Code::InvalidArgument);
    server.stop().await;
}

// Ten thousand beats in one batch are fine; more are refused whole.
#[tokio::test]
async fn batches_are_bounded() {
    let _turn = alone().await;
    let server = start(ServerArgs {
        limits: LimitArgs {
            max_message_bytes: 4 * MIB,
            ..LimitArgs::default()
        },
        ..args()
    })
    .await;
    let batch = |beats| ours::BatchHeartbeatsRequest {
        heartbeats: vec![
            ours::Heartbeat {
                service_id: "nobody".to_owned(),
                ..ours::Heartbeat::default()
            };
            beats
        ],
    };
    let ack = server
        .ours()
        .batch_heartbeats(batch(10_000))
        .await
        .expect("a batch")
        .into_inner();
    assert_eq!(
        (
            ack.accepted,
            ack.errors.iter().all(|error| error.code == Code::NotFound as i32)
        ),
        (0, true)
    );
    let error = server
        .ours()
        .batch_heartbeats(batch(10_001))
        .await
        .expect_err("too many");
    assert_eq!(error.code(), Code::InvalidArgument);
    server.stop().await;
}

// Paths and protocols that are not served.
#[tokio::test]
async fn what_is_not_served_is_told() {
    let server = start(args()).await;
    let channel = server.channel();
    for path in ["/flowctl.ControlPlane/Nothing", "/nothing.Here/Nothing"] {
        let error = call(&channel, path, Bytes::new()).await.expect_err(path);
        assert_eq!(error.code(), Code::Unimplemented, "{path}");
    }
    for (path, expected) in [
        ("/", 404),
        ("/api", 404),
        ("/api/services/nope", 404),
        ("/api/services/%ff", 400),
        ("/api/services/..%2f..%2fetc%2fpasswd", 404),
        ("/api/services?type=nonsense", 400),
        ("/api/services?status=nonsense", 400),
    ] {
        for is_http2 in [false, true] {
            let (status, body) = get(server.address, path, is_http2).await;
            assert_eq!(status, expected, "{path}: {body}");
            assert!(body.len() < 1000);
        }
    }
    let (status, _) = get(server.address, &format!("/api/services/{}", "x".repeat(10_000)), false).await;
    assert!((400..500).contains(&status), "{status}");
    server.assert_alive().await;
    server.stop().await;
}

// Bytes that are no protocol at all, and clients that go in the middle of a word.
#[tokio::test]
async fn connections_that_speak_rubbish_end() {
    let server = start(args()).await;
    let rubbish: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is a TLS hello to a plaintext port",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\xff\xff\xff\xff\xff\xff rubbish after the preface",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\nno preface after all, whatever follows",
        b"GET /\x00\xff HTTP/9.9\r\n\r\n and some more bytes",
        &[0; 4096],
        &[0xff; 4096],
    ];
    for bytes in rubbish {
        let mut tcp = TcpStream::connect(server.address).await.expect("a connection");
        tcp.write_all(bytes).await.expect("written");
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(support::LIMIT, tcp.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "still open after {:?}", &bytes[..16]);
    }
    for _ in 0..200 {
        let mut tcp = TcpStream::connect(server.address).await.expect("a connection");
        tcp.write_all(b"PRI * HTTP/2.0\r\n").await.expect("written");
    }
    server.assert_alive().await;
    let open = "flowctl_control_plane_connections ";
    until("connections to be forgotten", async || {
        support::metric(server.admin, open).await.filter(|open| *open <= 2.0)
    })
    .await;
    server.stop().await;
}

// A client that connects and says nothing keeps its place for ten seconds, not for ever.
#[tokio::test]
async fn a_silent_connection_is_given_up() {
    let server = start(args()).await;
    let mut tcp = TcpStream::connect(server.address).await.expect("a connection");
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), tcp.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "still open after 20 s");
    server.stop().await;
}

// Messages that are begun and never finished: bounded all together, and no reason to refuse those who send little.
#[tokio::test]
async fn unfinished_messages_are_bounded_all_together() {
    let _turn = alone().await;
    let server = start(args()).await;
    let mut client = server.v1();
    client
        .register_component(register(component("s1")))
        .await
        .expect("registered");
    let before = resident_bytes();
    let http = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let begin = || {
        let mut header = vec![0];
        header.extend(u32::try_from(MIB).expect("small").to_be_bytes());
        let piece = Bytes::from(vec![7; 100_000]);
        let pieces = std::iter::once(Bytes::from(header)).chain(std::iter::repeat_n(piece, 10));
        let frames =
            futures::stream::iter(pieces.map(|data| Ok::<_, std::convert::Infallible>(http_body::Frame::data(data))));
        let body = http_body_util::StreamBody::new(frames.chain(futures::stream::pending()));
        let path = format!("http://{}/flowctl.v1.ControlPlaneService/Heartbeat", server.address);
        let request = http::Request::post(path)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .expect("a request");
        http.request(request)
    };
    let mut unfinished: futures::stream::FuturesUnordered<_> = (0..200).map(|_| begin()).collect();
    // Those that find no room are told so; the rest wait for an end that does not come.
    for _ in 0..100 {
        let refused = tokio::time::timeout(support::LIMIT, unfinished.next())
            .await
            .expect("in time");
        let refused = refused.expect("one of them").expect("an answer");
        let status = refused
            .headers()
            .get("grpc-status")
            .and_then(|status| status.to_str().ok());
        assert_eq!(status, Some("8"));
    }
    for _ in 0..20 {
        client
            .heartbeat(v1_beat("s1", HealthStatus::Healthy, &[("n", "1")]))
            .await
            .expect("small messages get through");
    }
    assert!(resident_bytes().saturating_sub(before) < 300 * MIB);
    drop(unfinished);
    server.assert_alive().await;
    server.stop().await;
}

// More connections than are allowed are closed at once, and the others work on.
#[tokio::test]
async fn connections_are_bounded() {
    let server = start(ServerArgs {
        limits: LimitArgs {
            max_connections: 5,
            ..LimitArgs::default()
        },
        ..args()
    })
    .await;
    let mut client = server.v1();
    client
        .list_components(v1::ListComponentsRequest::default())
        .await
        .expect("connected");
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(TcpStream::connect(server.address).await.expect("the system takes it"));
    }
    let mut ends: futures::stream::FuturesUnordered<_> = others.iter_mut().map(|tcp| tcp.read_u8()).collect();
    for _ in 0..16 {
        let closed = tokio::time::timeout(support::LIMIT, ends.next())
            .await
            .expect("in time");
        closed.expect("one of them").expect_err("nothing was sent");
    }
    let quiet = tokio::time::timeout(Duration::from_millis(300), ends.next()).await;
    assert!(quiet.is_err(), "one too many is closed");
    drop(ends);
    client
        .list_components(v1::ListComponentsRequest::default())
        .await
        .expect("works on");
    let refused = support::metric(server.admin, "flowctl_control_plane_connections_refused_total ").await;
    assert_eq!(refused, Some(16.0));
    server.stop().await;
}

// Headers have bounds, too: a client may not make us hold megabytes before its first message.
#[tokio::test]
async fn headers_are_bounded() {
    let server = start(args()).await;
    let mut request = tonic::Request::new(v1::ListComponentsRequest::default());
    let long = "x".repeat(100_000).parse().expect("ASCII");
    request.metadata_mut().insert("x-long", long);
    let error = server.v1().list_components(request).await.expect_err("too long");
    assert_ne!(error.code(), Code::Ok);
    server.assert_alive().await;
    server.stop().await;
}

/// What comes until the connection ends, as types of HTTP/2 frames.
async fn frame_types(tcp: &mut TcpStream) -> Vec<u8> {
    let mut types = Vec::new();
    loop {
        let mut head = [0; 9];
        if tcp.read_exact(&mut head).await.is_err() {
            return types;
        }
        let [_, a, b, kind, ..] = head;
        types.push(kind);
        let mut rest = vec![0; usize::from(u16::from_be_bytes([a, b]))];
        if tcp.read_exact(&mut rest).await.is_err() {
            return types;
        }
    }
}

// A client whose machine lost its power says nothing more: it must not keep its place until the kernel gives it up, hours later.
#[tokio::test]
async fn clients_that_went_without_a_word_are_found() {
    let every = Duration::from_millis(100);
    let server = support::run(Server::new(args()).keep_alive(every, every)).await;
    let mut tcp = TcpStream::connect(server.address).await.expect("a connection");
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let greeting = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat();
    tcp.write_all(&greeting).await.expect("sent");
    let types = tokio::time::timeout(support::LIMIT, frame_types(&mut tcp)).await;
    const PING: u8 = 6;
    assert!(types.expect("it is cut").contains(&PING));
    server.stop().await;
}

// Readers that ask for large lists and never take them would fill the memory; those who ask for little are served all the same.
#[tokio::test]
async fn answers_that_are_not_read_are_bounded() {
    let _turn = alone().await;
    let server = start(args()).await;
    let mut client = server.v1();
    for number in 0..2_000 {
        let component = v1::ComponentInfo {
            description: "x".repeat(8_000),
            ..component(&format!("s{number}"))
        };
        client
            .register_component(register(component))
            .await
            .expect("registered");
    }
    // 16 MB each, of which nobody reads more than the first window.
    let path = "/flowctl.v1.ControlPlaneService/ListComponents";
    let http = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let message = Bytes::from(vec![0, 0, 0, 0, 2, 0x10, 1]);
    let (mut unread, mut refused) = (Vec::new(), 0);
    for _ in 0..8 {
        let request = http::Request::post(format!("http://{}{path}", server.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(http_body_util::Full::new(message.clone()))
            .expect("a request");
        let answer = http.request(request).await.expect("an answer");
        let status = answer
            .headers()
            .get("grpc-status")
            .and_then(|status| status.to_str().ok());
        assert!(matches!(status, None | Some("8")), "{status:?}");
        refused += usize::from(status.is_some());
        unread.push(answer);
    }
    assert!((4..=6).contains(&refused), "{refused} of 8 were refused");
    client
        .get_component_status(support::which("s1"))
        .await
        .expect("a small answer");
    drop(unread);
    support::until("room again", async || {
        let request = v1::ListComponentsRequest::default();
        let mut client = server.v1().max_decoding_message_size(64 * MIB);
        client.list_components(request).await.ok()
    })
    .await;
    server.stop().await;
}
