//! Alerts as their owner sees them: a webhook receiver that checks every signature, and a service that comes and goes.

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use flowctl_control_plane::{DELIVERY_HEADER, SIGNATURE_HEADER, Secret, Server, ServerArgs, TIMESTAMP_HEADER};
use flowctl_proto::flowctl::registry::v1 as ours;
use flowctl_proto::flowctl::v1::HealthStatus;
use serde_json::Value;
use support::{Running, args, component, register, run, until, v1_beat};
use tonic::Code;

const SECRET: &str = "a secret of the receiver";

/// A receiver of webhooks.
#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    /// What it answers.
    status: Arc<Mutex<StatusCode>>,
}

#[derive(Clone, Debug)]
struct Call {
    state: String,
    service_id: String,
    status: String,
    delivery: String,
    value: Option<f64>,
    is_signed: bool,
    at: Instant,
}

// === impl Receiver ===

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let receiver = Self {
            address: listener.local_addr().expect("an address"),
            calls: Arc::default(),
            status: Arc::new(Mutex::new(StatusCode::NO_CONTENT)),
        };
        let routes = Router::new()
            .route("/webhook", post(receive))
            .with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        receiver
    }

    fn url(&self) -> String {
        format!("http://{}/webhook", self.address)
    }

    fn answer(&self, status: StatusCode) {
        *self.status.lock().expect("no panic") = status;
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("no panic").clone()
    }

    async fn until_calls(&self, count: usize) -> Vec<Call> {
        until(&format!("{count} calls"), async || {
            let calls = self.calls();
            (calls.len() >= count).then_some(calls)
        })
        .await
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let timestamp: u64 = header(TIMESTAMP_HEADER).parse().unwrap_or_default();
    let expected = Secret::new(SECRET).expect("not empty").sign(timestamp, &body);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let json: Value = serde_json::from_slice(&body).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let call = Call {
        state: text(&json["state"]),
        service_id: text(&json["service"]["service_id"]),
        status: text(&json["service"]["status"]),
        delivery: header(DELIVERY_HEADER),
        value: json["service"]["value"].as_f64(),
        is_signed: header(SIGNATURE_HEADER) == expected && now.abs_diff(timestamp) < 60,
        at: Instant::now(),
    };
    assert_eq!(text(&json["delivery_id"]), call.delivery);
    receiver.calls.lock().expect("no panic").push(call);
    *receiver.status.lock().expect("no panic")
}

async fn start(args: ServerArgs) -> Running {
    run(Server::new(args).alert_retry(Duration::from_millis(50), 4)).await
}

fn short_ttl() -> ServerArgs {
    ServerArgs {
        heartbeat_ttl: Duration::from_secs(1),
        ..args()
    }
}

async fn create(server: &Running, service_id: &str, condition: &str, webhook: &str) -> String {
    let request = ours::CreateAlertRequest {
        service_id: service_id.to_owned(),
        condition: condition.to_owned(),
        webhook_url: webhook.to_owned(),
        secret: SECRET.to_owned(),
    };
    let alert = server
        .ours()
        .create_alert(request)
        .await
        .expect("an alert")
        .into_inner();
    assert!(alert.signed);
    alert.alert_id
}

async fn the_alert(server: &Running) -> ours::Alert {
    let list = server
        .ours()
        .list_alerts(ours::ListAlertsRequest::default())
        .await
        .expect("a list");
    list.into_inner().alerts.into_iter().next().expect("an alert")
}

async fn beat(server: &Running, id: &str, status: HealthStatus, metrics: &[(&str, &str)]) {
    server
        .v1()
        .heartbeat(v1_beat(id, status, metrics))
        .await
        .expect("accepted");
}

// The runbook's alert: whoever is on call hears once that the pipeline is ill, and once that it is well again.
#[tokio::test]
async fn firing_and_resolved_are_told_once_and_signed() {
    let receiver = Receiver::start().await;
    let server = start(args()).await;
    server
        .v1()
        .register_component(register(component("cdp-1")))
        .await
        .expect("registered");
    create(&server, "cdp-1", "status != healthy", &receiver.url()).await;
    beat(&server, "cdp-1", HealthStatus::Degraded, &[]).await;
    let calls = receiver.until_calls(1).await;
    assert!(calls[0].is_signed);
    assert_eq!(
        (calls[0].state.as_str(), calls[0].status.as_str()),
        ("firing", "degraded")
    );
    let firing = until("the call to be noted", async || {
        let instance = the_alert(&server).await.instances.into_iter().next()?;
        instance.delivered_at.is_some().then_some(instance)
    })
    .await;
    assert_eq!(firing.state(), ours::AlertState::Firing);
    // Still ill, and worse: no news for this condition.
    beat(&server, "cdp-1", HealthStatus::Unhealthy, &[]).await;
    beat(&server, "cdp-1", HealthStatus::Healthy, &[]).await;
    let calls = receiver.until_calls(2).await;
    assert_eq!((calls[1].state.as_str(), calls[1].is_signed), ("resolved", true));
    assert_ne!(calls[0].delivery, calls[1].delivery);
    assert_eq!(calls.len(), 2);
    server.stop().await;
}

// Silence is what a crashed pipeline sounds like.
#[tokio::test]
async fn expiry_fires_and_a_beat_resolves() {
    let receiver = Receiver::start().await;
    let server = start(short_ttl()).await;
    server
        .v1()
        .register_component(register(component("cdp-1")))
        .await
        .expect("registered");
    create(&server, "", "status == expired", &receiver.url()).await;
    let calls = receiver.until_calls(1).await;
    assert_eq!(
        (calls[0].state.as_str(), calls[0].status.as_str()),
        ("firing", "expired")
    );
    beat(&server, "cdp-1", HealthStatus::Healthy, &[]).await;
    let calls = receiver.until_calls(2).await;
    assert_eq!(calls[1].state, "resolved");
    server.stop().await;
}

// A number over its bound, for every service that reports it, and only after it has lasted.
#[tokio::test]
async fn a_metric_fires_after_it_has_held() {
    let receiver = Receiver::start().await;
    let server = start(args()).await;
    for id in ["a", "b"] {
        server
            .v1()
            .register_component(register(component(id)))
            .await
            .expect("registered");
    }
    create(&server, "", "metric.errors > 5 for 2s", &receiver.url()).await;
    let began = Instant::now();
    beat(&server, "a", HealthStatus::Healthy, &[("errors", "5")]).await;
    beat(&server, "b", HealthStatus::Healthy, &[("errors", "6")]).await;
    let calls = receiver.until_calls(1).await;
    assert_eq!((calls[0].service_id.as_str(), calls[0].value), ("b", Some(6.0)));
    assert!(calls[0].at.duration_since(began) >= Duration::from_secs(2));
    server
        .v1()
        .unregister_component(flowctl_proto::flowctl::v1::UnregisterRequest {
            service_id: "b".to_owned(),
        })
        .await
        .expect("gone");
    let calls = receiver.until_calls(2).await;
    assert_eq!(
        (calls[1].state.as_str(), calls[1].status.as_str()),
        ("resolved", "removed")
    );
    server.stop().await;
}

// A receiver that is down for a while still hears; every attempt can be told to be the same news.
#[tokio::test]
async fn a_failed_call_is_tried_again_and_then_given_up() {
    let receiver = Receiver::start().await;
    receiver.answer(StatusCode::SERVICE_UNAVAILABLE);
    let server = start(args()).await;
    server
        .v1()
        .register_component(register(component("cdp-1")))
        .await
        .expect("registered");
    create(&server, "cdp-1", "status == degraded", &receiver.url()).await;
    beat(&server, "cdp-1", HealthStatus::Degraded, &[]).await;
    let calls = receiver.until_calls(2).await;
    assert_eq!(calls[0].delivery, calls[1].delivery);
    let failed = until("the failure to be shown", async || {
        let instance = the_alert(&server).await.instances.into_iter().next()?;
        (!instance.delivery_error.is_empty()).then_some(instance.delivery_error)
    })
    .await;
    assert!(failed.contains("503"), "{failed}");
    receiver.until_calls(4).await;
    let given_up = "flowctl_control_plane_alert_calls_total{outcome=\"given_up\"} ";
    until("it to be given up", async || {
        (support::metric(server.admin, given_up).await == Some(1.0)).then_some(())
    })
    .await;
    // The next news is told again.
    receiver.answer(StatusCode::OK);
    beat(&server, "cdp-1", HealthStatus::Healthy, &[]).await;
    until("nothing to be said any more", async || {
        (the_alert(&server).await.instances[0].state() == ours::AlertState::Ok).then_some(())
    })
    .await;
    beat(&server, "cdp-1", HealthStatus::Degraded, &[]).await;
    let calls = receiver.until_calls(5).await;
    assert_eq!(calls[4].state, "firing");
    server.stop().await;
}

// A restart of the server wakes nobody a second time, and what ended meanwhile is told.
#[tokio::test]
async fn alerts_and_what_they_told_survive_a_restart() {
    let receiver = Receiver::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let persistent = || ServerArgs {
        no_persistence: false,
        db_path: Some(folder.path().join("registry.db")),
        ..short_ttl()
    };
    let server = start(persistent()).await;
    server
        .v1()
        .register_component(register(component("cdp-1")))
        .await
        .expect("registered");
    let id = create(&server, "cdp-1", "status == expired", &receiver.url()).await;
    receiver.until_calls(1).await;
    until("the call to be noted", async || {
        the_alert(&server).await.instances[0].delivered_at
    })
    .await;
    server.stop().await;

    let server = start(persistent()).await;
    let alert = the_alert(&server).await;
    assert_eq!(alert.alert_id, id);
    assert_eq!(alert.instances[0].state(), ours::AlertState::Firing);
    // Quiet for longer than the TTL and several looks.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(receiver.calls().len(), 1, "told twice");
    beat(&server, "cdp-1", HealthStatus::Healthy, &[]).await;
    let calls = receiver.until_calls(2).await;
    assert_eq!((calls[1].state.as_str(), calls[1].is_signed), ("resolved", true));
    server.stop().await;
}

// Mistakes are told when the alert is made; nobody finds out in the night that it could never fire.
#[tokio::test]
async fn an_alert_that_cannot_work_is_refused() {
    let server = start(args()).await;
    for (condition, webhook, why) in [
        ("status != helthy", "http://127.0.0.1:1/", "did you mean"),
        ("", "http://127.0.0.1:1/", "condition"),
        ("status != healthy", "", "webhook"),
        ("status != healthy", "http://169.254.169.254/latest", "never called"),
        ("status != healthy", "http://user:pw@host/", "user name"),
    ] {
        let request = ours::CreateAlertRequest {
            condition: condition.to_owned(),
            webhook_url: webhook.to_owned(),
            ..ours::CreateAlertRequest::default()
        };
        let error = server.ours().create_alert(request).await.expect_err(condition);
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains(why), "{}", error.message());
    }
    let unknown = ours::DeleteAlertRequest {
        alert_id: "nope".to_owned(),
    };
    let error = server.ours().delete_alert(unknown).await.expect_err("unknown");
    assert_eq!(error.code(), Code::NotFound);
    server.stop().await;
}

// An alert that was deleted is silent, and its secret is shown to nobody.
#[tokio::test]
async fn a_deleted_alert_is_silent() {
    let receiver = Receiver::start().await;
    let server = start(args()).await;
    server
        .v1()
        .register_component(register(component("cdp-1")))
        .await
        .expect("registered");
    let deleted = create(&server, "cdp-1", "status == degraded", &receiver.url()).await;
    create(&server, "cdp-1", "status == unhealthy", &receiver.url()).await;
    let list = server
        .ours()
        .list_alerts(ours::ListAlertsRequest::default())
        .await
        .expect("a list")
        .into_inner();
    assert!(!format!("{list:?}").contains(SECRET));
    assert_eq!(list.alerts[0].alert_id, deleted);
    server
        .ours()
        .delete_alert(ours::DeleteAlertRequest { alert_id: deleted })
        .await
        .expect("deleted");
    beat(&server, "cdp-1", HealthStatus::Degraded, &[]).await;
    // Two looks later the other alert, which is evaluated after it, has fired; the deleted one has not.
    beat(&server, "cdp-1", HealthStatus::Unhealthy, &[]).await;
    let calls = receiver.until_calls(1).await;
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].status, "unhealthy");
    server.stop().await;
}
