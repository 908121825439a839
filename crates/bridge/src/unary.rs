//! One call for each message: attempts, waits between them, and the bounds of both. A message is
//! held, without counting an attempt, for as long as no peer is healthy or can be reached.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use flowctl_proto::MAX_MESSAGE_BYTES;

use crate::caller::Shared;
use crate::dialect::{Dialect, Outcome, Request, Verdict};
use crate::failure::{self, Failure, Remedy};
use crate::peer::{Lease, MOST_UNDER_WAY};
use crate::settings::Role;

/// Longest wait between tries to reach a peer whose gate is still open. Once the gate has closed,
/// its opening ends the wait.
pub(crate) const HOLD_PACE: Duration = Duration::from_secs(1);

/// What one attempt came to.
enum Attempt {
    Done(Outcome),
    Over(Failure),
    Redeliver(String),
    Failed(Status),
}

/// Delivers one message and gives its outcome, or why there is none.
pub(crate) async fn deliver<D: Dialect>(shared: Arc<Shared>, request: Request) -> Result<Outcome, Failure> {
    let mut delivery = Delivery {
        shared,
        request,
        failures: 0,
        redeliveries: 0,
        unreached: 0,
        until: None,
        last: "the peer was not healthy".to_owned(),
    };
    delivery.run::<D>().await
}

struct Delivery {
    shared: Arc<Shared>,
    request: Request,
    failures: u32,
    redeliveries: u32,
    unreached: u32,
    until: Option<Instant>,
    last: String,
}

// === impl Delivery ===

impl Delivery {
    async fn run<D: Dialect>(&mut self) -> Result<Outcome, Failure> {
        check_size(D::encode(&self.request).encoded_len())?;
        loop {
            let lease = self.bounded(self.shared.pool.lease()).await?;
            if let Some(total) = self.shared.settings.total_timeout {
                // Waiting for a turn is not an attempt.
                self.until.get_or_insert_with(|| Instant::now() + total);
            }
            let attempt = self.attempt::<D>(&lease);
            let wait = match self.bounded(attempt).await? {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::Over(failure) => return Err(failure),
                Attempt::Redeliver(message) => {
                    self.redeliveries += 1;
                    self.last = format!("the peer asked for redelivery: {message}");
                    self.shared.metrics.redelivery();
                    self.shared.settings.backoff.wait(self.redeliveries)
                }
                Attempt::Failed(status) => self.after_failure(&status, &lease)?,
            };
            drop(lease);
            self.bounded(tokio::time::sleep(wait)).await?;
        }
    }

    /// Runs something within `total_timeout`.
    async fn bounded<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let (Some(until), Some(limit)) = (self.until, self.shared.settings.total_timeout) else {
            return Ok(work.await);
        };
        timeout_at(until, work).await.map_err(|_| Failure::TotalTimeout {
            limit,
            last: self.last.clone(),
        })
    }

    async fn attempt<D: Dialect>(&self, lease: &Lease) -> Attempt {
        let begun = Instant::now();
        let answer = self.call::<D>(lease, begun).await;
        let code = answer.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok);
        self.shared
            .metrics
            .attempt(failure::code_name(code), begun.elapsed().as_secs_f64());
        let reading = match answer {
            Ok(reply) => D::read(reply),
            Err(status) => return Attempt::Failed(status),
        };
        lease.answered();
        // The call itself says which message this answers; an empty id is only sloppy.
        if !reading.trace_id.is_empty() && reading.trace_id != self.request.trace_id {
            self.shared.metrics.spurious();
            return Attempt::Over(Failure::Violation(format!(
                "it answered with the trace id {:?} of another message",
                reading.trace_id
            )));
        }
        match reading.verdict {
            Verdict::Done(outcome) => Attempt::Done(outcome),
            Verdict::Refused(message) => Attempt::Over(Failure::Refused { message }),
            Verdict::Violation(what) => Attempt::Over(Failure::Violation(what)),
            Verdict::Redeliver(message) => Attempt::Redeliver(message),
        }
    }

    /// Makes one call. Its time starts anew whenever the peer answers another message, because a
    /// peer that answers one after the other is slow, not dead; it ends when each of the calls that
    /// may be under way had its time.
    async fn call<D: Dialect>(&self, lease: &Lease, begun: Instant) -> Result<D::Reply, Status> {
        let timeout = self.shared.settings.timeout;
        let longest = match self.shared.identity.role {
            Role::Processor => timeout.saturating_mul(MOST_UNDER_WAY),
            Role::Consumer => timeout,
        };
        let mut call = pin!(D::unary(lease.channel(), D::encode(&self.request), longest));
        let mut until = begun + timeout;
        loop {
            if let Ok(answer) = timeout_at(until, &mut call).await {
                return answer;
            }
            let anew = lease.last_answer().map_or(until, |at| at + timeout);
            if anew <= until || begun + longest <= until {
                return Err(no_answer(begun.elapsed()));
            }
            until = anew.min(begun + longest);
        }
    }

    /// How long to wait before the next attempt, or that there is none.
    fn after_failure(&mut self, status: &Status, lease: &Lease) -> Result<Duration, Failure> {
        let remedy = failure::remedy(status);
        let message = failure::describe(status);
        let code = failure::code_name(status.code());
        self.last = described(status, lease);
        if status.code() == tonic::Code::Unavailable || failure::is_from_transport(status) {
            self.shared.pool.suspect(lease);
        }
        let backoff = self.shared.settings.backoff;
        match remedy {
            Remedy::Hold => {
                self.unreached += 1;
                Ok(backoff.wait(self.unreached).min(HOLD_PACE))
            }
            Remedy::GiveUp => Err(Failure::Permanent { code, message }),
            // While the gate is closed the peer is known to be ill: that is not the message's fault.
            Remedy::Retry(asked) if !self.shared.pool.is_open() => Ok(asked.unwrap_or_else(|| backoff.wait(1))),
            Remedy::Retry(asked) => {
                self.failures += 1;
                if self.failures > self.shared.settings.max_retries {
                    return Err(Failure::Exhausted {
                        attempts: self.failures,
                        code,
                        message,
                    });
                }
                Ok(asked.unwrap_or_else(|| backoff.wait(self.failures)))
            }
        }
    }
}

/// A failed attempt, for messages.
fn described(status: &Status, lease: &Lease) -> String {
    let code = failure::code_name(status.code());
    format!("{code}: {} ({})", failure::describe(status), lease.address())
}

/// The peer said nothing for so long.
pub(crate) fn no_answer(waited: Duration) -> Status {
    Status::deadline_exceeded(format!("no answer within {waited:.1?}"))
}

/// Refuses what no peer would accept, before it is sent.
pub(crate) fn check_size(bytes: usize) -> Result<(), Failure> {
    if bytes <= MAX_MESSAGE_BYTES {
        return Ok(());
    }
    Err(Failure::TooLarge {
        bytes,
        limit: MAX_MESSAGE_BYTES,
    })
}
