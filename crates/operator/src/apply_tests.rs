//! Applying against an apiserver that answers as a mutating webhook makes it.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use flowctl_plan::{ChildKind, Settings, observed::PodSecurity};
use flowctl_runtime::Metrics as Registry;
use http::{Request, Response};
use k8s_openapi::api::core::v1::Service;
use kube::{Client, client::Body};
use tower::service_fn;

use super::*;
use crate::{
    budget::Budget,
    caches::Caches,
    client::Pushback,
    events::events,
    fence::Fence,
    fights::Fights,
    heartbeats::{HeartbeatOptions, Hub},
    line::Line,
    metrics::Metrics,
    places::Places,
    publish::Statuses,
    queue::Queue,
    refusals::Refusals,
    subject::SubjectKind,
    unmoved::Unmoved,
    write::Writer,
};

/// A context whose every request is counted and answered with what `live` holds.
fn context(live: &Arc<Mutex<Value>>, asked: &Arc<Mutex<usize>>) -> Context {
    let (live, asked) = (Arc::clone(live), Arc::clone(asked));
    let service = service_fn(move |_: Request<Body>| {
        *asked.lock().expect("no panic") += 1;
        let answer = live.lock().expect("no panic").to_string();
        async move { Ok::<_, Infallible>(Response::new(Body::from(answer.into_bytes()))) }
    });
    context_of(Client::new(service, "ns"))
}

/// A context whose requests this client sends.
pub(crate) fn context_of(client: Client) -> Context {
    let metrics = Metrics::register(&Registry::new("test", "0"));
    let budget = Arc::new(Budget::of_writes(None));
    let line = Arc::new(Line::new(None, Arc::clone(&budget), metrics.clone()));
    let writer = Writer::new(
        client.clone(),
        Pushback::default(),
        Fence::always(),
        metrics.clone(),
        budget,
    );
    let (events, _) = events(client, None, Fence::always(), Pushback::default(), &metrics);
    let settings = Arc::new(Settings {
        runner_image: String::new(),
        image_pull_policy: None,
        control_plane: None,
        allowed_control_planes: Vec::new(),
        pod_security: PodSecurity::Restricted,
        cluster_domain: "cluster.local".to_owned(),
        watched_namespaces: Vec::new(),
    });
    Context {
        caches: Arc::new(Caches::new(Queue::new())),
        statuses: Statuses::new(writer.clone(), events, line),
        writer,
        places: Arc::new(Places::default()),
        fights: Fights::default(),
        unmoved: Unmoved::default(),
        refusals: Refusals::default(),
        heartbeats: Hub::new(&HeartbeatOptions::default(), &settings, Queue::new()),
        settings,
    }
}

/// The Pipeline `x` of the tests.
fn master() -> Master {
    Master {
        kind: SubjectKind::Pipeline,
        namespace: "ns".to_owned(),
        name: "x".to_owned(),
        uid: "m".to_owned(),
    }
}

/// The child `x` of this kind, with nothing in it.
fn child(kind: ChildKind) -> Child {
    let body = json!({"apiVersion": kind.api_version(), "kind": kind.as_str(),
        "metadata": {"name": "x", "namespace": "ns"}});
    let name = "x".to_owned();
    Child {
        id: ChildRef { kind, name },
        body,
    }
}

// A webhook that sets a field back would otherwise cost a write in every pass of every object, for ever.
#[tokio::test]
async fn what_is_kept_otherwise_is_not_sent_again_until_it_moves() {
    let body = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "namespace": "ns"},
        "spec": {"externalName": "wanted"}});
    let id = ChildRef {
        kind: ChildKind::Service,
        name: "x".to_owned(),
    };
    let wanted = Child { id, body }.sealed();
    let mut kept = wanted.body.clone();
    kept["spec"]["externalName"] = json!("kept");
    kept["metadata"]["uid"] = json!("u");
    kept["metadata"]["resourceVersion"] = json!("7");
    let (live, asked) = (Arc::new(Mutex::new(kept)), Arc::new(Mutex::new(0)));
    let context = context(&live, &asked);
    let master = master();
    let pass = async || {
        let service: Service = serde_json::from_value(live.lock().expect("no panic").clone()).expect("a Service");
        let mut application = Application {
            context: &context,
            master: &master,
            children: Children::default(),
            failures: Vec::new(),
            master_is: Known::There,
            is_unforeseen: false,
        };
        assert!(application.correct(&wanted, &service).await.is_ok());
        *asked.lock().expect("no panic")
    };
    assert_eq!([pass().await, pass().await, pass().await], [1, 1, 1]);
    live.lock().expect("no panic")["metadata"]["resourceVersion"] = json!("8");
    assert_eq!([pass().await, pass().await], [2, 2]);
}

// A workload without the file that it mounts cannot start, and one that is updated without it stops what runs.
#[tokio::test]
async fn a_workload_is_not_written_without_what_it_needs() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let client = Client::new(
        service_fn(move |request: Request<Body>| {
            let asked = format!("{} {}", request.method(), request.uri().path());
            // Nothing is there, and the file is refused.
            let code = if request.method() == http::Method::GET {
                404
            } else {
                403
            };
            seen.lock().expect("no panic").push(asked);
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no"});
            let answer = Response::builder()
                .status(code)
                .body(Body::from(status.to_string().into_bytes()));
            async move { Ok::<_, Infallible>(answer.expect("an answer")) }
        }),
        "ns",
    );
    let context = context_of(client);
    let master = master();
    let plan = Plan {
        present: vec![child(ChildKind::ConfigMap), child(ChildKind::Deployment)],
        ..Plan::default()
    };
    let applied = apply(&context, &master, Age::New, Children::default(), &plan).await;
    let applied = told(applied);
    assert_eq!(applied.failures.len(), 1, "{:?}", applied.failures);
    let asked = asked.lock().expect("no panic").clone();
    assert!(asked.iter().any(|asked| asked.starts_with("POST")), "{asked:?}");
    assert!(!asked.iter().any(|asked| asked.contains("deployments")), "{asked:?}");
}

// Behind a webhook that hangs each write of an object would hold a worker, one after the other, and again with each event.
#[tokio::test(start_paused = true)]
async fn after_a_write_that_took_long_the_pass_ends_and_it_is_not_sent_again_at_once() {
    // The apiserver gives the webhook up, or we give the apiserver up.
    for patience in [Duration::from_secs(10), Duration::from_secs(3600)] {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let client = Client::new(
            service_fn(move |request: Request<Body>| {
                let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                let hangs = method != http::Method::GET && path.contains("/services/");
                let (code, answer) = match (method == http::Method::GET, hangs) {
                    (true, _) => (404, failure(404, "NotFound")),
                    (false, true) => (500, failure(500, "InternalError")),
                    (false, false) => (
                        200,
                        json!({"metadata": {"name": "x", "namespace": "ns", "uid": "u", "resourceVersion": "7"}}),
                    ),
                };
                if method != http::Method::GET {
                    seen.lock().expect("no panic").push(path);
                }
                async move {
                    tokio::time::sleep(if hangs { patience } else { Duration::ZERO }).await;
                    let answer = Response::builder()
                        .status(code)
                        .body(Body::from(answer.to_string().into_bytes()));
                    Ok::<_, Infallible>(answer.expect("an answer"))
                }
            }),
            "ns",
        );
        let context = context_of(client);
        let master = master();
        let plan = Plan {
            present: vec![child(ChildKind::Service), child(ChildKind::Deployment)],
            ..Plan::default()
        };
        let pass = async || {
            let applied = apply(&context, &master, Age::New, Children::default(), &plan).await;
            context.refusals.stand_for(&master.uid, Some(Duration::from_secs(30)));
            let failures = told(applied).failures;
            assert_eq!(failures.len(), 1, "{failures:?}");
            std::mem::take(&mut *asked.lock().expect("no panic"))
        };
        assert_eq!(pass().await, ["/api/v1/namespaces/ns/services/x"]);
        assert_eq!(
            pass().await,
            ["/apis/apps/v1/namespaces/ns/deployments/x"],
            "an event: nothing is waited for again, and the others have their turn"
        );
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(pass().await, ["/api/v1/namespaces/ns/services/x"]);
    }
}

// Somebody makes a child between our look and our write: what was "already there" is looked at in the next pass, and is
// ours, or has a name for its owner. As a refusal that stands it would hold up the object for half a minute.
#[tokio::test]
async fn what_already_exists_is_looked_at_in_the_next_pass() {
    let child = child(ChildKind::ConfigMap);
    let mut made = child.clone().sealed().body;
    made["metadata"]["uid"] = json!("u");
    made["metadata"]["resourceVersion"] = json!("7");
    made["metadata"]["ownerReferences"] = json!([{"apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline",
        "name": "x", "uid": "m", "controller": true}]);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let client = Client::new(
        service_fn(move |request: Request<Body>| {
            let mut seen = seen.lock().expect("no panic");
            seen.push(request.method().clone());
            let (code, answer) = match (request.method(), seen.len()) {
                (&http::Method::GET, 1) => (404, failure(404, "NotFound")),
                (&http::Method::POST, 2) => (409, failure(409, "AlreadyExists")),
                (&http::Method::GET, 3) => (200, made.clone()),
                _ => (500, failure(500, "NotAsked")),
            };
            let answer = Response::builder()
                .status(code)
                .body(Body::from(answer.to_string().into_bytes()));
            async move { Ok::<_, Infallible>(answer.expect("an answer")) }
        }),
        "ns",
    );
    let context = context_of(client);
    let master = master();
    let plan = Plan {
        present: vec![child],
        ..Plan::default()
    };
    let pass = async || {
        let applied = apply(&context, &master, Age::New, Children::default(), &plan).await;
        // As the end of a pass does.
        context.refusals.stand_for(&master.uid, Some(Duration::from_secs(30)));
        told(applied).failures
    };
    assert!(matches!(
        &pass().await[..],
        [Failure {
            kind: FailureKind::Retry { .. },
            ..
        }]
    ));
    assert_eq!(pass().await, []);
    let asked = asked.lock().expect("no panic").clone();
    assert_eq!(asked, [http::Method::GET, http::Method::POST, http::Method::GET]);
}

// The file of a revision that nobody may change, without the label that our watches select by: a plan that does not know of it
// would write it for ever, and be refused. Its ControllerRevision is looked at, too, before anything of it is thrown away.
#[tokio::test]
async fn what_has_other_content_and_no_label_of_ours_is_told_to_the_plan() {
    let mut wanted = child(ChildKind::ConfigMap);
    wanted.body["data"] = json!({"a": "ours"});
    // As either kind.
    let mut theirs = json!({"immutable": true, "data": {"a": "theirs"}, "revision": 1,
        "metadata": {"name": "x", "namespace": "ns", "uid": "u", "resourceVersion": "7", "ownerReferences": [{
            "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline", "name": "x", "uid": "m", "controller": true}]}});
    let plan = Plan {
        present: vec![
            wanted,
            child(ChildKind::ControllerRevision),
            child(ChildKind::Deployment),
        ],
        ..Plan::default()
    };
    let (live, asked) = (Arc::new(Mutex::new(theirs.clone())), Arc::new(Mutex::new(0)));
    let context = context(&live, &asked);
    match apply(&context, &master(), Age::New, Children::default(), &plan).await {
        Done::Unforeseen(children) => {
            assert_eq!((children.config_maps.len(), children.revisions.len()), (1, 1));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        *asked.lock().expect("no panic"),
        2,
        "both are read, and nothing is written"
    );
    // Nothing is planned while the other one cannot be read: here it is none of its kind.
    theirs["kind"] = json!("ConfigMap");
    theirs["apiVersion"] = json!("v1");
    *live.lock().expect("no panic") = theirs.clone();
    let applied = apply(&context, &master(), Age::New, Children::default(), &plan).await;
    let failures = told(applied).failures;
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(failures[0].child.kind, ChildKind::ControllerRevision);
    // One that goes is waited for.
    theirs["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    *live.lock().expect("no panic") = theirs;
    let applied = apply(&context, &master(), Age::New, Children::default(), &plan).await;
    let failures = told(applied).failures;
    assert!(
        matches!(&failures[..], [Failure { kind: FailureKind::Retry { message }, .. }] if message.contains("deleted")),
        "{failures:?}"
    );
    // Nothing would ever tell that they are gone.
    let cached = &context.caches;
    assert_eq!((cached.config_maps.count(), cached.revisions.count()), ((0, 0), (0, 0)));
}

/// What was done for an object that is there.
fn told(done: Done) -> Applied {
    match done {
        Done::Applied(applied) => applied,
        Done::Gone | Done::Unforeseen(_) => panic!("{done:?}"),
    }
}

fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason})
}
