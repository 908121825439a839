//! A pipeline as a control plane sees it, from its registration to its end.

mod rig;

use std::time::{Duration, Instant};

use flowctl_control_plane::{Server, ServerArgs};
use flowctl_proto::flowctl::ServiceType;
use flowctl_proto::flowctl::registry::v1::registry_service_client::RegistryServiceClient;
use flowctl_proto::flowctl::registry::v1::{GetServiceRequest, Service, metric_value::Value};
use flowctl_runtime::Shutdown;
use nix::sys::signal::Signal;
use rig::{Deed, Peer, Place, Runner};
use tonic::Code;
use tonic::transport::Channel;

/// A control plane in memory; it ends with the test.
async fn control_plane() -> (String, RegistryServiceClient<Channel>) {
    let args = ServerArgs {
        port: 0,
        admin_port: 0,
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        no_persistence: true,
        ..ServerArgs::default()
    };
    let bound = Server::new(args).bind().await.expect("free ports");
    let endpoint = bound.address().to_string();
    tokio::spawn(bound.serve(Shutdown::new()));
    let client = RegistryServiceClient::connect(format!("http://{endpoint}")).await;
    (endpoint, client.expect("connect"))
}

async fn service(client: &mut RegistryServiceClient<Channel>, id: &str) -> Option<Service> {
    let request = GetServiceRequest {
        service_id: id.to_owned(),
    };
    match client.get_service(request).await {
        Ok(service) => Some(service.into_inner()),
        Err(status) if status.code() == Code::NotFound => None,
        Err(status) => panic!("{status}"),
    }
}

/// Waits until the service is as wanted, or gone where `None` is.
async fn until(
    client: &mut RegistryServiceClient<Channel>,
    id: &str,
    what: &str,
    so: impl Fn(Option<&Service>) -> bool,
) -> Option<Service> {
    let begun = Instant::now();
    loop {
        let found = service(client, id).await;
        if so(found.as_ref()) {
            return found;
        }
        assert!(
            begun.elapsed() < rig::DEADLINE,
            "never happened: {what}; last seen: {found:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn number(service: &Service, key: &str) -> Option<f64> {
    match service.metrics.get(key)?.value.as_ref()? {
        Value::Number(number) => Some(*number),
        Value::Text(_) => None,
    }
}

fn text<'s>(service: &'s Service, key: &str) -> Option<&'s str> {
    match service.metrics.get(key)?.value.as_ref()? {
        Value::Number(_) => None,
        Value::Text(text) => Some(text),
    }
}

// Seed 001: whoever looks after pipelines sees which file runs, on which network, how far it is, and which step holds it up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_reports_its_progress_and_says_goodbye() {
    let (endpoint, mut client) = control_plane().await;
    let place = Place::with(1..=3);
    let peer = Peer::start(|_| Deed::Answer).await;
    let file = place.pipeline(
        "start_ledger: 1",
        &peer.step("ExternalProcessor", "use_streaming: true"),
        &place.to_file(),
    );
    let file = file.to_str().unwrap();
    let env = [
        ("FLOWCTL_ENDPOINT", endpoint.as_str()),
        ("FLOWCTL_HEARTBEAT_INTERVAL", "1s"),
    ];
    let runner = Runner::start_with(&place, &["-config", file], &env);
    let seen = until(&mut client, "cdp-test.p", "all ledgers are told", |service| {
        let ledgers = |service| number(service, "consumer.JSONLinesConsumer.processed_ledgers");
        service.and_then(ledgers) == Some(3.0)
    })
    .await
    .expect("registered");
    assert_eq!(seen.r#type(), ServiceType::Pipeline);
    assert_eq!(seen.name, "test.p");
    for (key, value) in [
        ("config_file", file),
        ("network", "sample"),
        ("version", env!("CARGO_PKG_VERSION")),
    ] {
        assert_eq!(seen.metadata.get(key).map(String::as_str), Some(value), "{key}");
    }
    for (key, value) in [
        ("pipeline.component_count", 4.0),
        ("source.BufferedStorageSourceAdapter.processed_ledgers", 3.0),
        ("source.BufferedStorageSourceAdapter.current_ledger", 3.0),
        ("processor.LedgerReader.processed_ledgers", 3.0),
        ("processor.peer.successful_events", 3.0),
        ("processor.peer.failed_events", 0.0),
        ("consumer.JSONLinesConsumer.files_written", 1.0),
    ] {
        assert_eq!(number(&seen, key), Some(value), "{key}: {:?}", seen.metrics);
    }
    let written = std::fs::metadata(place.path("out.jsonl")).unwrap().len();
    #[expect(clippy::cast_precision_loss, reason = "a small file")]
    let written = written as f64;
    assert_eq!(number(&seen, "consumer.JSONLinesConsumer.total_bytes"), Some(written));
    assert_eq!(text(&seen, "peer_status"), Some("healthy"));

    runner.signal(Signal::SIGTERM);
    runner.end().await.has_code(0);
    assert!(
        service(&mut client, "cdp-test.p").await.is_none(),
        "a clean end unregisters"
    );
}

// A pipeline that waits for a service, and one that died, must not look like one that is well or one that is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_that_is_held_up_says_so_and_one_that_failed_is_missed() {
    let (endpoint, mut client) = control_plane().await;
    let place = Place::with(1..=3);
    let [nobody] = Place::free_addresses();
    let step = format!("      - {{name: peer, type: ExternalProcessor, config: {{endpoint: \"{nobody}\"}}}}");
    let file = place.pipeline("start_ledger: 1", &step, &place.to_file());
    let env = [
        ("FLOWCTL_ENDPOINT", endpoint.as_str()),
        ("FLOWCTL_COMPONENT_ID", "ns.p.pod-0"),
        ("FLOWCTL_HEARTBEAT_INTERVAL", "1s"),
    ];
    let runner = Runner::start_with(&place, &["run", file.to_str().unwrap()], &env);
    until(&mut client, "ns.p.pod-0", "the step is told to be shut", |service| {
        service.is_some_and(|service| text(service, "peer_status") == Some("unhealthy"))
    })
    .await;
    runner.signal(Signal::SIGTERM);
    runner.end().await.has_code(0);

    let place = Place::with(1..=3);
    let peer = Peer::start(|ledger| match ledger {
        4 => Deed::Refuse("never"),
        _ => Deed::Answer,
    })
    .await;
    let file = place.pipeline(
        "start_ledger: 1",
        &peer.step("ExternalProcessor", "max_retries: 0"),
        &place.to_file(),
    );
    let env = [
        ("FLOWCTL_ENDPOINT", endpoint.as_str()),
        ("FLOWCTL_COMPONENT_ID", "ns.failed.pod-0"),
    ];
    let runner = Runner::start_with(&place, &["run", file.to_str().unwrap()], &env);
    until(&mut client, "ns.failed.pod-0", "it is registered", |service| {
        service.is_some()
    })
    .await;
    place.add(4);
    runner.end().await.has_code(1);
    let left = service(&mut client, "ns.failed.pod-0").await;
    assert!(left.is_some(), "a pipeline that failed must expire, not vanish");
}
