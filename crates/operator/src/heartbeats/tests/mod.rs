//! The reader at a control plane that is played, over real connections: what a bad one costs, and what is closed again.

mod certificates;
mod numbers;

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use flowctl_api::{ControlPlane, ControlPlaneTls, ExternalProcessor};
use flowctl_control_plane::{Server, ServerArgs};
use flowctl_plan::{
    Key,
    heartbeat::{Asked, Heard, Mark, PlaneState, Reported, Service, Sign, asked_by_processor},
    observed::PodSecurity,
};
use flowctl_proto::flowctl::v1::{
    ComponentInfo, HeartbeatRequest, RegisterRequest, control_plane_service_client::ControlPlaneServiceClient,
};
use flowctl_testkit::{
    Error, Result,
    fake_control_plane::{Dialect, FakeControlPlane, HealthStatus, Memory, Mood, Script},
    wait,
};
use serde_json::json;
use tonic::{
    Code,
    transport::{Certificate, Identity, ServerTlsConfig},
};

use super::{translate::Numbers, *};

/// Nothing takes longer, unless something is wrong.
const LIMIT: Duration = Duration::from_secs(60);
const ID: &str = "one";

fn settings() -> Settings {
    Settings {
        runner_image: "runner:1".to_owned(),
        image_pull_policy: None,
        control_plane: None,
        allowed_control_planes: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
        pod_security: PodSecurity::Restricted,
        cluster_domain: "cluster.local".to_owned(),
        watched_namespaces: Vec::new(),
    }
}

fn subject(name: &str) -> Subject {
    Subject::processor(Key::new("ns", name))
}

/// What a processor asks that runs elsewhere and registers as [`ID`].
fn asked(endpoint: &str, tls: Option<ControlPlaneTls>) -> Asked {
    let object = json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor",
        "metadata": {"namespace": "ns", "name": "one", "uid": "u"},
        "spec": {
            "role": "Processor", "external": {"endpoint": "one.example.com:1"},
            "controlPlane": {"endpoint": endpoint, "tls": tls},
            "heartbeat": {"identity": "Shared", "componentId": ID, "intervalSeconds": 1, "staleAfterSeconds": 3},
        },
    });
    let object: ExternalProcessor = serde_json::from_value(object).expect("an ExternalProcessor");
    asked_by_processor(&object, &[], &settings()).expect("it names a control plane")
}

fn hub(options: &HeartbeatOptions) -> (Hub, Queue<Subject>) {
    let queue = Queue::new();
    (Hub::new(options, &settings(), queue.clone()), queue)
}

/// A hub for whose administrator this control plane is read, and was.
async fn administrators(endpoint: &str) -> Hub {
    let settings = Settings {
        control_plane: Some(ControlPlane {
            endpoint: endpoint.to_owned(),
            tls: None,
        }),
        ..settings()
    };
    let hub = Hub::new(&HeartbeatOptions::default(), &settings, Queue::new());
    hub.begin().await;
    hub
}

/// The only control plane that is read.
fn only(hub: &Hub) -> Arc<Plane> {
    let planes = hub.planes();
    assert_eq!(planes.len(), 1);
    Arc::clone(&planes[0])
}

async fn becomes(hub: &Hub, what: &str, is: impl Fn(&PlaneState) -> bool) -> Result<()> {
    let plane = only(hub);
    wait::until_explained(&format!("the control plane is {what}"), LIMIT, async || {
        plane.pass_time();
        let state = plane.state();
        Ok(if is(&state) { Ok(()) } else { Err(format!("{state:?}")) })
    })
    .await
}

async fn good(hub: &Hub) -> Result<()> {
    becomes(hub, "good", |state| matches!(state, PlaneState::Good)).await
}

async fn unreachable(hub: &Hub, why: &str) -> Result<()> {
    becomes(hub, &format!("unreachable: {why}"), |state| match state {
        PlaneState::Unreachable { message } => message.contains(why),
        _ => false,
    })
    .await
}

/// What is known of [`ID`].
fn sign(hub: &Hub, endpoint: &str) -> Sign {
    match hub.look(&subject("one"), Some(asked(endpoint, None))) {
        Heartbeats::Read { evidence, .. } => evidence.ids[0].sign.clone(),
        Heartbeats::NotRead => panic!("it is read"),
    }
}

async fn fresh(hub: &Hub, endpoint: &str) -> Result<()> {
    wait::until_explained("it beats", LIMIT, async || {
        let sign = sign(hub, endpoint);
        only(hub).pass_time();
        Ok(if matches!(sign, Sign::Fresh { .. }) {
            Ok(())
        } else {
            Err(format!("{sign:?}"))
        })
    })
    .await
}

fn beating(script: Script) -> Result<(FakeControlPlane, String)> {
    let server = FakeControlPlane::start(script)?;
    server.register(ID, None);
    server.keep_beating([ID], HealthStatus::Unknown);
    let endpoint = server.address().to_string();
    Ok((server, endpoint))
}

fn calls(server: &FakeControlPlane) -> usize {
    server.calls().values().sum()
}

// Without one of the dialects a whole generation of servers would be blank.
#[tokio::test]
async fn beats_are_heard_in_every_dialect() -> Result<()> {
    for (dialect, call) in [
        (Dialect::Ours, "Watch"),
        (Dialect::Go, "ListComponents"),
        (Dialect::Legacy, "ListServices"),
    ] {
        let (server, endpoint) = beating(Script {
            dialect,
            ..Script::default()
        })?;
        let (hub, queue) = hub(&HeartbeatOptions::default());
        assert_eq!(sign(&hub, &endpoint), Sign::Undecided);
        fresh(&hub, &endpoint).await?;
        assert!(queue.depth() > 0, "whoever asked is woken");
        let calls = server.calls();
        assert!(
            calls.get(call).is_some_and(|calls| *calls > 0),
            "{dialect:?}: {calls:?}"
        );
        // One stream, or one list in five seconds; what is not offered is asked for once.
        assert!(calls.values().all(|calls| *calls <= 6), "{dialect:?}: {calls:?}");
    }
    Ok(())
}

// What a control plane asks of its callers must be known when the first object is rendered: its revision would have no
// token, and keep none.
#[tokio::test]
async fn the_administrators_control_plane_is_read_before_anybody_names_it() -> Result<()> {
    let (server, endpoint) = beating(Script {
        dialect: Dialect::Ours,
        ..Script::default()
    })?;
    let hub = administrators(&endpoint).await;
    assert!(calls(&server) > 0);
    assert_eq!(only(&hub).state(), PlaneState::Good);
    // Nor is it closed with the last object that names it.
    sign(&hub, &endpoint);
    hub.forget(&subject("one"));
    only(&hub);
    Ok(())
}

// The same of one that an object names: its first pass waits for the answer, and no later one does.
#[tokio::test]
async fn a_control_plane_that_was_just_opened_is_given_a_moment() -> Result<()> {
    let (_server, endpoint) = beating(Script {
        dialect: Dialect::Ours,
        ..Script::default()
    })?;
    let hub = hub(&HeartbeatOptions::default()).0;
    assert!(!hub.first_answer(&subject("one")).await, "it names none");
    assert_eq!(sign(&hub, &endpoint), Sign::Undecided);
    assert!(hub.first_answer(&subject("one")).await);
    assert_eq!(only(&hub).state(), PlaneState::Good);
    assert!(!hub.first_answer(&subject("one")).await);
    // One that is not there holds nobody up for long.
    drop(hub.look(&subject("one"), Some(asked("127.0.0.1:1", None))));
    let begun = Instant::now();
    hub.first_answer(&subject("one")).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    Ok(())
}

async fn dies_and_is_found_again(dialect: Dialect) -> Result<()> {
    let (server, endpoint) = beating(Script {
        dialect,
        ..Script::default()
    })?;
    let (hub, _queue) = hub(&HeartbeatOptions::default());
    fresh(&hub, &endpoint).await?;
    server.kill();
    unreachable(&hub, "").await?;
    assert_eq!(sign(&hub, &endpoint), Sign::Unreachable);
    server.restart(Memory::Kept)?;
    good(&hub).await?;
    fresh(&hub, &endpoint).await
}

// A control plane that is down must be told as such, and must be read again when it is back.
#[tokio::test]
async fn a_streaming_control_plane_that_dies_is_found_again() -> Result<()> {
    dies_and_is_found_again(Dialect::Ours).await
}

#[tokio::test]
async fn a_listed_control_plane_that_dies_is_found_again() -> Result<()> {
    dies_and_is_found_again(Dialect::Go).await
}

async fn hangs_and_refuses(dialect: Dialect) -> Result<()> {
    let (server, endpoint) = beating(Script {
        dialect,
        ..Script::default()
    })?;
    let (hub, _queue) = hub(&HeartbeatOptions::default());
    fresh(&hub, &endpoint).await?;
    server.set_mood(Mood::Hangs);
    unreachable(&hub, "s").await?;
    server.set_mood(Mood::Refuses(Code::Internal));
    let before = calls(&server);
    let begun = Instant::now();
    wait::until("it was refused for a while", LIMIT, async || {
        Ok((begun.elapsed() > Duration::from_secs(10)).then_some(()))
    })
    .await?;
    // From half a second the tries become rare.
    let tries = calls(&server) - before;
    assert!((1..=12).contains(&tries), "{dialect:?}: {tries} calls in 10 s");
    server.set_mood(Mood::Well);
    good(&hub).await
}

// One that takes the connection and says nothing looks like one that is there, and one that refuses must not be hammered.
#[tokio::test]
async fn a_stream_that_hangs_and_a_refusal_are_no_answer() -> Result<()> {
    hangs_and_refuses(Dialect::Ours).await
}

#[tokio::test]
async fn a_list_that_hangs_and_a_refusal_are_no_answer() -> Result<()> {
    hangs_and_refuses(Dialect::Go).await
}

// A slow server is read all the same, and one component without sense does not hide the others.
#[tokio::test]
async fn slowness_and_nonsense_cost_nothing_but_freshness() -> Result<()> {
    let (server, endpoint) = beating(Script::default())?;
    let (hub, _queue) = hub(&HeartbeatOptions::default());
    server.set_mood(Mood::Slow(Duration::from_secs(2)));
    fresh(&hub, &endpoint).await?;
    server.set_mood(Mood::Rubbish);
    let before = calls(&server);
    wait::until("it was read twice more", LIMIT, async || {
        Ok((calls(&server) >= before + 2).then_some(()))
    })
    .await?;
    only(&hub).pass_time();
    assert!(!matches!(sign(&hub, &endpoint), Sign::Fresh { .. }));
    server.set_mood(Mood::Well);
    fresh(&hub, &endpoint).await
}

// Whoever answers at a port that an object names need not be a control plane at all.
#[tokio::test]
async fn what_is_no_control_plane_is_told() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(Error::io("listen"))?;
    let endpoint = listener.local_addr().map_err(Error::io("ask"))?.to_string();
    let talker = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::AsyncWriteExt as _;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
                .await;
        }
    });
    let (hub, _queue) = hub(&HeartbeatOptions::default());
    assert_eq!(sign(&hub, &endpoint), Sign::Undecided);
    unreachable(&hub, "").await?;
    talker.abort();
    Ok(())
}

// The author of an object must not be able to fill the operator's memory with a registry of his own.
#[tokio::test]
async fn a_registry_without_end_is_not_kept() -> Result<()> {
    let (server, endpoint) = beating(Script::default())?;
    for number in 0..10_001 {
        server.register(&format!("c{number}"), None);
    }
    let (hub, _queue) = hub(&HeartbeatOptions::default());
    assert_eq!(sign(&hub, &endpoint), Sign::Undecided);
    unreachable(&hub, "more than 10000 services").await
}

// A connection that nobody needs any more would be kept, and paid for, until the operator ends.
#[tokio::test]
async fn the_last_object_closes_the_connection() -> Result<()> {
    let (first, first_endpoint) = beating(Script::default())?;
    let (_second, second_endpoint) = beating(Script::default())?;
    let (hub, _queue) = hub(&HeartbeatOptions::default());
    let look = |name: &str, endpoint: &str| drop(hub.look(&subject(name), Some(asked(endpoint, None))));
    look("one", &first_endpoint);
    look("other", &first_endpoint);
    assert_eq!(hub.planes().len(), 1, "one connection for both");
    look("one", &second_endpoint);
    assert_eq!(hub.planes().len(), 2);
    hub.forget(&subject("other"));
    let left = only(&hub);
    assert_eq!(left.address.endpoint, second_endpoint);
    hub.look(&subject("one"), None);
    hub.forget(&subject("one"));
    assert_eq!(hub.planes().len(), 0);
    // What is on its way may still arrive.
    let mut last = (calls(&first), Instant::now());
    wait::until("it is asked no more", LIMIT, async || {
        let now = calls(&first);
        if now != last.0 {
            last = (now, Instant::now());
        }
        Ok((last.1.elapsed() > Duration::from_secs(6)).then_some(()))
    })
    .await
}

// Whoever names the administrator's control plane with another certificate would call it lost for everybody, and one
// series would stand twice in the text.
#[tokio::test]
async fn an_object_does_not_speak_for_the_administrators_control_plane() -> Result<()> {
    let (_server, endpoint) = beating(Script {
        dialect: Dialect::Ours,
        ..Script::default()
    })?;
    let hub = administrators(&endpoint).await;
    let registry = Registry::new("test", "0");
    hub.register(&registry);
    for name in ["one", "another"] {
        let tls = ControlPlaneTls {
            ca_bundle: Some(format!("not PEM, of {name}")),
            secret_name: None,
        };
        drop(hub.look(&subject(name), Some(asked(&endpoint, Some(tls)))));
    }
    let state = |named_by: &str, state: &str| {
        format!(
            "flowctl_operator_control_plane_state{{control_plane=\"{endpoint}\",named_by=\"{named_by}\",state=\"{state}\"}} 1\n"
        )
    };
    wait::until_explained("both are told apart", LIMIT, async || {
        hub.planes().iter().for_each(|plane| plane.pass_time());
        let text = registry
            .encode()
            .map_err(|error| Error::impossible(error.to_string()))?;
        let is = |wanted: String| text.matches(&wanted).count() == 1;
        Ok(
            if is(state("administrator", "good")) && is(state("object", "unreachable")) {
                Ok(())
            } else {
                Err(text)
            },
        )
    })
    .await
}

/// Registers [`ID`] and beats for it every second, over the wire, until it is dropped.
async fn component(endpoint: &str) -> Result<AbortOnDropHandle<()>> {
    let failed = |error: &dyn std::error::Error| Error::impossible(error.to_string());
    let connected = ControlPlaneServiceClient::connect(format!("http://{endpoint}")).await;
    let mut client = connected.map_err(|error| failed(&error))?;
    let info = ComponentInfo {
        id: ID.to_owned(),
        ..ComponentInfo::default()
    };
    let registration = RegisterRequest {
        component: Some(info),
        component_id: ID.to_owned(),
    };
    let registered = client.register_component(registration).await;
    registered.map_err(|error| failed(&error))?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            let beat = HeartbeatRequest {
                service_id: ID.to_owned(),
                metrics: [("processed".to_owned(), "7".to_owned())].into(),
                ..HeartbeatRequest::default()
            };
            let _ = client.heartbeat(beat).await;
        }
    })))
}

// The server that the chart installs must be understood, and not only the one that is played.
#[tokio::test]
async fn the_projects_own_control_plane_is_heard() -> Result<()> {
    let args = ServerArgs {
        port: 0,
        admin_port: 0,
        address: Ipv4Addr::LOCALHOST.into(),
        ..ServerArgs::default()
    };
    let bound = Server::new(args).bind().await;
    let bound = bound.map_err(|error| Error::impossible(error.to_string()))?;
    let endpoint = bound.address().to_string();
    let shutdown = flowctl_runtime::Shutdown::new();
    let server = tokio::spawn(bound.serve(shutdown.clone()));
    let beating = component(&endpoint).await?;

    let options = HeartbeatOptions {
        keys: Keys::new(vec!["proc*".to_owned()]),
        ..HeartbeatOptions::default()
    };
    let (hub, _queue) = hub(&options);
    let registry = Registry::new("test", "0");
    hub.register(&registry);
    fresh(&hub, &endpoint).await?;
    wait::until("what it measures comes with its beats", LIMIT, async || {
        let text = registry
            .encode()
            .map_err(|error| Error::impossible(error.to_string()))?;
        Ok(text.contains("component=\"one\",key=\"processed\"} 7.0").then_some(()))
    })
    .await?;
    drop(beating);
    wait::until("its silence is seen", LIMIT, async || {
        only(&hub).pass_time();
        Ok((sign(&hub, &endpoint) == Sign::Stale).then_some(()))
    })
    .await?;
    shutdown.request();
    unreachable(&hub, "").await?;
    server.abort();
    Ok(())
}

/// Registers the metrics of a hub that has something to tell of each of them.
pub(crate) fn measured(registry: &Registry) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let _entered = runtime.enter();
    let options = HeartbeatOptions {
        keys: Keys::new(vec!["processed".to_owned()]),
        ..HeartbeatOptions::default()
    };
    let (hub, _queue) = hub(&options);
    drop(hub.look(&subject("one"), Some(asked("localhost:1", None))));
    let plane = only(&hub);
    let service = Service {
        id: ID.to_owned(),
        component_id: String::new(),
        name: String::new(),
        address: None,
        pod_uid: None,
        registered_at: Some(Mark(1)),
        beat: Some(Mark(2)),
        reported: Reported::Healthy,
        expired: None,
        verified: None,
    };
    let started = Heard::Started {
        instance: None,
        persistent: false,
        identity: None,
    };
    plane.hear_all(vec![started, Heard::Service(service), Heard::Synced]);
    plane.measure(ID, [("processed".to_owned(), 1.0)].into());
    hub.0.means.calls.answered("ListComponents");
    hub.register(registry);
}
