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
            Ok(Ok(Err(Error::NotLeader))) => ("not_leader", None),
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
    use super::*;

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
