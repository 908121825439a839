//! The client of the control plane against servers of every kind, also those that no test should need: none, one that hangs,
//! one that talks nonsense.

#[path = "../common/mod.rs"]
mod common;
mod cost;
mod registry;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use common::{DEADLINE, Running as Service, args, process, within};
use flowctl_proto::flowctl::ServiceType;
use flowctl_proto::flowctl::v1::{ComponentType, HealthStatus};
use flowctl_sdk::control_plane::{
    PipelineMetadata, ProcessorMetadata, Registration, Role, STELLAR_LEDGER_EVENT, Session, Settings, Snapshot, State,
    Statistics, TTP_EVENT,
};
use flowctl_sdk::{BoxError, Message, Outcome, Processor};
use registry::{Registry, Told, Way};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

const INTERVAL: Duration = Duration::from_millis(200);

fn settings(address: SocketAddr, id: Option<&str>) -> Settings {
    let endpoint = flowctl_bridge::Endpoint::parse(&address.to_string()).expect("an endpoint");
    Settings {
        interval: INTERVAL,
        id: id.map(str::to_owned),
        ..Settings::new(endpoint)
    }
}

fn processor() -> Registration {
    Registration::new(Role::Processor, "ttp")
        .version("1.2")
        .input_event_types([STELLAR_LEDGER_EVENT])
        .output_event_types([TTP_EVENT])
        .endpoint(":50051")
        .health_endpoint("http://localhost:8088/health")
        .max_inflight(100)
        .metadata(ProcessorMetadata {
            network: "testnet".into(),
            processor_type: "ttp_event_extraction".into(),
            event_types: vec!["transfer".into(), "mint".into()],
        })
}

fn statistics() -> Statistics {
    let statistics = Statistics::new();
    let step = statistics.component("processor", "TTP");
    step.report([("processed_ledgers", 125_000.0), ("share", 0.25), ("broken", f64::NAN)]);
    statistics
}

/// Waits until something is so.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let wait = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait)
        .await
        .unwrap_or_else(|_| panic!("never happened: {what}"));
}

async fn beaten(registry: &Registry, id: &str, way: Way) -> Told {
    let beats = |told: Told| told.beats.get(&way).copied().unwrap_or(0);
    until("two heartbeats", || registry.told(id).map_or(0, beats) >= 2).await;
    registry.told(id).expect("registered")
}

// A service that is seen, but not what it is or how it does, is of no use to whoever looks.
#[tokio::test]
async fn everything_arrives_in_our_own_dialect() {
    let (registry, _running) = Registry::start(&[Way::Stream, Way::V1, Way::Legacy]);
    let session = Session::spawn(settings(registry.address, Some("a.b.c")), processor(), statistics());
    let told = beaten(&registry, "a.b.c", Way::Stream).await;
    assert_eq!(
        told.beats.keys().collect::<Vec<_>>(),
        [&Way::Stream],
        "one dialect at a time"
    );
    let component = told.registered_v1.expect("v1").component.expect("a component");
    assert_eq!(component.r#type(), ComponentType::Processor);
    assert_eq!((component.name.as_str(), component.version.as_str()), ("ttp", "1.2"));
    assert_eq!(component.input_event_types, [STELLAR_LEDGER_EVENT]);
    assert_eq!(component.endpoint, ":50051");
    for (key, value) in [
        ("network", "testnet"),
        ("processor_type", "ttp_event_extraction"),
        ("event_types", "transfer,mint"),
        ("health_endpoint", "http://localhost:8088/health"),
        ("max_inflight", "100"),
    ] {
        assert_eq!(component.metadata.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(told.status, i32::from(HealthStatus::Healthy));
    assert_eq!(told.metrics["processor.TTP.processed_ledgers"], "125000");
    assert_eq!(told.metrics["TTP_status"], "healthy");
    assert!(
        !told.metrics.contains_key("processor.TTP.broken"),
        "NaN is nobody's number"
    );
    within(session.end()).await;
}

// Against the real server there is no stream; against an old one there is no v1. A client that insists is never seen.
#[tokio::test]
async fn the_best_dialect_that_the_server_knows_is_spoken() {
    let (registry, _running) = Registry::start(&[Way::V1, Way::Legacy]);
    let _session = Session::spawn(settings(registry.address, Some("x")), processor(), statistics());
    let told = beaten(&registry, "x", Way::V1).await;
    assert_eq!(told.metrics["processor.TTP.share"], "0.25");
    assert_eq!(told.metrics["TTP_status"], "healthy");

    let (registry, _running) = Registry::start(&[Way::Legacy]);
    let session = Session::spawn(settings(registry.address, Some("x")), processor(), statistics());
    let told = beaten(&registry, "x", Way::Legacy).await;
    let info = told.registered_legacy.expect("legacy");
    assert_eq!(info.service_type(), ServiceType::Processor);
    assert_eq!(info.max_inflight, 100);
    assert_eq!(info.health_endpoint, "http://localhost:8088/health");
    assert_eq!(info.metadata["name"], "ttp");
    assert_eq!(told.metrics["processor.TTP.processed_ledgers"], "125000");
    assert!(!told.metrics.contains_key("TTP_status"), "legacy metrics are numbers");
    within(session.end()).await;
}

// Only the legacy dialect can say PIPELINE: registered in v1 it would be a component of no type.
#[tokio::test]
async fn a_pipeline_is_registered_as_one() {
    let (registry, _running) = Registry::start(&[Way::V1, Way::Legacy]);
    let registration = Registration::new(Role::Pipeline, "payments").metadata(PipelineMetadata {
        config_file: "contract_events.yaml".into(),
        version: "1.0".into(),
        network: "mainnet".into(),
    });
    let _session = Session::spawn(
        settings(registry.address, Some("cdp-payments")),
        registration,
        statistics(),
    );
    let told = beaten(&registry, "cdp-payments", Way::V1).await;
    let info = told.registered_legacy.expect("legacy");
    assert_eq!(info.service_type(), ServiceType::Pipeline);
    for (key, value) in [
        ("config_file", "contract_events.yaml"),
        ("version", "1.0"),
        ("network", "mainnet"),
    ] {
        assert_eq!(info.metadata[key], value);
    }
    assert_eq!(told.metrics["pipeline.component_count"], "1");
}

// After a restart without its store, a server that is not registered with again shows an empty world for ever.
#[tokio::test]
async fn a_service_comes_back_after_a_restart_of_the_server() {
    for ways in [&[Way::Stream, Way::V1][..], &[Way::V1], &[Way::Legacy]] {
        let (registry, running) = Registry::start(ways);
        let session = Session::spawn(settings(registry.address, Some("x")), processor(), statistics());
        beaten(&registry, "x", ways[0]).await;
        let mut state = session.state();
        drop(running);
        within(state.wait_for(|state| matches!(state, State::Connecting(_))))
            .await
            .expect("the session lives");
        let _running = registry.restart();
        let begun = Instant::now();
        beaten(&registry, "x", ways[0]).await;
        // Two intervals, and time for the second beat that was waited for and for a busy machine.
        assert!(
            begun.elapsed() < INTERVAL * 3 + Duration::from_secs(2),
            "{ways:?}: {:?}",
            begun.elapsed()
        );
    }
}

// The Go server's word for an unknown id is UNKNOWN; and an id that the server made must not change at every return.
#[tokio::test]
async fn a_forgotten_service_registers_again_under_its_id() {
    for code in [Code::NotFound, Code::Unknown] {
        let (registry, _running) = Registry::start(&[Way::V1]);
        registry.book().code_for_unknown = Some(code);
        let _session = Session::spawn(settings(registry.address, None), processor(), statistics());
        beaten(&registry, "made-1", Way::V1).await;
        registry.book().services.clear();
        beaten(&registry, "made-1", Way::V1).await;
        assert_eq!(registry.book().services.len(), 1, "{code}");
    }
}

// Trouble that is told a minute late is told to nobody.
#[tokio::test]
async fn a_change_of_health_does_not_wait_for_the_interval() {
    let (registry, _running) = Registry::start(&[Way::Stream, Way::V1]);
    let statistics = Statistics::new();
    let step = statistics.component("processor", "TTP");
    step.report([("processed_ledgers", 1.0)]);
    let settings = Settings {
        interval: Duration::from_secs(300),
        ..settings(registry.address, Some("x"))
    };
    let _session = Session::spawn(settings, processor(), statistics);
    let status = || registry.told("x").map_or(0, |told| told.status);
    until("it is healthy", || status() == i32::from(HealthStatus::Healthy)).await;
    step.in_trouble(true);
    until("it is degraded", || status() == i32::from(HealthStatus::Degraded)).await;
    step.in_trouble(false);
    until("it is healthy again", || status() == i32::from(HealthStatus::Healthy)).await;
}

// A pod that was deleted on purpose must not be mourned for a whole TTL; one that failed must be.
#[tokio::test]
async fn only_a_clean_end_unregisters() {
    let (registry, _running) = Registry::start(&[Way::Stream, Way::V1]);
    let session = Session::spawn(settings(registry.address, Some("clean")), processor(), statistics());
    beaten(&registry, "clean", Way::Stream).await;
    within(session.end()).await;
    assert_eq!(registry.book().unregistered, ["clean"]);

    let session = Session::spawn(settings(registry.address, Some("failed")), processor(), statistics());
    let told = beaten(&registry, "failed", Way::Stream).await;
    let beats = |told: Told| told.beats[&Way::Stream];
    drop(session);
    tokio::time::sleep(INTERVAL * 3).await;
    let after = registry.told("failed").expect("still there, to expire");
    // One may have been under way.
    assert!(beats(after) <= beats(told) + 1, "a dropped session goes on");
    assert_eq!(registry.book().unregistered, ["clean"]);
}

// The kubelet replaces tokens under a running pod: a client that keeps the first one is shut out within the hour.
#[tokio::test]
async fn the_token_is_sent_and_read_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "first\n").expect("write");
    let (registry, _running) = Registry::start(&[Way::V1]);
    let settings = Settings {
        token_file: Some(file.clone()),
        ..settings(registry.address, Some("x"))
    };
    let _session = Session::spawn(settings, processor(), statistics());
    beaten(&registry, "x", Way::V1).await;
    std::fs::write(&file, "second\n").expect("write");
    until("the new token", || {
        let told = registry.told("x").expect("registered");
        told.tokens.first().is_some_and(|token| token == "Bearer first")
            && told.tokens.last().is_some_and(|token| token == "Bearer second")
    })
    .await;
}

// A stream outlives its token: when the server ends it for that, the next one must begin at once, and no beat be missing.
#[tokio::test]
async fn a_stream_whose_token_is_over_begins_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "first").expect("write");
    let (registry, _running) = Registry::start(&[Way::Stream, Way::V1]);
    let settings = Settings {
        token_file: Some(file.clone()),
        ..settings(registry.address, Some("x"))
    };
    let session = Session::spawn(settings, processor(), statistics());
    beaten(&registry, "x", Way::Stream).await;
    let mut state = session.state();
    until("it is registered", || {
        matches!(*state.borrow_and_update(), State::Registered(_))
    })
    .await;
    std::fs::write(&file, "second").expect("write");
    registry.book().token_over = Some("Bearer first".to_owned());
    until("the new token", || {
        let told = registry.told("x").expect("registered");
        told.tokens.last().is_some_and(|token| token == "Bearer second")
    })
    .await;
    assert!(!state.has_changed().expect("it goes on"), "a beat was missing");
    assert_eq!(registry.told("x").expect("registered").registrations, 1);
}

// A mistake in what an author adds to heartbeats must not make a service that works look dead.
#[tokio::test]
async fn a_report_that_panics_is_not_the_end() {
    let (registry, _running) = Registry::start(&[Way::Stream, Way::V1]);
    let broken = || -> Snapshot { panic!("a mistake of the author's") };
    let _session = Session::spawn(settings(registry.address, Some("x")), processor(), broken);
    let told = beaten(&registry, "x", Way::Stream).await;
    assert_eq!(told.status, i32::from(HealthStatus::Degraded));

    let service = flowctl_sdk::Service::processor(Echo)
        .control_plane(settings(registry.address, Some("y")))
        .heartbeat_metrics(|| panic!("a mistake of the author's"));
    let running = common::start(service, &args()).await;
    let told = beaten(&registry, "y", Way::Stream).await;
    assert!(
        told.metrics.contains_key("total_processed"),
        "what the SDK counts itself is told"
    );
    within(running.end()).await.expect("a clean end");
}

struct Echo;

impl Processor for Echo {
    async fn process(&self, message: Message) -> Result<Outcome, BoxError> {
        message.forward("done")
    }
}

/// Serves while the control plane is at that address, does its work, and ends in time.
async fn works_unharmed_with(control_plane: SocketAddr) {
    let service = flowctl_sdk::Service::processor(Echo).control_plane(settings(control_plane, None));
    let begun = Instant::now();
    let running: Service = common::start(service, &args()).await;
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "starting waits for the control plane"
    );
    let mut client = running.processor().await;
    let until = Instant::now() + INTERVAL * 5;
    let mut slowest = Duration::ZERO;
    while Instant::now() < until {
        let sent = Instant::now();
        let answer = within(client.process(process("t", "x"))).await.expect("an answer");
        assert_eq!(&answer.into_inner().payload[..], b"\"done\"");
        slowest = slowest.max(sent.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "an answer took {slowest:?}");
    assert!(
        running.get("/readyz").await.starts_with("HTTP/1.1 200"),
        "readiness is not the control plane's"
    );
    let ending = Instant::now();
    drop(client);
    within(running.end()).await.expect("a clean end");
    assert!(
        ending.elapsed() < Duration::from_secs(3),
        "the end waits for the control plane"
    );
}

// Seed 002, "graceful degradation": whatever the control plane does, the work goes on.
#[tokio::test]
async fn without_a_server_the_host_runs_unharmed() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("an address");
    works_unharmed_with(nobody).await;
}

#[tokio::test]
async fn with_a_server_that_never_answers_the_host_runs_unharmed() {
    // Connections are accepted by the kernel, and nobody ever reads them.
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a port");
    works_unharmed_with(hanging.local_addr().expect("an address")).await;
}

#[tokio::test]
async fn with_a_server_that_talks_nonsense_the_host_runs_unharmed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let nonsense = tokio::spawn(async move {
        let answers: [&[u8]; 3] = [
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
            &[0xff; 4096],
            // An HTTP/2 SETTINGS frame, and a HEADERS frame of a stream that nobody opened.
            b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x63\x88",
        ];
        for answer in answers.iter().cycle() {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut read = [0; 1024];
            let _ = stream.read(&mut read).await;
            let _ = stream.write_all(answer).await;
        }
    });
    works_unharmed_with(address).await;
    nonsense.abort();
}

// The whole service: it registers by itself, says what it counted and how it is, and unregisters at its end.
#[tokio::test]
async fn a_service_reports_itself() {
    let (registry, _running) = Registry::start(&[Way::Stream, Way::V1]);
    let service = flowctl_sdk::Service::processor(Echo)
        .name("echo", "7")
        .control_plane(settings(registry.address, Some("ns.echo.pod")))
        .registration(Registration::new(Role::Processor, "").output_event_types([TTP_EVENT]))
        .heartbeat_metrics(|| vec![("events_extracted".to_owned(), 3.0)]);
    let running = common::start(service, &args()).await;
    let mut client = running.processor().await;
    within(client.process(process("t", "x"))).await.expect("an answer");
    until("the count arrives", || {
        let told = registry.told("ns.echo.pod");
        told.is_some_and(|told| told.metrics.get("success_count").map(String::as_str) == Some("1"))
    })
    .await;
    let told = registry.told("ns.echo.pod").expect("registered");
    assert_eq!(told.status, i32::from(HealthStatus::Healthy));
    assert_eq!(told.metrics["events_extracted"], "3");
    assert_eq!(told.metrics["total_processed"], "1");
    let component = told.registered_v1.expect("v1").component.expect("a component");
    assert_eq!((component.name.as_str(), component.version.as_str()), ("echo", "7"));
    assert_eq!(component.endpoint, running.grpc.to_string());
    assert_eq!(component.output_event_types, [TTP_EVENT]);
    let metrics = running.get("/metrics").await;
    assert!(metrics.contains("flowctl_client_registered 1"), "{metrics}");
    drop(client);
    within(running.end()).await.expect("a clean end");
    assert_eq!(registry.book().unregistered, ["ns.echo.pod"]);
}
