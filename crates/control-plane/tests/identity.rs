//! Who may claim which id, with a reviewer in the place of the apiserver.

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flowctl_control_plane::{Identity, IdentityMode, ReviewError, Reviewer, Server, ServerArgs};
use flowctl_proto::flowctl::registry::v1 as ours;
use flowctl_proto::flowctl::registry::v1::watch_response::Event;
use flowctl_proto::flowctl::v1::HealthStatus;
use flowctl_proto::flowctl::{self as legacy, v1};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use support::{Running, args, component, legacy_beat, register, run, v1_beat, which};
use tonic::{Code, Request, Status};

/// Knows the tokens that it gave out.
#[derive(Default)]
struct Apiserver {
    tokens: Mutex<HashMap<String, Identity>>,
    is_down: Mutex<bool>,
}

struct Asked(Arc<Apiserver>);

impl Reviewer for Asked {
    fn review(&self, token: String, _: String) -> BoxFuture<'static, Result<Identity, ReviewError>> {
        let answer = match *self.0.is_down.lock().expect("no panic") {
            true => Err(ReviewError::Unavailable("the apiserver is down".to_owned())),
            false => {
                let known = self.0.tokens.lock().expect("no panic").get(&token).cloned();
                known.ok_or_else(|| ReviewError::Refused("nobody's".to_owned()))
            }
        };
        async move { answer }.boxed()
    }
}

// === impl Apiserver ===

impl Apiserver {
    fn token(&self, pod: &str, uid: &str) -> String {
        let payload = serde_json::json!({"aud": ["flowctl"], "exp": 9_999_999_999_u64, "pod": pod, "uid": uid});
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload.to_string()));
        let identity = Identity {
            username: "system:serviceaccount:shop:default".to_owned(),
            namespace: "shop".to_owned(),
            pod_name: pod.to_owned(),
            pod_uid: uid.to_owned(),
        };
        self.tokens.lock().expect("no panic").insert(token.clone(), identity);
        token
    }
}

async fn server(mode: IdentityMode) -> (Arc<Apiserver>, Running) {
    let apiserver = Arc::<Apiserver>::default();
    let server = Server::new(ServerArgs {
        identity: Some(mode),
        ..args()
    })
    .reviewer(Arc::new(Asked(Arc::clone(&apiserver))));
    (apiserver, run(server).await)
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        let value = format!("Bearer {token}").parse().expect("ASCII");
        request.metadata_mut().insert("authorization", value);
    }
    request
}

async fn claim(server: &Running, token: &str, id: &str) -> Result<(), Status> {
    let request = with(token, register(component(id)));
    server.v1().register_component(request).await.map(drop)
}

async fn beat(server: &Running, token: &str, id: &str) -> Result<(), Status> {
    let request = with(token, v1_beat(id, HealthStatus::Healthy, &[]));
    server.v1().heartbeat(request).await.map(drop)
}

async fn mark(server: &Running, id: &str) -> Option<String> {
    let status = server
        .v1()
        .get_component_status(which(id))
        .await
        .expect("registered")
        .into_inner();
    status.component?.metadata.get("flowctl.identity").cloned()
}

const POD: &str = "pay-processor-6c5b8d7f9-x2x4z";
const OWN: &str = "shop.pay.pay-processor-6c5b8d7f9-x2x4z";

// The operator gives pods tokens only where they are asked for, made for the right audience; and says which evidence is proved.
#[tokio::test]
async fn readers_learn_what_is_asked_and_what_was_proved() {
    for (mode, told) in [
        (IdentityMode::Permissive, ours::IdentityMode::Permissive),
        (IdentityMode::Required, ours::IdentityMode::Required),
    ] {
        let (apiserver, server) = server(mode).await;
        let token = apiserver.token(POD, "u1");
        claim(&server, &token, OWN).await.expect("its own");
        let request = ours::WatchRequest {
            beats_every: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..ours::WatchRequest::default()
        };
        let mut events = server.ours().watch(request).await.expect("a stream").into_inner();
        let mut started = None;
        let verified = loop {
            beat(&server, &token, OWN).await.expect("its own");
            let message = tokio::time::timeout(support::LIMIT, events.message())
                .await
                .expect("in time");
            match message.expect("no error").expect("no end").event.expect("an event") {
                Event::Started(event) => started = Some(event),
                Event::Beats(beats) => break beats.beats[0].verified,
                _ => {}
            }
        };
        let started = started.expect("it comes first");
        assert_eq!(
            (started.identity_mode(), started.token_audience.as_str()),
            (told, "flowctl")
        );
        assert!(verified);
        server.stop().await;
    }
}

// Where identities are required, nobody writes for somebody else, and reading stays free.
#[tokio::test]
async fn required_lets_a_pod_claim_its_own_ids_only() {
    let (apiserver, server) = server(IdentityMode::Required).await;
    let token = apiserver.token(POD, "u1");
    claim(&server, &token, OWN).await.expect("its own");
    beat(&server, &token, OWN).await.expect("its own");
    assert_eq!(mark(&server, OWN).await.as_deref(), Some("verified"));
    let request = ours::GetServiceRequest {
        service_id: OWN.to_owned(),
    };
    let shown = server
        .ours()
        .get_service(request)
        .await
        .expect("registered")
        .into_inner()
        .identity;
    let shown = shown.expect("an identity");
    assert_eq!((shown.pod_name.as_str(), shown.pod_uid.as_str()), (POD, "u1"));

    let refused = [
        (claim(&server, "", "shop.a.a-1").await, Code::Unauthenticated),
        (claim(&server, "rubbish", "shop.a.a-1").await, Code::Unauthenticated),
        (
            claim(&server, &token, "shop.pay.pay-processor-6c5b8d7f9-other").await,
            Code::PermissionDenied,
        ),
        (claim(&server, &token, "cdp-shop.pay").await, Code::PermissionDenied),
        (claim(&server, &token, "").await, Code::PermissionDenied),
        (beat(&server, "", OWN).await, Code::Unauthenticated),
        (beat(&server, "rubbish", OWN).await, Code::Unauthenticated),
    ];
    for (outcome, code) in refused {
        assert_eq!(outcome.expect_err("refused").code(), code);
    }
    let writes = [
        server.legacy().heartbeat(legacy_beat(OWN, &[])).await.map(drop),
        server
            .legacy()
            .register(legacy::ServiceInfo {
                service_id: OWN.to_owned(),
                ..legacy::ServiceInfo::default()
            })
            .await
            .map(drop),
        server
            .v1()
            .unregister_component(v1::UnregisterRequest {
                service_id: OWN.to_owned(),
            })
            .await
            .map(drop),
        server
            .legacy()
            .create_pipeline_run(legacy::CreatePipelineRunRequest {
                pipeline_name: "p".to_owned(),
                ..Default::default()
            })
            .await
            .map(drop),
        server
            .ours()
            .create_alert(ours::CreateAlertRequest::default())
            .await
            .map(drop),
        server
            .ours()
            .delete_alert(ours::DeleteAlertRequest::default())
            .await
            .map(drop),
        server
            .ours()
            .stop_pipeline(ours::StopPipelineRequest {
                pipeline_name: "p".to_owned(),
            })
            .await
            .map(drop),
    ];
    for (index, outcome) in writes.into_iter().enumerate() {
        assert_eq!(outcome.expect_err("refused").code(), Code::Unauthenticated, "{index}");
    }
    let batch = ours::BatchHeartbeatsRequest {
        heartbeats: vec![
            ours::Heartbeat {
                service_id: OWN.to_owned(),
                ..Default::default()
            },
            ours::Heartbeat {
                service_id: "shop.other.other-1".to_owned(),
                ..Default::default()
            },
        ],
    };
    let ack = server
        .ours()
        .batch_heartbeats(with(&token, batch))
        .await
        .expect("a batch")
        .into_inner();
    assert_eq!(ack.accepted, 1);
    assert_eq!(ack.errors[0].code, Code::PermissionDenied as i32);
    let other = apiserver.token("other-1", "u9");
    let unregister = v1::UnregisterRequest {
        service_id: OWN.to_owned(),
    };
    let error = server
        .v1()
        .unregister_component(with(&other, unregister))
        .await
        .expect_err("not its own");
    assert_eq!(error.code(), Code::PermissionDenied);
    server.stop().await;
}

// An apiserver that is down must not look like a forged token: the client is to try again.
#[tokio::test]
async fn an_apiserver_that_is_down_is_told_apart() {
    let (apiserver, server) = server(IdentityMode::Required).await;
    let token = apiserver.token(POD, "u1");
    *apiserver.is_down.lock().expect("no panic") = true;
    let error = claim(&server, &token, OWN).await.expect_err("nobody knows");
    assert_eq!(error.code(), Code::Unavailable);
    *apiserver.is_down.lock().expect("no panic") = false;
    support::until("the apiserver to be asked again", async || {
        claim(&server, &token, OWN).await.ok()
    })
    .await;
    server.stop().await;
}

// Clients that know nothing of tokens work on, and readers see which beats nobody stands behind.
#[tokio::test]
async fn permissive_marks_and_refuses_nobody() {
    let (apiserver, server) = server(IdentityMode::Permissive).await;
    let token = apiserver.token(POD, "u1");
    claim(&server, "", "cdp-default").await.expect("anybody");
    beat(&server, "rubbish", "cdp-default").await.expect("anybody");
    assert_eq!(mark(&server, "cdp-default").await.as_deref(), Some("unverified"));
    claim(&server, &token, OWN).await.expect("its own");
    beat(&server, &token, OWN).await.expect("its own");
    assert_eq!(mark(&server, OWN).await.as_deref(), Some("verified"));
    beat(&server, "", OWN).await.expect("anybody");
    assert_eq!(mark(&server, OWN).await.as_deref(), Some("unverified"));
    beat(&server, &token, OWN).await.expect("its own");
    assert_eq!(mark(&server, OWN).await.as_deref(), Some("verified"));
    *apiserver.is_down.lock().expect("no panic") = true;
    let unknown = apiserver.token("another-1", "u2");
    claim(&server, &unknown, "shop.another.another-1")
        .await
        .expect("anybody");
    assert_eq!(
        mark(&server, "shop.another.another-1").await.as_deref(),
        Some("unverified")
    );
    server.stop().await;
}

// During a roll-out the old pod still runs for a while: its last beats must not hide that the new one is silent.
#[tokio::test]
async fn the_late_beat_of_a_replaced_pod_is_refused() {
    for mode in [IdentityMode::Permissive, IdentityMode::Required] {
        let (apiserver, server) = server(mode).await;
        let old = apiserver.token("pay-pipeline-6c5b8d7f9-aaaaa", "u1");
        let new = apiserver.token("pay-pipeline-7f9c8d6b5-bbbbb", "u2");
        let id = "cdp-shop.pay";
        claim(&server, &old, id).await.expect("the first");
        beat(&server, &old, id).await.expect("it is the one");
        claim(&server, &new, id).await.expect("it takes over");
        let error = beat(&server, &old, id).await.expect_err("too late");
        assert_eq!(error.code(), Code::FailedPrecondition, "{mode:?}");
        beat(&server, &new, id).await.expect("it is the one now");
        server.stop().await;
    }
}

// Off means off: a token that a client sends anyway costs nothing and changes nothing.
#[tokio::test]
async fn off_asks_nobody() {
    let (apiserver, server) = server(IdentityMode::Off).await;
    *apiserver.is_down.lock().expect("no panic") = true;
    claim(&server, "rubbish", "anything").await.expect("anybody");
    beat(&server, "", "anything").await.expect("anybody");
    assert_eq!(mark(&server, "anything").await, None);
    server.stop().await;
}
