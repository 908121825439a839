//! Replicas before an apiserver with one lease, in simulated time.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use flowctl_runtime::Metrics as Registry;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;
use tower::service_fn;

use super::*;

/// The lease and its version, as an apiserver keeps them.
#[derive(Clone, Default)]
struct Apiserver {
    lease: Arc<Mutex<Option<Value>>>,
    version: Arc<Mutex<u64>>,
    /// How long the answers to the next writes take after they were carried out.
    delays: Arc<Mutex<VecDeque<Duration>>>,
}

struct Replica {
    fence: Fence,
    fit: watch::Sender<bool>,
    stop: CancellationToken,
    task: AbortOnDropHandle<Result<(), Lost>>,
}

// === impl Apiserver ===

impl Apiserver {
    fn client(&self) -> Client {
        let apiserver = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let apiserver = apiserver.clone();
            async move {
                let method = request.method().clone();
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let (code, answer) = apiserver.answer(&method, serde_json::from_slice(&body).unwrap_or_default());
                if method != Method::GET {
                    let delay = apiserver.delays.lock().expect("no panic").pop_front();
                    sleep(delay.unwrap_or_default()).await;
                }
                let answer = Response::builder()
                    .status(code)
                    .body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, Infallible>(answer.expect("an answer"))
            }
        });
        Client::new(service, "ns")
    }

    fn answer(&self, method: &Method, mut sent: Value) -> (StatusCode, Value) {
        let mut lease = self.lease.lock().expect("no panic");
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
        let code = match (method, &*lease) {
            (&Method::GET, Some(lease)) => return (StatusCode::OK, lease.clone()),
            (&Method::GET | &Method::PUT, None) => StatusCode::NOT_FOUND,
            (&Method::POST, Some(_)) => StatusCode::CONFLICT,
            (&Method::PUT, Some(lease)) if version(lease) != version(&sent) => StatusCode::CONFLICT,
            _ => {
                let mut version = self.version.lock().expect("no panic");
                *version += 1;
                sent["metadata"]["resourceVersion"] = json!(version.to_string());
                *lease = Some(sent.clone());
                return (StatusCode::OK, sent);
            }
        };
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "message": "",
            "reason": code.canonical_reason().unwrap_or_default().replace(' ', "")});
        (code, status)
    }

    fn holder(&self) -> Option<String> {
        let lease = self.lease.lock().expect("no panic");
        lease.as_ref()?["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    fn delete(&self) {
        *self.lease.lock().expect("no panic") = None;
    }

    fn replica(&self, identity: &str) -> Replica {
        self.replica_that(identity, true)
    }

    /// A replica that could work, or could not.
    fn replica_that(&self, identity: &str, is_fit: bool) -> Replica {
        let election = Election {
            namespace: "ns".to_owned(),
            name: "lease".to_owned(),
            identity: identity.to_owned(),
        };
        let (fence, stop) = (Fence::closed(), CancellationToken::new());
        let (fit, is_fit) = watch::channel(is_fit);
        let metrics = Metrics::register(&Registry::new("test", "0"));
        let leading = watch::channel(false).0;
        let leader = Leader::new(self.client(), election, fence.clone(), metrics, is_fit, leading);
        let task = AbortOnDropHandle::new(tokio::spawn(leader.run(stop.clone())));
        Replica { fence, fit, stop, task }
    }
}

/// Watches two replicas for a while; gives for how long neither led.
async fn watched(one: &Fence, other: &Fence, seconds: u64) -> Duration {
    let (begun, step) = (Instant::now(), Duration::from_millis(10));
    let mut nobody = Duration::ZERO;
    while begun.elapsed() < Duration::from_secs(seconds) {
        assert!(
            !(one.is_open() && other.is_open()),
            "two lead after {:?}",
            begun.elapsed()
        );
        if !one.is_open() && !other.is_open() {
            nobody += step;
        }
        sleep(step).await;
    }
    nobody
}

// Somebody cleans up and deletes the lease: two replicas that write would undo each other's work.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_deleted_makes_no_second_leader() {
    for when in [0, 1200, 2500, 4900] {
        let apiserver = Apiserver::default();
        let one = apiserver.replica("one");
        sleep(Duration::from_millis(100)).await;
        assert!(one.fence.is_open(), "the first one leads at once");
        let other = apiserver.replica("other");
        sleep(Duration::from_secs(7) + Duration::from_millis(when)).await;
        apiserver.delete();
        assert_eq!(watched(&one.fence, &other.fence, 60).await, Duration::ZERO);
        assert_eq!(apiserver.holder().as_deref(), Some("one"), "it made its lease again");

        // And when the leader is gone as well: its last request may still be on its way.
        one.task.abort();
        apiserver.delete();
        let nobody = watched(&one.fence, &other.fence, 25).await;
        assert!(other.fence.is_open() && nobody < Duration::from_secs(12), "{nobody:?}");
    }
}

// Each roll-out of the operator ends a leader, and one in some of them while it renews: nobody would lead for 15 s.
#[tokio::test(start_paused = true)]
async fn a_renewal_on_its_way_does_not_keep_the_lease_from_being_given_back() {
    for on_its_way in [1, 2] {
        let apiserver = Apiserver::default();
        if on_its_way == 1 {
            // Already the first one, so that this replica never knew that it led.
            apiserver
                .delays
                .lock()
                .expect("no panic")
                .push_back(Duration::from_secs(2));
        }
        let one = apiserver.replica("one");
        if on_its_way == 2 {
            sleep(Duration::from_secs(4)).await;
            apiserver
                .delays
                .lock()
                .expect("no panic")
                .push_back(Duration::from_secs(2));
            sleep(Duration::from_secs(1)).await;
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(apiserver.delays.lock().expect("no panic").len(), 0, "it is on its way");
        one.stop.cancel();
        one.task.await.expect("no panic").expect("an orderly end");
        assert_eq!(apiserver.holder(), None, "renewal {on_its_way}");
        assert!(!one.fence.is_open());
    }
}

// The lease is somebody else's by now: it must not be given back for them.
#[tokio::test(start_paused = true)]
async fn what_is_not_ours_is_not_given_back() {
    let apiserver = Apiserver::default();
    let one = apiserver.replica("one");
    sleep(Duration::from_secs(1)).await;
    {
        let mut lease = apiserver.lease.lock().expect("no panic");
        let lease = lease.as_mut().expect("made");
        lease["spec"]["holderIdentity"] = json!("other");
        lease["metadata"]["resourceVersion"] = json!("99");
    }
    one.stop.cancel();
    one.task.await.expect("no panic").expect("an orderly end");
    assert_eq!(apiserver.holder().as_deref(), Some("other"));
}

// A replica that may not list pods, or has not listed them yet, would hold the lease and do nothing, for ever, beside one that
// could work. It must not lose time either: who becomes able to work leads at once, and knows how long the lease stood.
#[tokio::test(start_paused = true)]
async fn who_cannot_work_does_not_lead_until_it_can() {
    let apiserver = Apiserver::default();
    let one = apiserver.replica_that("one", false);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(apiserver.holder(), None, "nobody can work");
    let other = apiserver.replica("other");
    sleep(Duration::from_secs(20)).await;
    assert!(other.fence.is_open() && !one.fence.is_open());

    // A leader whose caches are lost for a while goes on renewing: it ends when it was too long, and not here.
    other.fit.send_replace(false);
    sleep(Duration::from_secs(60)).await;
    assert!(other.fence.is_open());

    other.task.abort();
    sleep(DURATION + Duration::from_secs(5)).await;
    assert_eq!(apiserver.holder().as_deref(), Some("other"), "nobody can work");
    one.fit.send_replace(true);
    sleep(Duration::from_millis(10)).await;
    assert!(one.fence.is_open(), "the lease stood still for long enough");
}
