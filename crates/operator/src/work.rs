//! Workers: take a key, make a pass, decide when to look again. Before they take one they keep what the apiserver asked
//! for (`Retry-After`) and the write budget, so that the queue keeps its order and shows what waits; a pass that fails as
//! a whole is backed off for its object alone. Those that are long in vain share a few workers (`lane`).

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio::time::{Instant, timeout};
use tracing::Instrument as _;

use crate::{
    backoff::{Backoff, jittered},
    lane::End,
    metrics::Metrics,
    queue::Queue,
    reconcile::{Context, Outcome, reconcile},
    subject::Subject,
    write::Error,
};

/// For a whole pass: more than its requests together may take when each is slow.
const PASS: Duration = Duration::from_secs(60);
/// How soon an object asks again whose lane was full.
const LANE: Duration = Duration::from_secs(1);

/// After a pass that may not write at present: a renewal that is late comes within a few seconds, or never.
const NOT_LEADER: Duration = Duration::from_secs(1);

/// What workers share.
pub(crate) struct Work {
    pub(crate) queue: Queue<Subject>,
    pub(crate) context: Context,
    pub(crate) backoff: Backoff<Subject>,
    pub(crate) metrics: Metrics,
    /// Middle of the jittered time after which every object is looked at although nothing changed.
    pub(crate) resync: Duration,
}

// === impl Work ===

impl Work {
    /// One worker: until the queue is closed.
    pub(crate) async fn run(self: Arc<Self>) {
        while let Some(work) = self.queue.next_unless(|| self.context.writer.wait()).await {
            let subject = work.key().clone();
            let Some(place) = self.backoff.lane.enter(&subject) else {
                drop(work);
                self.queue.wake_after(subject, jittered(LANE));
                continue;
            };
            self.metrics.waited(subject.kind.as_str(), work.waited());
            let wait = self.pass(&subject).await;
            drop((place, work));
            if let Some(wait) = wait {
                self.queue.wake_after(subject, wait);
            }
        }
    }

    /// One pass; gives when to look again.
    async fn pass(&self, subject: &Subject) -> Option<Duration> {
        let begun = Instant::now();
        let span = tracing::info_span!("reconcile", object = %subject);
        let pass = reconcile(&self.context, subject).instrument(span.clone());
        let end = timeout(PASS, AssertUnwindSafe(pass).catch_unwind()).await;
        let _entered = span.enter();
        let lane_end = match &end {
            Ok(Ok(Ok(Outcome::Settled(_) | Outcome::Gone | Outcome::Unlisted | Outcome::Unreadable))) => End::Good,
            // A status that is put off may tell of a failure.
            Ok(Ok(Ok(Outcome::Retrying(_) | Outcome::Deferred(_)) | Err(_)) | Err(_)) | Err(_) => End::Bad,
        };
        self.backoff.lane.ended(subject, lane_end, begun.elapsed());
        let (label, wait) = match end {
            Ok(Ok(Ok(outcome))) => {
                // A status that is put off is not one that was taken.
                if !matches!(outcome, Outcome::Deferred(_)) {
                    self.backoff.forget(subject);
                }
                (outcome.as_str(), outcome.look_again(jittered_resync(self.resync)))
            }
            Ok(Ok(Err(Error::Pushback(wait)))) => ("deferred", Some(spread(wait))),
            // The fence may open again, when a renewal was only late; else the process ends soon.
            Ok(Ok(Err(Error::NotLeader))) => ("not_leader", Some(jittered(NOT_LEADER))),
            Ok(Ok(Err(error))) => {
                tracing::warn!(%error, "cannot publish the status");
                ("failed", Some(self.backoff.failed(subject)))
            }
            Ok(Err(_)) => {
                tracing::error!("the pass panicked: please report this");
                ("panicked", Some(self.backoff.failed(subject)))
            }
            Err(_) => {
                tracing::warn!("the pass took more than {} s", PASS.as_secs());
                ("timed_out", Some(self.backoff.failed(subject)))
            }
        };
        self.metrics.pass(subject.kind.as_str(), label, begun.elapsed());
        wait
    }
}

/// At least `wait`, so that not everything comes back at the same instant.
fn spread(wait: Duration) -> Duration {
    jittered(wait) + wait / 4
}

/// Between half and one and a half of the resync's time.
fn jittered_resync(resync: Duration) -> Duration {
    resync.mul_f64(0.5 + fastrand::f64())
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Mutex};

    use flowctl_api::Pipeline;
    use flowctl_plan::Key;
    use flowctl_runtime::Metrics as Registry;
    use http::{Method, Request, Response};
    use kube::{Client, client::Body, core::error_boundary::DeserializeGuard};
    use serde_json::json;
    use tokio::time::sleep;
    use tokio_util::task::AbortOnDropHandle;
    use tower::service_fn;

    use super::*;
    use crate::{
        apply::tests::context_of,
        budget::Budget,
        client::Pushback,
        events::events,
        fence::Fence,
        line::Line,
        places::tests::{life, places_of},
        publish::Statuses,
        write::Writer,
    };

    // An apiserver stalls for some seconds and a renewal is late: what is looked at meanwhile may not be written. Without another
    // look a user's change would wait until the object changes again, or until the operator is restarted.
    #[tokio::test(start_paused = true)]
    async fn what_may_not_be_written_for_a_moment_is_looked_at_again() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let service = {
            let asked = Arc::clone(&asked);
            service_fn(move |request: Request<Body>| {
                asked.lock().expect("no panic").push(request.method().clone());
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound",
                    "message": "there is none"});
                let answer = Response::builder()
                    .status(404)
                    .body(Body::from(status.to_string().into_bytes()));
                async move { Ok::<_, Infallible>(answer.expect("an answer")) }
            })
        };
        let client = Client::new(service, "ns");
        let registry = Registry::new("test", "0");
        let metrics = Metrics::register(&registry);
        let (fence, budget) = (Fence::closed(), Arc::new(Budget::of_writes(None)));
        let line = Arc::new(Line::new(None, Arc::clone(&budget), metrics.clone()));
        let pushback = Pushback::default();
        let (events, _) = events(client.clone(), None, fence.clone(), pushback.clone(), &metrics);
        let writer = Writer::new(client.clone(), pushback, fence.clone(), metrics.clone(), budget);
        let places = Arc::new(places_of(&["ns"]));
        life(&places, "ns").listed(life(&places, "ns").wanted());
        places.judge();
        let context = Context {
            statuses: Statuses::new(writer.clone(), events, line),
            writer,
            places,
            ..context_of(client)
        };
        let pipeline = json!({
            "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline",
            "metadata": {"namespace": "ns", "name": "a", "uid": "u", "resourceVersion": "1", "generation": 1},
            "spec": {"source": {"type": "A"}, "consumers": [{"type": "B"}]},
        });
        let pipeline: Pipeline = serde_json::from_value(pipeline).expect("a Pipeline");
        context.caches.pipelines.observed(DeserializeGuard(Ok(pipeline)));
        let queue = context.caches.queue.clone();
        let work = Arc::new(Work {
            queue: queue.clone(),
            context,
            backoff: Backoff::new(),
            metrics,
            resync: Duration::from_secs(600),
        });
        let _worker = AbortOnDropHandle::new(tokio::spawn(work.run()));
        let asked = |method: &Method| {
            asked
                .lock()
                .expect("no panic")
                .iter()
                .filter(|one| *one == method)
                .count()
        };

        queue.wake(Subject::pipeline(Key::new("ns", "a")));
        sleep(Duration::from_secs(10)).await;
        assert_eq!(asked(&Method::POST) + asked(&Method::PATCH), 0, "the fence is closed");
        let text = registry.encode().expect("text");
        let mut lines = text.lines();
        let looks = lines.find_map(|line| line.split_once("outcome=\"not_leader\"} "));
        let looks: usize = looks.map_or(0, |(_, number)| number.parse().expect("a number"));
        assert!((7..=15).contains(&looks), "{looks} looks: about one in a second");
        fence.open_for(Duration::from_secs(10));
        sleep(Duration::from_secs(2)).await;
        assert!(asked(&Method::POST) + asked(&Method::PATCH) > 0);
    }

    // A look that is promised earlier must not wait for the resync, and one that never comes would hide drift.
    #[test]
    fn everything_but_the_gone_is_looked_at_again() {
        let (resync, soon) = (Duration::from_secs(600), Duration::from_secs(3));
        assert_eq!(Outcome::Gone.look_again(resync), None);
        assert_eq!(Outcome::Unlisted.look_again(resync), None);
        assert_eq!(Outcome::Settled(None).look_again(resync), Some(resync));
        assert_eq!(Outcome::Settled(Some(soon)).look_again(resync), Some(soon));
        assert_eq!(Outcome::Retrying(Some(resync * 2)).look_again(resync), Some(resync));
        assert_eq!(Outcome::Deferred(soon).look_again(resync), Some(soon));
        assert_eq!(Outcome::Unreadable.look_again(resync), Some(resync));
        for _ in 0..1000 {
            let jittered = jittered_resync(resync);
            assert!(jittered >= resync / 2 && jittered <= resync * 3 / 2);
        }
    }
}
