//! Our own service: what the two dialects lack.

mod support;

use std::time::Duration;

use flowctl_control_plane::{LimitArgs, ServerArgs};
use flowctl_proto::flowctl::registry::v1 as ours;
use flowctl_proto::flowctl::registry::v1::watch_response::Event;
use flowctl_proto::flowctl::v1::HealthStatus;
use flowctl_proto::flowctl::{self as legacy, ServiceType, v1};
use support::{LIMIT, Running, args, component, legacy_beat, register, start, v1_beat};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

type Events = Streaming<ours::WatchResponse>;

async fn watch(server: &Running, request: ours::WatchRequest) -> Events {
    server.ours().watch(request).await.expect("a stream").into_inner()
}

async fn next(events: &mut Events) -> Event {
    let message = tokio::time::timeout(LIMIT, events.message()).await.expect("in time");
    message.expect("no error").expect("no end").event.expect("an event")
}

/// The next one that is no keep-alive.
async fn news(events: &mut Events) -> Event {
    loop {
        match next(events).await {
            Event::Ping(_) => {}
            event => return event,
        }
    }
}

async fn service(events: &mut Events) -> ours::Service {
    match news(events).await {
        Event::Service(service) => service,
        event => panic!("{event:?}"),
    }
}

/// The next state of a service that is as wanted; in between it may have been otherwise, on a busy machine.
async fn service_that(events: &mut Events, so: impl Fn(&ours::Service) -> bool) -> ours::Service {
    loop {
        match news(events).await {
            Event::Service(service) if so(&service) => return service,
            Event::Service(_) => {}
            event => panic!("{event:?}"),
        }
    }
}

async fn v1_register(server: &Running, id: &str) {
    server
        .v1()
        .register_component(register(component(id)))
        .await
        .expect("registered");
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

// A reader that keeps a copy of the registry must have it whole, and hear of every kind of change.
#[tokio::test]
async fn a_watch_sends_what_is_there_and_then_what_changes() {
    let server = start(ServerArgs {
        heartbeat_ttl: Duration::from_secs(1),
        ..args()
    })
    .await;
    v1_register(&server, "a").await;
    v1_register(&server, "b").await;
    let mut events = watch(&server, ours::WatchRequest::default()).await;
    let Event::Started(started) = news(&mut events).await else {
        panic!("not started")
    };
    assert_eq!((started.ttl, started.persistent), (seconds(1), false));
    assert!(!started.instance_id.is_empty());
    assert_eq!(service(&mut events).await.service_id, "a");
    assert_eq!(service(&mut events).await.service_id, "b");
    assert!(matches!(news(&mut events).await, Event::Synced(_)));

    server
        .v1()
        .heartbeat(v1_beat("a", HealthStatus::Degraded, &[]))
        .await
        .expect("accepted");
    let degraded = |service: &ours::Service| service.reported_status() == HealthStatus::Degraded;
    assert_eq!(service_that(&mut events, degraded).await.service_id, "a");
    let mut expired = std::collections::BTreeSet::new();
    while expired.len() < 2 {
        let is_expired = |service: &ours::Service| service.liveness() == ours::Liveness::Expired;
        expired.insert(service_that(&mut events, is_expired).await.service_id);
    }
    server
        .v1()
        .heartbeat(v1_beat("a", HealthStatus::Unknown, &[]))
        .await
        .expect("accepted");
    let is_back = |service: &ours::Service| service.service_id == "a" && service.heartbeats == 2;
    let back = service_that(&mut events, is_back).await;
    assert_eq!(back.reported_status(), HealthStatus::Degraded);
    let unregister = v1::UnregisterRequest {
        service_id: "b".to_owned(),
    };
    server.v1().unregister_component(unregister).await.expect("gone");
    let removed = loop {
        match news(&mut events).await {
            Event::Removed(removed) => break removed,
            // It may have expired again.
            Event::Service(service) => assert_eq!(service.service_id, "a"),
            event => panic!("{event:?}"),
        }
    };
    assert_eq!(
        (removed.service_id.as_str(), removed.reason()),
        ("b", ours::RemovalReason::Unregistered)
    );
    server.stop().await;
}

// Beats that change nothing must not wake every reader, unless it asks for them.
#[tokio::test]
async fn beats_are_sent_to_those_who_ask() {
    let server = start(args()).await;
    v1_register(&server, "a").await;
    server
        .legacy()
        .heartbeat(legacy_beat("a", &[("n", 1.0)]))
        .await
        .expect("accepted");
    let ask = |beats| ours::WatchRequest {
        beats_every: beats,
        ping_every: seconds(1),
        ..ours::WatchRequest::default()
    };
    let (mut quiet, mut busy) = (watch(&server, ask(None)).await, watch(&server, ask(seconds(1))).await);
    for events in [&mut quiet, &mut busy] {
        for _ in 0..3 {
            news(events).await;
        }
    }
    server
        .legacy()
        .heartbeat(legacy_beat("a", &[("n", 2.0)]))
        .await
        .expect("accepted");
    let Event::Beats(beats) = news(&mut busy).await else {
        panic!("no beats")
    };
    assert_eq!(beats.beats.len(), 1);
    assert!(beats.beats[0].last_heartbeat.is_some());
    // Two keep-alives in a row: more than a second in which nothing was sent.
    for _ in 0..2 {
        assert!(matches!(next(&mut quiet).await, Event::Ping(_)));
    }
    server.stop().await;
}

// The operator decides by these whether a pod is alive, and passes its numbers on: what it does not ask for would only cost.
#[tokio::test]
async fn beats_tell_who_moved_and_how_they_are() {
    let server = start(args()).await;
    v1_register(&server, "a").await;
    let request = ours::GetServiceRequest {
        service_id: "a".to_owned(),
    };
    let shown = server
        .ours()
        .get_service(request)
        .await
        .expect("registered")
        .into_inner();
    assert_eq!((shown.peer_address.as_str(), shown.heartbeats), ("127.0.0.1", 0));
    let ask = |names: &[&str]| ours::WatchRequest {
        beats_every: seconds(1),
        beat_metrics: names.iter().map(|name| (*name).to_owned()).collect(),
        ..ours::WatchRequest::default()
    };
    let mut events = watch(&server, ask(&["n", "step.*"])).await;
    let Event::Started(started) = news(&mut events).await else {
        panic!("not started")
    };
    assert_eq!(
        (started.identity_mode(), started.token_audience.as_str()),
        (ours::IdentityMode::Off, "")
    );
    assert_eq!(service(&mut events).await.heartbeats, 0);
    assert!(matches!(news(&mut events).await, Event::Synced(_)));
    let numbers = [("n", "7.50"), ("step.x", "2"), ("step.y", "fine"), ("other", "3")];
    for _ in 0..3 {
        let beat = v1_beat("a", HealthStatus::Healthy, &numbers);
        server.v1().heartbeat(beat).await.expect("accepted");
    }
    // The first beat is a change, too; a slow machine may tell the last ones later.
    let last = loop {
        match news(&mut events).await {
            Event::Beats(beats) if beats.beats[0].heartbeats == 3 => break beats.beats,
            Event::Beats(_) | Event::Service(_) => {}
            event => panic!("{event:?}"),
        }
    };
    assert_eq!(
        (last.len(), last[0].service_id.as_str(), last[0].verified),
        (1, "a", false)
    );
    assert_eq!(
        last[0].metrics,
        [("n".to_owned(), 7.5), ("step.x".to_owned(), 2.0)].into()
    );
    v1_register(&server, "a").await;
    let anew = loop {
        match news(&mut events).await {
            Event::Service(service) => break service,
            Event::Beats(_) => {}
            event => panic!("{event:?}"),
        }
    };
    assert_eq!(anew.heartbeats, 0);
    let too_many = server.ours().watch(ask(&["n"; 33])).await.expect_err("too many");
    assert_eq!(too_many.code(), Code::InvalidArgument);
    server.stop().await;
}

// gRPC clients refuse messages of more than 4 MiB: with many services a reader of beats would never get one.
#[tokio::test]
async fn many_beats_come_in_several_messages() {
    const SERVICES: usize = 2_500;
    let server = start(ServerArgs {
        adopt_unknown: true,
        ..args()
    })
    .await;
    let request = ours::WatchRequest {
        beats_every: seconds(1),
        ..ours::WatchRequest::default()
    };
    let mut events = watch(&server, request).await;
    let ids: Vec<String> = (0..SERVICES).map(|number| format!("s{number:04}")).collect();
    let heartbeats = ids.iter().map(|id| ours::Heartbeat {
        service_id: id.clone(),
        ..ours::Heartbeat::default()
    });
    let batch = ours::BatchHeartbeatsRequest {
        heartbeats: heartbeats.collect(),
    };
    let ack = server
        .ours()
        .batch_heartbeats(batch)
        .await
        .expect("an ack")
        .into_inner();
    assert_eq!(ack.accepted, SERVICES as u64);
    let mut told = std::collections::BTreeSet::new();
    while told.len() < SERVICES {
        if let Event::Beats(beats) = news(&mut events).await {
            assert!(beats.beats.len() <= 1_000);
            told.extend(beats.beats.into_iter().map(|beat| beat.service_id));
        }
    }
    assert!(told.iter().eq(&ids));
    server.stop().await;
}

/// What the runner reports of a pipeline with so many steps: a source, processors, and a consumer that writes a file.
fn pipeline_report(id: &str, steps: usize) -> ours::Heartbeat {
    let mut beat = ours::Heartbeat {
        service_id: id.to_owned(),
        status: HealthStatus::Healthy.into(),
        ..ours::Heartbeat::default()
    };
    let mut step = |kind: &str, name: &str, numbers: &[&str]| {
        let numbers = numbers.iter().map(|number| (format!("{kind}.{name}.{number}"), 1.0));
        beat.metrics.extend(numbers);
        beat.text_metrics
            .insert(format!("{name}_status"), "unhealthy".to_owned());
    };
    let events = ["processed_ledgers", "successful_events", "failed_events"];
    step("source", "S3", &["processed_ledgers", "current_ledger"]);
    for number in 2..steps {
        step(
            "processor",
            &format!("step-{number}"),
            &[&events[..], &["filtered_events"]].concat(),
        );
    }
    step(
        "consumer",
        "file",
        &[&events[..], &["files_written", "total_bytes"]].concat(),
    );
    for number in ["uptime_seconds", "component_count", "checkpoint_ledger"] {
        beat.metrics.insert(format!("pipeline.{number}"), 1.0);
    }
    beat
}

// A pipeline with many steps was refused whole, and looked dead while it worked.
#[tokio::test]
async fn pipelines_of_many_steps_are_alive() {
    let server = start(args()).await;
    for (steps, is_whole) in [(24, true), (31, true), (32, true), (100, true), (120, false)] {
        let id = format!("cdp-{steps}");
        v1_register(&server, &id).await;
        let beat = pipeline_report(&id, steps);
        let metrics = beat.metrics.len() + beat.text_metrics.len();
        let batch = ours::BatchHeartbeatsRequest { heartbeats: vec![beat] };
        let ack = server
            .ours()
            .batch_heartbeats(batch)
            .await
            .expect("an ack")
            .into_inner();
        assert_eq!((ack.accepted, ack.errors.len()), (1, 0), "{steps} steps");
        let request = ours::GetServiceRequest { service_id: id };
        let shown = server.ours().get_service(request).await.expect("there").into_inner();
        assert_eq!(shown.liveness(), ours::Liveness::Live);
        assert_eq!(shown.metrics_truncated, !is_whole);
        assert_eq!(
            shown.metrics.len() == metrics,
            is_whole,
            "{steps} steps: {metrics} metrics"
        );
    }
    server.stop().await;
}

// A reader of one type or of one namespace must hear of its own only, also when a service becomes another.
#[tokio::test]
async fn a_watch_is_narrowed_by_type_and_prefix() {
    let server = start(args()).await;
    let mut by_type = watch(
        &server,
        ours::WatchRequest {
            r#type: ServiceType::Processor.into(),
            ..ours::WatchRequest::default()
        },
    )
    .await;
    let mut by_prefix = watch(
        &server,
        ours::WatchRequest {
            id_prefix: "shop.".to_owned(),
            ..ours::WatchRequest::default()
        },
    )
    .await;
    for events in [&mut by_type, &mut by_prefix] {
        news(events).await;
        assert!(matches!(news(events).await, Event::Synced(_)));
    }
    let source = |id: &str| v1::ComponentInfo {
        r#type: v1::ComponentType::Source.into(),
        ..component(id)
    };
    server
        .v1()
        .register_component(register(source("other.s")))
        .await
        .expect("registered");
    server
        .v1()
        .register_component(register(source("shop.s")))
        .await
        .expect("registered");
    v1_register(&server, "shop.p").await;
    assert_eq!(service(&mut by_type).await.service_id, "shop.p");
    server
        .v1()
        .register_component(register(source("shop.p")))
        .await
        .expect("registered");
    let Event::Removed(removed) = news(&mut by_type).await else {
        panic!("not removed")
    };
    assert_eq!(removed.service_id, "shop.p");
    assert_eq!(service(&mut by_prefix).await.service_id, "shop.s");
    assert_eq!(service(&mut by_prefix).await.service_id, "shop.p");
    for ping_every in [Some(prost_types::Duration::default()), seconds(-1)] {
        let request = ours::WatchRequest {
            ping_every,
            ..ours::WatchRequest::default()
        };
        let error = server.ours().watch(request).await.expect_err("too often");
        assert_eq!(error.code(), Code::InvalidArgument);
    }
    server.stop().await;
}

// Who waits for a run to end must hear of it.
#[tokio::test]
async fn runs_are_watched_on_request() {
    let server = start(args()).await;
    let create = legacy::CreatePipelineRunRequest {
        run_id: "r1".to_owned(),
        pipeline_name: "payments".to_owned(),
        config_yaml: "pipelines: {}".to_owned(),
        ..legacy::CreatePipelineRunRequest::default()
    };
    server.legacy().create_pipeline_run(create).await.expect("created");
    let request = ours::WatchRequest {
        runs: true,
        ..ours::WatchRequest::default()
    };
    let mut events = watch(&server, request).await;
    news(&mut events).await;
    let Event::Run(run) = news(&mut events).await else {
        panic!("no run")
    };
    assert_eq!(run.run_id, "r1");
    news(&mut events).await;
    let pipelines = server
        .ours()
        .list_pipelines(ours::ListPipelinesRequest {})
        .await
        .expect("a list")
        .into_inner();
    let only = &pipelines.pipelines[0];
    assert_eq!(
        (only.pipeline_name.as_str(), only.runs, only.active_runs),
        ("payments", 1, 1)
    );
    assert!(only.latest_run.as_ref().is_some_and(|run| run.config_yaml.is_empty()));
    let stop = ours::StopPipelineRequest {
        pipeline_name: "payments".to_owned(),
    };
    let stopped = server
        .ours()
        .stop_pipeline(stop.clone())
        .await
        .expect("stopped")
        .into_inner()
        .stopped;
    assert_eq!(stopped.len(), 1);
    let Event::Run(run) = news(&mut events).await else {
        panic!("no run")
    };
    assert_eq!(run.status(), legacy::RunStatus::Stopped);
    assert!(
        server
            .ours()
            .stop_pipeline(stop)
            .await
            .expect("again")
            .into_inner()
            .stopped
            .is_empty()
    );
    let unknown = ours::StopPipelineRequest {
        pipeline_name: "nope".to_owned(),
    };
    assert_eq!(
        server.ours().stop_pipeline(unknown).await.expect_err("unknown").code(),
        Code::NotFound
    );
    server.stop().await;
}

// A host with a thousand services sends one stream: a beat that is refused must not end it, and must be told.
#[tokio::test]
async fn a_stream_of_beats_tells_what_it_took_and_what_not() {
    let server = start(args()).await;
    v1_register(&server, "a").await;
    let (send, beats) = mpsc::channel(16);
    let mut acks = server
        .ours()
        .stream_heartbeats(ReceiverStream::new(beats))
        .await
        .expect("a stream")
        .into_inner();
    let beat = |id: &str| ours::Heartbeat {
        service_id: id.to_owned(),
        status: HealthStatus::Healthy.into(),
        metrics: [("n".to_owned(), 1.5)].into(),
        text_metrics: [("note".to_owned(), "fine".to_owned())].into(),
    };
    for _ in 0..500 {
        send.send(beat("a")).await.expect("sent");
    }
    send.send(beat("nobody")).await.expect("sent");
    let refused = loop {
        let ack = acks.message().await.expect("no error").expect("no end");
        if let Some(error) = ack.errors.into_iter().next() {
            assert_eq!(ack.accepted, 500);
            assert!(ack.ttl.is_some() && !ack.instance_id.is_empty());
            break error;
        }
    };
    assert_eq!(
        (refused.service_id.as_str(), refused.code),
        ("nobody", Code::NotFound as i32)
    );
    send.send(beat("a")).await.expect("sent");
    let counted = acks.message().await.expect("no error").expect("within a second");
    assert_eq!((counted.accepted, counted.errors.len()), (501, 0));
    send.send(beat("a")).await.expect("sent");
    drop(send);
    let last = acks.message().await.expect("no error").expect("the last count");
    assert_eq!(last.accepted, 502);
    assert!(acks.message().await.expect("no error").is_none());
    let request = ours::GetServiceRequest {
        service_id: "a".to_owned(),
    };
    let service = server
        .ours()
        .get_service(request)
        .await
        .expect("registered")
        .into_inner();
    let metric = |name: &str| service.metrics.get(name).and_then(|metric| metric.value.clone());
    assert_eq!(metric("n"), Some(ours::metric_value::Value::Number(1.5)));
    assert_eq!(metric("note"), Some(ours::metric_value::Value::Text("fine".to_owned())));
    server.stop().await;
}

// Pages together must be the registry: each service once, whatever the size of a page.
#[tokio::test]
async fn pages_leave_nothing_out() {
    let server = start(args()).await;
    for number in 0..25 {
        v1_register(&server, &format!("s{number:02}")).await;
    }
    let mut ids = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ours::ListServicesRequest {
            page_size: 10,
            page_token: page_token.clone(),
            id_prefix: "s".to_owned(),
            ..ours::ListServicesRequest::default()
        };
        let page = server.ours().list_services(request).await.expect("a page").into_inner();
        assert!(page.services.len() <= 10);
        ids.extend(page.services.into_iter().map(|service| service.service_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let all: Vec<_> = (0..25).map(|number| format!("s{number:02}")).collect();
    assert_eq!(ids, all);
    let live = ours::ListServicesRequest {
        liveness: vec![ours::Liveness::Live.into()],
        ..ours::ListServicesRequest::default()
    };
    assert!(
        server
            .ours()
            .list_services(live)
            .await
            .expect("a page")
            .into_inner()
            .services
            .is_empty()
    );
    let negative = ours::ListServicesRequest {
        page_size: -1,
        ..ours::ListServicesRequest::default()
    };
    assert_eq!(
        server
            .ours()
            .list_services(negative)
            .await
            .expect_err("negative")
            .code(),
        Code::InvalidArgument
    );
    server.stop().await;
}

// The existing SDK registers ":50051": nobody could reach that from elsewhere.
#[tokio::test]
async fn an_endpoint_without_a_host_gets_its_callers() {
    let server = start(args()).await;
    for (id, given, expected) in [
        ("a", ":50051", "127.0.0.1:50051"),
        ("b", "http://:8088/health", "http://127.0.0.1:8088/health"),
        ("c", "ttp.shop.svc:50051", "ttp.shop.svc:50051"),
    ] {
        let component = v1::ComponentInfo {
            endpoint: given.to_owned(),
            ..component(id)
        };
        server
            .v1()
            .register_component(register(component))
            .await
            .expect("registered");
        let request = ours::GetServiceRequest {
            service_id: id.to_owned(),
        };
        let service = server.ours().get_service(request).await.expect("there").into_inner();
        assert_eq!(service.endpoint, expected);
    }
    server.stop().await;
}

// `flowctl metrics` draws this.
#[tokio::test]
async fn numbers_are_remembered_over_time() {
    let server = start(args()).await;
    v1_register(&server, "a").await;
    server
        .v1()
        .heartbeat(v1_beat(
            "a",
            HealthStatus::Healthy,
            &[("n", "1"), ("m", "2"), ("text", "x")],
        ))
        .await
        .expect("accepted");
    let ask = |keys: &[&str]| ours::GetMetricHistoryRequest {
        service_id: "a".to_owned(),
        duration: None,
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
    };
    let history = server
        .ours()
        .get_metric_history(ask(&[]))
        .await
        .expect("a history")
        .into_inner();
    let keys: Vec<_> = history.series.iter().map(|series| series.key.as_str()).collect();
    assert_eq!((keys, history.resolution), (vec!["m", "n"], seconds(10)));
    let history = server
        .ours()
        .get_metric_history(ask(&["n"]))
        .await
        .expect("a history")
        .into_inner();
    let values: Vec<_> = history.series[0].points.iter().map(|point| point.value).collect();
    assert_eq!((history.series.len(), values), (1, vec![1.0]));
    server.stop().await;
}

// Clients that never register again (cdp) are not lost with a registry that forgot them, if the operator wants that.
#[tokio::test]
async fn unknown_ids_are_adopted_on_request() {
    let server = start(ServerArgs {
        adopt_unknown: true,
        ..args()
    })
    .await;
    server
        .legacy()
        .heartbeat(legacy_beat("cdp-default", &[("n", 1.0)]))
        .await
        .expect("adopted");
    let request = ours::GetServiceRequest {
        service_id: "cdp-default".to_owned(),
    };
    let service = server.ours().get_service(request).await.expect("there").into_inner();
    assert_eq!(
        (service.origin(), service.liveness()),
        (ours::Origin::Adopted, ours::Liveness::Live)
    );
    server.stop().await;
}

// A message that never comes to its end must not keep its place for ever.
#[tokio::test]
async fn a_call_that_takes_too_long_is_ended() {
    let server = start(ServerArgs {
        limits: LimitArgs {
            call_timeout: Duration::from_secs(1),
            ..LimitArgs::default()
        },
        ..args()
    })
    .await;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let never = http_body_util::StreamBody::new(futures::stream::pending::<
        Result<http_body::Frame<bytes::Bytes>, std::convert::Infallible>,
    >());
    let path = format!("http://{}/flowctl.v1.ControlPlaneService/Heartbeat", server.address);
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(never)
        .expect("a request");
    let answer = tokio::time::timeout(LIMIT, client.request(request))
        .await
        .expect("in time")
        .expect("an answer");
    let status = answer
        .headers()
        .get("grpc-status")
        .and_then(|status| status.to_str().ok()?.parse::<i32>().ok());
    assert!(status.is_some_and(|status| status != 0), "{status:?}");
    server.assert_alive().await;
    server.stop().await;
}
