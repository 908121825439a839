//! Attempts to tell a receiver one thing, until it takes it or there is no more sense in trying.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::instances::Verdict;
use super::webhook::{Caller, Failure, Secret, Webhook};

/// When to try again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    /// The pause after the first attempt, at most; each one after it is twice as long.
    pub(crate) first: Duration,
    /// No pause is longer.
    pub(crate) longest: Duration,
    pub(crate) attempts: u32,
}

/// One thing to tell.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) alert_id: String,
    pub(crate) service_id: String,
    pub(crate) verdict: Verdict,
    /// The same for every attempt.
    pub(crate) delivery_id: String,
    pub(crate) body: Bytes,
    pub(crate) webhook: Webhook,
    pub(crate) secret: Option<Secret>,
}

/// What became of an attempt.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) alert_id: String,
    pub(crate) service_id: String,
    pub(crate) verdict: Verdict,
    pub(crate) result: Attempted,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Attempted {
    Delivered(SystemTime),
    /// Another one follows.
    Failed(Failure),
    /// There will be none.
    GivenUp(Failure),
}

// === impl Retry ===

impl Default for Retry {
    /// About five minutes: longer than a receiver takes to restart, shorter than the news keeps.
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
            attempts: 10,
        }
    }
}

impl Retry {
    /// With jitter from one half up: receivers that come back are not called by everybody at once.
    fn pause(&self, failed: u32) -> Duration {
        let doubled = self
            .first
            .saturating_mul(2_u32.saturating_pow(failed.saturating_sub(1)));
        doubled.min(self.longest).mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

// === impl Delivery ===

impl Delivery {
    /// Tries until it is taken or given up. Every attempt is reported.
    pub(crate) async fn run(self, caller: Caller, retry: Retry, reports: mpsc::Sender<Attempt>) {
        let mut failed = 0;
        loop {
            let called = caller
                .call(
                    &self.webhook,
                    self.secret.as_ref(),
                    &self.delivery_id,
                    self.body.clone(),
                )
                .await;
            let result = match called {
                Ok(()) => Attempted::Delivered(SystemTime::now()),
                Err(failure) => {
                    failed += 1;
                    match failed < retry.attempts {
                        true => Attempted::Failed(failure),
                        false => Attempted::GivenUp(failure),
                    }
                }
            };
            let is_over = !matches!(result, Attempted::Failed(_));
            let attempt = Attempt {
                alert_id: self.alert_id.clone(),
                service_id: self.service_id.clone(),
                verdict: self.verdict,
                result,
            };
            // Nobody listens any more: the server stops.
            if reports.send(attempt).await.is_err() || is_over {
                return;
            }
            sleep(retry.pause(failed)).await;
        }
    }
}
