//! The plain pages: `/api/services` as seed 002 curls it, and what operators and Prometheus read.

mod support;

use std::time::Duration;

use flowctl_control_plane::ServerArgs;
use flowctl_proto::flowctl::v1::HealthStatus;
use flowctl_proto::flowctl::{self as legacy, ServiceType, v1};
use serde_json::{Value, json};
use support::{args, component, get, legacy_beat, metric, register, start, until, v1_beat};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

// The published check is `curl http://localhost:8080/api/services`, on the gRPC port.
#[tokio::test]
async fn services_are_shown_as_json_over_http_1_and_2() {
    let server = start(args()).await;
    let info = legacy::ServiceInfo {
        service_id: "source".to_owned(),
        service_type: ServiceType::Source.into(),
        health_endpoint: "http://localhost:8088/health".to_owned(),
        metadata: [("network".to_owned(), "testnet".to_owned())].into(),
        ..legacy::ServiceInfo::default()
    };
    server.legacy().register(info).await.expect("registered");
    server
        .legacy()
        .heartbeat(legacy_beat("source", &[("ledgers", 12.0)]))
        .await
        .expect("accepted");
    for id in ["processor-1", "processor-2"] {
        server
            .v1()
            .register_component(register(component(id)))
            .await
            .expect("registered");
    }
    let beat = v1_beat("processor-2", HealthStatus::Degraded, &[("note", "slow")]);
    server.v1().heartbeat(beat).await.expect("accepted");

    for is_http2 in [false, true] {
        let (status, body) = get(server.address, "/api/services", is_http2).await;
        assert_eq!(status, 200);
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["count"], 3);
        let ids: Vec<_> = body["services"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["service_id"].clone())
            .collect();
        assert_eq!(ids, [json!("processor-1"), json!("processor-2"), json!("source")]);

        let (status, body) = get(server.address, "/api/services/source", is_http2).await;
        assert_eq!(status, 200);
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            (&body["type"], &body["status"], &body["liveness"]),
            (&json!("source"), &json!("healthy"), &json!("live"))
        );
        assert_eq!(body["metrics"], json!({"ledgers": 12.0}));
        assert_eq!(body["metadata"]["network"], "testnet");
    }
    for (filter, count) in [
        ("type=processor", 2),
        ("status=degraded", 1),
        ("type=source&status=degraded", 0),
    ] {
        let (_, body) = get(server.address, &format!("/api/services?{filter}"), false).await;
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["count"], count, "{filter}");
    }
    server.stop().await;
}

// Dashboards and rules read these names; a label that a client chooses would let it fill Prometheus.
#[tokio::test]
async fn metrics_tell_services_beats_and_calls() {
    // Long enough for a busy machine to look while the service is alive.
    let server = start(ServerArgs {
        heartbeat_ttl: Duration::from_secs(5),
        ..args()
    })
    .await;
    server
        .v1()
        .register_component(register(component("p1")))
        .await
        .expect("registered");
    server
        .v1()
        .heartbeat(v1_beat("p1", HealthStatus::Healthy, &[]))
        .await
        .expect("accepted");
    server
        .v1()
        .heartbeat(v1_beat("nobody", HealthStatus::Healthy, &[]))
        .await
        .expect_err("unknown");
    let services = |liveness: &str| {
        format!("flowctl_control_plane_services{{type=\"processor\",liveness=\"{liveness}\",status=\"healthy\"}} ")
    };
    assert_eq!(metric(server.admin, &services("live")).await, Some(1.0));
    assert_eq!(
        metric(server.admin, "flowctl_control_plane_heartbeat_gap_seconds_count ").await,
        Some(1.0)
    );
    let calls = |code: &str| {
        format!(
            "flowctl_control_plane_rpc_seconds_count{{method=\"flowctl.v1.ControlPlaneService/Heartbeat\",code=\"{code}\"}} "
        )
    };
    assert_eq!(metric(server.admin, &calls("OK")).await, Some(1.0));
    assert_eq!(metric(server.admin, &calls("NOT_FOUND")).await, Some(1.0));
    until("expiry to be counted", async || {
        (metric(server.admin, &services("expired")).await == Some(1.0)).then_some(())
    })
    .await;

    for number in 0..50 {
        let _ = get(server.address, &format!("/no/such/page/{number}"), false).await;
        server
            .v1()
            .register_component(register(component(&format!("id-{number}"))))
            .await
            .expect("registered");
    }
    let (_, text) = get(server.admin, "/metrics", false).await;
    assert!(
        !text.contains("id-1") && !text.contains("/no/such"),
        "a label that a client chose"
    );
    server.stop().await;
}

// Kubernetes probes and gRPC load balancers ask before they send anybody here.
#[tokio::test]
async fn probes_are_answered_in_both_ways() {
    let server = start(args()).await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(server.admin, path, false).await.0, 200, "{path}");
    }
    let mut health = HealthClient::new(server.channel());
    for service in [
        "",
        "flowctl.ControlPlane",
        "flowctl.v1.ControlPlaneService",
        "flowctl.registry.v1.RegistryService",
    ] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = health.check(request).await.expect("a known service").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    server.stop().await;
}

// grpcurl and its like work without our .proto files, and are not shown protocols that are not here.
#[tokio::test]
async fn reflection_lists_what_is_served() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServiceResponse};

    let server = start(args()).await;
    let ask = |message_request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message_request),
    };
    let questions = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(
            "flowctl.v1.ControlPlaneService".to_owned(),
        )),
    ];
    let mut answers = ServerReflectionClient::new(server.channel())
        .server_reflection_info(futures::stream::iter(questions))
        .await
        .expect("a stream")
        .into_inner();
    let list = answers
        .message()
        .await
        .expect("an answer")
        .expect("an answer")
        .message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = list else {
        panic!("{list:?}")
    };
    let names: Vec<_> = list.service.into_iter().map(|ServiceResponse { name }| name).collect();
    for name in [
        "flowctl.ControlPlane",
        "flowctl.v1.ControlPlaneService",
        "flowctl.registry.v1.RegistryService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.iter().any(|one| one == name), "{name} in {names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with("pipeline.")), "{names:?}");
    let file = answers
        .message()
        .await
        .expect("an answer")
        .expect("an answer")
        .message_response;
    assert!(
        matches!(file, Some(MessageResponse::FileDescriptorResponse(_))),
        "{file:?}"
    );
    server.stop().await;
}

// Whatever the number of services, a page never has more than it was asked for, and nothing is left out.
#[tokio::test]
async fn a_list_in_v1_and_in_json_is_the_same() {
    let server = start(args()).await;
    for number in 0..40 {
        server
            .v1()
            .register_component(register(component(&format!("s{number:02}"))))
            .await
            .expect("registered");
    }
    let request = v1::ListComponentsRequest {
        type_filter: 0,
        include_unhealthy: true,
    };
    let components = server
        .v1()
        .list_components(request)
        .await
        .expect("a list")
        .into_inner()
        .components;
    let (_, body) = get(server.address, "/api/services", false).await;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let json: Vec<_> = body["services"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["service_id"].as_str())
        .collect();
    let v1: Vec<_> = components
        .iter()
        .map(|one| one.component.as_ref().map(|one| one.id.as_str()))
        .collect();
    assert_eq!(json, v1);
    server.stop().await;
}
