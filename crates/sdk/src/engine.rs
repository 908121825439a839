//! Runs the author's code: a bounded number of messages at once, each in its own task (a panic ends the task, not the
//! server), answers of a stream in the order of its requests. It knows neither gRPC services nor their messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flowctl_proto::MAX_MESSAGE_BYTES;
use flowctl_runtime::in_one_line;
use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use prost::Message as _;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tracing::Instrument as _;

use crate::drain::Drain;
use crate::metrics::{Received, ServiceMetrics, Verdict};
use crate::work::Work;
use crate::{BoxError, Message};

/// Shared by every call of a service.
pub(crate) struct Engine<W> {
    work: Arc<W>,
    places: Arc<Semaphore>,
    max_in_flight: usize,
    metrics: ServiceMetrics,
    drain: Drain,
}

/// What a task for one message gives back.
type Joined<T> = Result<(Result<T, BoxError>, Duration), JoinError>;

// === impl Engine ===

impl<W: Work> Engine<W> {
    /// `max_in_flight` messages at once, of all calls together.
    pub(crate) fn new(work: W, max_in_flight: usize, metrics: ServiceMetrics, drain: Drain) -> Arc<Self> {
        let max_in_flight = max_in_flight.clamp(1, Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(max_in_flight));
        Arc::new(Self {
            work: Arc::new(work),
            places,
            max_in_flight,
            metrics,
            drain,
        })
    }

    /// Answers one call with one message.
    pub(crate) async fn one(&self, request: W::Request) -> Result<W::Response, Status> {
        let _call = self.drain.calls.token();
        self.answer(request).await
    }

    /// Answers a stream: one answer for each request, in order. Reading stops at a shutdown and at the first error of the
    /// stream; what was read before is answered before the stream ends with the reason.
    pub(crate) fn stream(
        self: Arc<Self>,
        requests: impl Stream<Item = Result<W::Request, Status>> + Send + Unpin + 'static,
    ) -> BoxStream<'static, Result<W::Response, Status>> {
        let call = self.drain.calls.token();
        let window = self.max_in_flight;
        until_stopped(requests, self.drain.clone())
            .map(move |request| {
                let engine = Arc::clone(&self);
                async move { engine.answer(request?).await }
            })
            .buffered(window)
            .inspect(move |_| {
                let _held_while_the_stream_lives = &call;
            })
            .boxed()
    }

    async fn answer(&self, request: W::Request) -> Result<W::Response, Status> {
        let message: Message = request.into();
        let trace_id = message.trace_id.clone();
        let received = self.metrics.received();
        let joined = tokio::select! {
            biased;
            () = self.drain.given_up.cancelled() => return Err(Drain::unavailable()),
            joined = self.run(message) => joined,
        };
        let (done, took) = match joined {
            Ok((done, took)) => (done.map_err(|error| in_one_line(error.as_ref())), took),
            Err(stopped) if stopped.is_cancelled() => return Err(Drain::unavailable()),
            Err(panicked) => (Err(panic_text(panicked)), Duration::ZERO),
        };
        if let Err(error) = &done {
            tracing::warn!(%trace_id, %error, "cannot handle a message");
        }
        Ok(finish::<W>(trace_id, done, took, received))
    }

    /// The author's code in a task of its own, which ends with this future.
    async fn run(&self, message: Message) -> Joined<W::Done> {
        // The semaphore is never closed; if it were, running at once is the lesser evil.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let work = Arc::clone(&self.work);
        let metrics = self.metrics.clone();
        let span = tracing::debug_span!("message", trace_id = %message.trace_id);
        let task = async move {
            let _place = place;
            let started = Instant::now();
            let done = work.run(message).await;
            let took = started.elapsed();
            metrics.took(took);
            (done, took)
        };
        AbortOnDropHandle::new(tokio::spawn(task.instrument(span))).await
    }
}

/// The response, or an error in its place when it is larger than a peer takes: a transport error would end the whole
/// stream, and every other message on it would be sent again.
fn finish<W: Work>(
    trace_id: String,
    done: Result<W::Done, String>,
    took: Duration,
    received: Received<'_>,
) -> W::Response {
    let (response, verdict) = W::respond(trace_id.clone(), done, took);
    let bytes = response.encoded_len();
    if bytes <= MAX_MESSAGE_BYTES {
        received.ended(verdict);
        return response;
    }
    received.ended(Verdict::Error);
    let error = format!("the answer has {bytes} bytes: at most {MAX_MESSAGE_BYTES} can be sent");
    tracing::warn!(%trace_id, %error, "cannot handle a message");
    W::respond(trace_id, Err(error), took).0
}

/// The requests up to their first error, or up to the shutdown, which then is the last item.
fn until_stopped<R: Send + 'static>(
    requests: impl Stream<Item = Result<R, Status>> + Send + Unpin + 'static,
    drain: Drain,
) -> impl Stream<Item = Result<R, Status>> + Send {
    stream::unfold(Some(requests), move |open| {
        let stopping = drain.stopping.clone();
        async move {
            let mut requests = open?;
            let next = tokio::select! {
                biased;
                () = stopping.cancelled() => Some(Err(Drain::unavailable())),
                next = requests.next() => next,
            }?;
            let open = next.is_ok().then_some(requests);
            Some((next, open))
        }
    })
}

/// What a panic said, when it said something.
fn panic_text(panicked: JoinError) -> String {
    let what = match panicked.try_into_panic() {
        Ok(payload) => match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(other) => other
                .downcast::<&'static str>()
                .map_or_else(|_| "no message".to_owned(), |text| (*text).to_owned()),
        },
        Err(error) => error.to_string(),
    };
    format!("panicked while handling the message: {what}")
}
