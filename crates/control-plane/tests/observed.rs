//! What real flowctl clients were seen to send, row by row, and what they get here. A row that fails is a client that is
//! deployed today and would see something else than it was promised.

mod support;

use std::time::Duration;

use flowctl_control_plane::ServerArgs;
use flowctl_proto::flowctl::registry::v1 as ours;
use flowctl_proto::flowctl::v1::{ComponentType, HealthStatus};
use flowctl_proto::flowctl::{self as legacy, RunStatus, ServiceType, v1};
use support::{Running, args, component, legacy_beat, register, start, until, v1_beat, which};
use tonic::Code;

async fn status_of(server: &Running, id: &str) -> v1::ComponentStatusResponse {
    let answer = server.v1().get_component_status(which(id)).await;
    answer.expect("a registered service").into_inner()
}

async fn ours_of(server: &Running, id: &str) -> ours::Service {
    let request = ours::GetServiceRequest {
        service_id: id.to_owned(),
    };
    server
        .ours()
        .get_service(request)
        .await
        .expect("a registered service")
        .into_inner()
}

async fn until_expired(server: &Running, id: &str) {
    until("expiry", async || {
        (ours_of(server, id).await.liveness() == ours::Liveness::Expired).then_some(())
    })
    .await;
}

fn short_ttl() -> ServerArgs {
    ServerArgs {
        heartbeat_ttl: Duration::from_secs(1),
        ..args()
    }
}

// Row 1. A client that builds its topics and its next connection from the answer.
#[tokio::test]
async fn v1_registration_answers_id_topics_and_address() {
    let server = start(ServerArgs {
        advertise_address: Some("flowctl.example:8080".to_owned()),
        ..args()
    })
    .await;
    let request = v1::RegisterRequest {
        component: Some(v1::ComponentInfo {
            r#type: ComponentType::Source.into(),
            output_event_types: vec!["stellar.ledger.v1".to_owned(), "raw".to_owned()],
            ..v1::ComponentInfo::default()
        }),
        component_id: "s1".to_owned(),
    };
    let answer = server
        .v1()
        .register_component(request)
        .await
        .expect("registered")
        .into_inner();
    assert_eq!(answer.service_id, "s1");
    assert_eq!(answer.assigned_topics, ["stellar.ledger.v1", "raw.v1"]);
    assert_eq!(
        answer.connection_info.get("control_plane_endpoint").map(String::as_str),
        Some("flowctl.example:8080")
    );
    server.stop().await;
}

// Row 2. A client without an id must be able to beat under the one that it is given.
#[tokio::test]
async fn v1_registration_without_an_id_gets_one_and_is_listed_under_it() {
    let server = start(args()).await;
    let request = register(component(""));
    let id = server
        .v1()
        .register_component(request)
        .await
        .expect("registered")
        .into_inner()
        .service_id;
    assert!(!id.is_empty());
    let beat = v1_beat(&id, HealthStatus::Healthy, &[]);
    server.v1().heartbeat(beat).await.expect("it beats");
    let list = server.v1().list_components(v1::ListComponentsRequest::default()).await;
    let listed = list.expect("a list").into_inner().components;
    let ids: Vec<_> = listed
        .iter()
        .filter_map(|one| Some(one.component.as_ref()?.id.as_str()))
        .collect();
    assert_eq!(ids, [id.as_str()]);
    server.stop().await;
}

// Row 3. The real server dies of this, and takes everybody's registration with it.
#[tokio::test]
async fn v1_registration_without_a_component_is_refused() {
    let server = start(args()).await;
    let error = server.v1().register_component(v1::RegisterRequest::default()).await;
    assert_eq!(error.expect_err("refused").code(), Code::InvalidArgument);
    server.assert_alive().await;
    server.stop().await;
}

// Row 4. Clients match the code or the text to know that they must register again.
#[tokio::test]
async fn an_unknown_id_is_not_found_with_the_known_text() {
    let server = start(args()).await;
    let (mut v1, mut legacy) = (server.v1(), server.legacy());
    let unknown = legacy::ServiceInfo {
        service_id: "nope".to_owned(),
        ..legacy::ServiceInfo::default()
    };
    for error in [
        v1.heartbeat(v1_beat("nope", HealthStatus::Healthy, &[]))
            .await
            .expect_err("unknown"),
        legacy.heartbeat(legacy_beat("nope", &[])).await.expect_err("unknown"),
        v1.get_component_status(which("nope")).await.expect_err("unknown"),
        legacy.get_service_status(unknown).await.expect_err("unknown"),
    ] {
        assert_eq!(
            (error.code(), error.message()),
            (Code::NotFound, "service nope not found")
        );
    }
    server.stop().await;
}

// Row 5. Real clients always send UNKNOWN; that must not make a healthy service anything else.
#[tokio::test]
async fn a_v1_beat_of_unknown_status_keeps_it_and_merges_metrics() {
    let server = start(args()).await;
    let mut client = server.v1();
    client
        .register_component(register(component("s1")))
        .await
        .expect("registered");
    for metrics in [&[("a", "1"), ("b", "2")][..], &[("b", "3"), ("c", "x")]] {
        client
            .heartbeat(v1_beat("s1", HealthStatus::Unknown, metrics))
            .await
            .expect("accepted");
    }
    let status = status_of(&server, "s1").await;
    assert_eq!(status.status(), HealthStatus::Healthy);
    let metrics: Vec<_> = status
        .metrics
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(metrics, [("a", "1"), ("b", "3"), ("c", "x")]);
    server.stop().await;
}

// Row 6. Readers that ask for healthy components must not be sent to degraded ones.
#[tokio::test]
async fn v1_list_without_unhealthy_has_healthy_components_only() {
    let server = start(args()).await;
    let mut client = server.v1();
    for (id, status) in [
        ("c", HealthStatus::Healthy),
        ("a", HealthStatus::Unknown),
        ("b", HealthStatus::Degraded),
        ("d", HealthStatus::Starting),
    ] {
        client
            .register_component(register(component(id)))
            .await
            .expect("registered");
        client.heartbeat(v1_beat(id, status, &[])).await.expect("accepted");
    }
    let mut ids = async |include_unhealthy| {
        let request = v1::ListComponentsRequest {
            type_filter: 0,
            include_unhealthy,
        };
        let listed = client
            .list_components(request)
            .await
            .expect("a list")
            .into_inner()
            .components;
        let ids = listed.into_iter().filter_map(|one| Some(one.component?.id));
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(false).await, ["a", "c"]);
    assert_eq!(ids(true).await, ["a", "b", "c", "d"]);
    server.stop().await;
}

// Row 7. A client that unregisters twice, at its end and in a hook, must not fail its host.
#[tokio::test]
async fn v1_unregister_of_an_unknown_id_is_no_error() {
    let server = start(args()).await;
    let mut client = server.v1();
    client
        .register_component(register(component("s1")))
        .await
        .expect("registered");
    for _ in 0..2 {
        let request = v1::UnregisterRequest {
            service_id: "s1".to_owned(),
        };
        client.unregister_component(request).await.expect("no error");
    }
    let error = client
        .get_component_status(which("s1"))
        .await
        .expect_err("gone at once");
    assert_eq!(error.code(), Code::NotFound);
    server.stop().await;
}

// Row 8. Pipelines are wired from this answer: the same question must give the same order.
#[tokio::test]
async fn v1_discovery_matches_inputs_and_outputs_and_is_sorted() {
    let server = start(args()).await;
    let mut client = server.v1();
    for (id, input, output) in [
        ("z", "raw", "ledger"),
        ("a", "ledger", "payment"),
        ("m", "payment", "none"),
    ] {
        let component = v1::ComponentInfo {
            input_event_types: vec![input.to_owned()],
            output_event_types: vec![output.to_owned()],
            metadata: [(
                "network".to_owned(),
                if id == "z" { "testnet" } else { "pubnet" }.to_owned(),
            )]
            .into(),
            ..component(id)
        };
        client
            .register_component(register(component))
            .await
            .expect("registered");
    }
    let mut find = async |types: &[&str], filters: &[(&str, &str)]| {
        let request = v1::DiscoveryRequest {
            r#type: 0,
            event_types: types.iter().map(|one| (*one).to_owned()).collect(),
            metadata_filters: filters
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        };
        let found = client
            .discover_components(request)
            .await
            .expect("an answer")
            .into_inner()
            .components;
        found.into_iter().map(|one| one.id).collect::<Vec<_>>()
    };
    assert_eq!(find(&["ledger"], &[]).await, ["a", "z"]);
    assert_eq!(find(&["ledger", "none"], &[]).await, ["a", "m", "z"]);
    assert_eq!(find(&["ledger"], &[("network", "pubnet")]).await, ["a"]);
    assert_eq!(find(&[], &[]).await, ["a", "m", "z"]);
    assert!(find(&["other"], &[]).await.is_empty());
    server.stop().await;
}

// Row 9. Whole pipelines are what cdp registers; the type must not get lost on the way to readers of either dialect.
#[tokio::test]
async fn a_legacy_pipeline_stays_one() {
    let server = start(args()).await;
    let info = legacy::ServiceInfo {
        service_id: "cdp-stellar.payments".to_owned(),
        service_type: ServiceType::Pipeline.into(),
        health_endpoint: "localhost:8088".to_owned(),
        ..legacy::ServiceInfo::default()
    };
    let ack = server.legacy().register(info).await.expect("registered").into_inner();
    assert_eq!(ack.service_id, "cdp-stellar.payments");
    let services = server
        .legacy()
        .list_services(())
        .await
        .expect("a list")
        .into_inner()
        .services;
    assert_eq!(services[0].service_type(), ServiceType::Pipeline);
    let component = status_of(&server, "cdp-stellar.payments")
        .await
        .component
        .expect("a component");
    assert_eq!(component.r#type(), ComponentType::Unspecified);
    assert_eq!(
        component.metadata.get("flowctl.service_type").map(String::as_str),
        Some("PIPELINE")
    );
    server.stop().await;
}

// Rows 10 to 12. The real server drops all this: whoever looks at cdp's numbers sees nothing.
#[tokio::test]
async fn what_a_legacy_client_reports_is_read_in_both_dialects() {
    let server = start(args()).await;
    let mut client = server.legacy();
    let info = legacy::ServiceInfo {
        service_id: "s1".to_owned(),
        component_id: "c1".to_owned(),
        service_type: ServiceType::Sink.into(),
        metadata: [
            ("sink_name".to_owned(), "parquet".to_owned()),
            ("version".to_owned(), "1.2".to_owned()),
        ]
        .into(),
        ..legacy::ServiceInfo::default()
    };
    client.register(info.clone()).await.expect("registered");
    client
        .heartbeat(legacy_beat("s1", &[("files", 3.0), ("ratio", 0.5)]))
        .await
        .expect("accepted");

    let status = client.get_service_status(info).await.expect("implemented").into_inner();
    let listed = client.list_services(()).await.expect("a list").into_inner().services;
    assert_eq!(listed, std::slice::from_ref(&status).to_vec());
    assert!(status.is_healthy);
    assert!(status.last_heartbeat.is_some());
    assert_eq!((status.service_id.as_str(), status.component_id.as_str()), ("s1", "c1"));
    assert_eq!(status.metrics.get("ratio"), Some(&0.5));

    let status = status_of(&server, "s1").await;
    let metrics: Vec<_> = status
        .metrics
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(metrics, [("files", "3"), ("ratio", "0.5")]);
    let component = status.component.expect("a component");
    assert_eq!(component.r#type(), ComponentType::Consumer);
    assert_eq!(
        (component.name.as_str(), component.version.as_str()),
        ("parquet", "1.2")
    );
    server.stop().await;
}

// Row 13. A dead service that said DEGRADED last must not look alive for ever.
#[tokio::test]
async fn every_live_status_expires_and_is_kept_apart() {
    let server = start(short_ttl()).await;
    let mut client = server.v1();
    for (id, status) in [("healthy", HealthStatus::Healthy), ("degraded", HealthStatus::Degraded)] {
        client
            .register_component(register(component(id)))
            .await
            .expect("registered");
        client.heartbeat(v1_beat(id, status, &[])).await.expect("accepted");
    }
    for (id, reported) in [("healthy", HealthStatus::Healthy), ("degraded", HealthStatus::Degraded)] {
        until_expired(&server, id).await;
        assert_eq!(status_of(&server, id).await.status(), HealthStatus::Unhealthy);
        assert_eq!(ours_of(&server, id).await.reported_status(), reported);
    }
    let services = server
        .legacy()
        .list_services(())
        .await
        .expect("a list")
        .into_inner()
        .services;
    assert!(services.iter().all(|service| !service.is_healthy));
    server.stop().await;
}

// Rows 14 and 15. One gap of forty seconds must not mark a service for the rest of its life.
#[tokio::test]
async fn a_fresh_beat_ends_expiry() {
    let server = start(short_ttl()).await;
    let (mut v1, legacy) = (server.v1(), server.legacy());
    for id in ["by-legacy", "by-unknown", "by-healthy"] {
        v1.register_component(register(component(id)))
            .await
            .expect("registered");
    }
    for id in ["by-legacy", "by-unknown", "by-healthy"] {
        until_expired(&server, id).await;
    }
    // A busy machine may take longer than the TTL from the first beat to the list: then it is tried again.
    until("all are back", async || {
        let (mut v1, mut legacy) = (v1.clone(), legacy.clone());
        legacy.heartbeat(legacy_beat("by-legacy", &[])).await.expect("accepted");
        for (id, status) in [
            ("by-unknown", HealthStatus::Unknown),
            ("by-healthy", HealthStatus::Healthy),
        ] {
            v1.heartbeat(v1_beat(id, status, &[])).await.expect("accepted");
        }
        let list = v1
            .list_components(v1::ListComponentsRequest::default())
            .await
            .expect("a list");
        (list.into_inner().components.len() == 3).then_some(())
    })
    .await;
    server.stop().await;
}

// Rows 16 and 17. Who stopped a run must be able to believe that it is over.
#[tokio::test]
async fn a_run_that_has_ended_stays_ended() {
    let server = start(args()).await;
    let mut client = server.legacy();
    let create = legacy::CreatePipelineRunRequest {
        run_id: "r1".to_owned(),
        pipeline_name: "payments".to_owned(),
        ..legacy::CreatePipelineRunRequest::default()
    };
    let run = client.create_pipeline_run(create).await.expect("created").into_inner();
    assert_eq!(run.status(), RunStatus::Starting);
    let stop = legacy::StopPipelineRunRequest {
        run_id: "r1".to_owned(),
    };
    let stopped = client.stop_pipeline_run(stop).await.expect("stopped").into_inner();
    assert_eq!(stopped.status(), RunStatus::Stopped);
    assert!(stopped.end_time.is_some());
    let update = legacy::UpdatePipelineRunRequest {
        run_id: "r1".to_owned(),
        status: RunStatus::Running.into(),
        ..legacy::UpdatePipelineRunRequest::default()
    };
    let error = client.update_pipeline_run(update).await.expect_err("it is over");
    assert_eq!(error.code(), Code::FailedPrecondition);
    let which = legacy::GetPipelineRunRequest {
        run_id: "nope".to_owned(),
    };
    let error = client.get_pipeline_run(which).await.expect_err("unknown");
    assert_eq!(
        (error.code(), error.message()),
        (Code::NotFound, "pipeline run not found: nope")
    );
    server.stop().await;
}

// Truncated lists must show what is new: nobody looks for last week's runs.
#[tokio::test]
async fn runs_are_listed_newest_first() {
    let server = start(args()).await;
    let mut client = server.legacy();
    for number in 0..12 {
        let create = legacy::CreatePipelineRunRequest {
            run_id: format!("r{number:02}"),
            pipeline_name: if number % 2 == 0 { "even" } else { "odd" }.to_owned(),
            ..legacy::CreatePipelineRunRequest::default()
        };
        client.create_pipeline_run(create).await.expect("created");
    }
    let mut list = async |pipeline: &str, limit| {
        let request = legacy::ListPipelineRunsRequest {
            pipeline_name: pipeline.to_owned(),
            status: 0,
            limit,
        };
        let runs = client
            .list_pipeline_runs(request)
            .await
            .expect("a list")
            .into_inner()
            .runs;
        runs.into_iter().map(|run| run.run_id).collect::<Vec<_>>()
    };
    assert_eq!(list("", 0).await.len(), 10);
    assert_eq!(list("", 3).await, ["r11", "r10", "r09"]);
    assert_eq!(list("even", 2).await, ["r10", "r08"]);
    assert_eq!(list("", -1).await.len(), 12);
    server.stop().await;
}
