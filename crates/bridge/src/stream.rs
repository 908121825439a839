//! One bidirectional stream that carries many messages. The engine owns the messages without a
//! result; a stream is only a place where they are sent, so when one breaks, stalls or grows old,
//! the next one gets everything that has no answer yet, in order. A failed attempt is charged to
//! the oldest unanswered message: peers work in order, so that is the one they stopped at.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::caller::{Shared, Submission};
use crate::dialect::{Dialect, Outcome, Reading, Verdict};
use crate::failure::{self, Failure, Remedy};
use crate::peer::Lease;
use crate::pending::{Pending, Place};
use crate::unary::{HOLD_PACE, check_size, no_answer};

/// How long a peer may take to end a stream on which everything is answered.
const POLITE_END: Duration = Duration::from_secs(1);

type Reply = oneshot::Sender<Result<Outcome, Failure>>;
type Inbox = mpsc::UnboundedReceiver<Submission>;

/// Why a stream came to its end.
enum End {
    /// No more messages will come and none is left.
    Finished,
    /// It was old; another one follows.
    Retired,
    /// The peer ended it in good order.
    ByPeer,
    /// The oldest message was not answered in time.
    Stalled,
    /// It broke.
    Broken(Status),
}

struct Engine {
    shared: Arc<Shared>,
    pending: Pending<Reply>,
    inbox_open: bool,
    /// Streams in a row that ended badly without an answer.
    streak: u32,
    opened_before: bool,
}

/// Carries messages until the inbox is closed and everything has a result.
pub(crate) async fn run<D: Dialect>(shared: Arc<Shared>, mut inbox: Inbox) {
    let mut engine = Engine {
        shared,
        pending: Pending::new(),
        inbox_open: true,
        streak: 0,
        opened_before: false,
    };
    loop {
        if engine.pending.is_empty() {
            // No stream is held open for nothing at start or after a peer ended it.
            match inbox.recv().await {
                Some(submission) => engine.accept::<D>(submission),
                None => return,
            }
            continue;
        }
        let Some(lease) = engine.hold().await else {
            continue;
        };
        if std::mem::replace(&mut engine.opened_before, true) {
            engine.shared.metrics.reopened();
        }
        let end = engine.carry::<D>(&lease, &mut inbox).await;
        let Some(wait) = engine.after(end, &lease) else {
            return;
        };
        drop(lease);
        engine.pending.rewind();
        let resume = Instant::now() + wait;
        sleep_until(engine.gives_up_at().map_or(resume, |at| at.min(resume))).await;
    }
}

// === impl Engine ===

impl Engine {
    fn accept<D: Dialect>(&mut self, submission: Submission) {
        let Submission { request, reply } = submission;
        if let Err(failure) = check_size(D::encode(&request).encoded_len()) {
            answer(reply, Err(failure));
            return;
        }
        if self.pending.knows(&request.trace_id) {
            let what = format!("two messages under way have the id {}", request.trace_id);
            answer(reply, Err(Failure::Violation(what)));
            return;
        }
        self.pending.enter(request, reply);
    }

    /// Waits for a healthy peer. `None` when a message gave up meanwhile.
    async fn hold(&mut self) -> Option<Lease> {
        let shared = Arc::clone(&self.shared);
        let Some(at) = self.gives_up_at() else {
            return Some(shared.pool.lease().await);
        };
        tokio::select! {
            biased;
            lease = shared.pool.lease() => Some(lease),
            () = sleep_until(at) => {
                self.give_up(Instant::now());
                None
            }
        }
    }

    /// Opens a stream and carries messages on it until it ends.
    async fn carry<D: Dialect>(&mut self, lease: &Lease, inbox: &mut Inbox) -> End {
        let (outbound, messages) = mpsc::channel(1);
        // Some peers answer the opening only after the first message, so both go on at once.
        let mut opening = pin!(D::stream(lease.channel(), ReceiverStream::new(messages)));
        let mut answers: Option<Streaming<D::Reply>> = None;
        let mut outbound_open = true;
        let mut progress = Instant::now();
        let retire_at = Instant::now() + varied(self.shared.settings.stream_max_age);
        loop {
            let now = Instant::now();
            let retiring = now >= retire_at;
            if !self.inbox_open && self.pending.is_empty() {
                drop(outbound);
                self.end_politely::<D>(answers).await;
                return End::Finished;
            }
            if retiring && self.pending.unanswered() == 0 {
                drop(outbound);
                self.end_politely::<D>(answers).await;
                return End::Retired;
            }
            let next = self.pending.next_unsent().filter(|_| !retiring);
            let ready = next.filter(|(_, not_before)| not_before.is_none_or(|at| at <= now));
            let later = next.and_then(|(_, not_before)| not_before.filter(|at| *at > now));
            let stalls_at = self.stalls_at(progress);
            let retires = (!retiring).then_some(retire_at);
            let wakes = [stalls_at, later, self.gives_up_at(), retires];
            let wake = wakes.into_iter().flatten().min();
            tokio::select! {
                submission = inbox.recv(), if self.inbox_open => match submission {
                    Some(submission) => self.accept::<D>(submission),
                    None => self.inbox_open = false,
                },
                room = outbound.reserve(), if outbound_open && ready.is_some() => match (room, ready) {
                    (Ok(room), Some((place, _))) => {
                        if let Some(request) = self.pending.send(place, Instant::now()) {
                            room.send(D::encode(request));
                        }
                    }
                    // The stream is gone; its answers will say why.
                    _ => outbound_open = false,
                },
                opened = &mut opening, if answers.is_none() => match opened {
                    Ok(stream) => answers = Some(stream),
                    Err(status) => return End::Broken(status),
                },
                read = next_answer(&mut answers), if answers.is_some() => match read {
                    Ok(Some(reply)) => {
                        if self.take_answer(D::read(reply)) {
                            lease.answered();
                            progress = Instant::now();
                        }
                    }
                    Ok(None) => return End::ByPeer,
                    Err(status) => return End::Broken(status),
                },
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {
                    let now = Instant::now();
                    self.give_up(now);
                    if self.stalls_at(progress).is_some_and(|at| at <= now) {
                        return End::Stalled;
                    }
                }
            }
        }
    }

    /// Gives an answer to the message it belongs to. `false`: it belongs to none.
    fn take_answer(&mut self, reading: Reading) -> bool {
        let metrics = &self.shared.metrics;
        let Some((place, mut entry)) = self.pending.answered(&reading.trace_id) else {
            metrics.spurious();
            return false;
        };
        self.streak = 0;
        let taken = entry.sent.map_or(Duration::ZERO, |sent| sent.elapsed());
        metrics.attempt(failure::code_name(Code::Ok), taken.as_secs_f64());
        match reading.verdict {
            Verdict::Done(outcome) => answer(entry.reply, Ok(outcome)),
            Verdict::Refused(message) => answer(entry.reply, Err(Failure::Refused { message })),
            Verdict::Violation(what) => answer(entry.reply, Err(Failure::Violation(what))),
            Verdict::Redeliver(message) => {
                metrics.redelivery();
                entry.redeliveries += 1;
                entry.last = format!("the peer asked for redelivery: {message}");
                let wait = self.shared.settings.backoff.wait(entry.redeliveries);
                self.pending.put_back(place, entry, Instant::now() + wait);
            }
        }
        true
    }

    /// Reads what is left on a stream on which everything was answered.
    async fn end_politely<D: Dialect>(&self, answers: Option<Streaming<D::Reply>>) {
        let Some(mut answers) = answers else { return };
        let rest = async {
            while let Ok(Some(_)) = answers.message().await {
                self.shared.metrics.spurious();
            }
        };
        // Late or never: the stream is dropped, which cancels it.
        let _ = tokio::time::timeout(POLITE_END, rest).await;
    }

    /// Draws the consequences of a stream's end. Gives the wait before the next stream, or `None`
    /// when there is no next one.
    fn after(&mut self, end: End, lease: &Lease) -> Option<Duration> {
        let status = match end {
            End::Finished => return None,
            End::Retired => return Some(Duration::ZERO),
            End::ByPeer if self.pending.unanswered() == 0 => return Some(Duration::ZERO),
            End::ByPeer => Status::unavailable(format!(
                "the peer ended the stream with {} messages unanswered",
                self.pending.unanswered()
            )),
            End::Stalled => no_answer(self.shared.settings.timeout),
            End::Broken(status) => status,
        };
        let backoff = self.shared.settings.backoff;
        let remedy = failure::remedy(&status);
        if status.code() == Code::Unavailable || failure::is_from_transport(&status) {
            self.shared.pool.suspect(lease);
        }
        self.streak += 1;
        let wait = backoff.wait(self.streak);
        Some(match remedy {
            Remedy::Hold => {
                self.note(&status, lease);
                wait.min(HOLD_PACE)
            }
            Remedy::GiveUp => {
                self.fail_oldest(&status);
                wait
            }
            Remedy::Retry(asked) => {
                self.note(&status, lease);
                self.charge(&status);
                asked.unwrap_or(wait)
            }
        })
    }

    /// Counts a failed attempt of the oldest unanswered message.
    fn charge(&mut self, status: &Status) {
        // While the gate is closed the peer is known to be ill: that is not the message's fault.
        let counts = self.shared.pool.is_open();
        let allowed = self.shared.settings.max_retries;
        let Some((place, entry)) = self.pending.oldest_sent() else {
            return;
        };
        let code = failure::code_name(status.code());
        let taken = entry.sent.map_or(Duration::ZERO, |sent| sent.elapsed());
        self.shared.metrics.attempt(code, taken.as_secs_f64());
        entry.failures += u32::from(counts);
        let attempts = entry.failures;
        if attempts <= allowed {
            return;
        }
        self.fail(
            place,
            Failure::Exhausted {
                attempts,
                code,
                message: failure::describe(status),
            },
        );
    }

    /// Ends the message at which a stream failed for good.
    fn fail_oldest(&mut self, status: &Status) {
        let sent = self.pending.oldest_sent().map(|(place, _)| place);
        let Some(place) = sent.or_else(|| self.pending.next_unsent().map(|(place, _)| place)) else {
            return;
        };
        let code = failure::code_name(status.code());
        self.shared.metrics.attempt(code, 0.0);
        let mut message = failure::describe(status);
        if status.code() == Code::Unimplemented {
            message.push_str("; a peer without streams needs use_streaming: false");
        }
        self.fail(place, Failure::Permanent { code, message });
    }

    /// Remembers the trouble, for the message of a later failure.
    fn note(&mut self, status: &Status, lease: &Lease) {
        if let Some((_, entry)) = self.pending.oldest_sent() {
            let code = failure::code_name(status.code());
            let described = failure::describe(status);
            entry.last = format!("{code}: {described} ({})", lease.address());
        }
    }

    fn stalls_at(&self, progress: Instant) -> Option<Instant> {
        self.pending.stalls_at(self.shared.settings.timeout, progress)
    }

    /// When `total_timeout` of the oldest message that was tried goes by.
    fn gives_up_at(&self) -> Option<Instant> {
        let total = self.shared.settings.total_timeout?;
        self.pending.oldest_tried().map(|(_, first)| first + total)
    }

    /// Ends every message whose `total_timeout` has gone by.
    fn give_up(&mut self, now: Instant) {
        let Some(limit) = self.shared.settings.total_timeout else {
            return;
        };
        while let Some((place, first)) = self.pending.oldest_tried() {
            if first + limit > now {
                return;
            }
            let Some(entry) = self.pending.take(place) else {
                return;
            };
            let last = entry.last;
            answer(entry.reply, Err(Failure::TotalTimeout { limit, last }));
        }
    }

    fn fail(&mut self, place: Place, failure: Failure) {
        if let Some(entry) = self.pending.take(place) {
            answer(entry.reply, Err(failure));
        }
    }
}

fn answer(reply: Reply, result: Result<Outcome, Failure>) {
    // Nobody waits any more when the pipeline is stopping; the message was given back then.
    let _ = reply.send(result);
}

async fn next_answer<T>(answers: &mut Option<Streaming<T>>) -> Result<Option<T>, Status> {
    match answers {
        Some(answers) => answers.message().await,
        None => std::future::pending().await,
    }
}

/// Up to 20 % more or less, so that the streams of many callers do not all end at once.
fn varied(age: Duration) -> Duration {
    age.mul_f64(0.8 + 0.4 * fastrand::f64())
}
