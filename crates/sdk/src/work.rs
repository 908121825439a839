//! What the two kinds of service have in common, so that concurrency, order, panics and metrics are written once
//! (see `engine`): a request becomes a message, the author's code runs, and its result becomes a response.

use std::future::Future;
use std::time::Duration;

use flowctl_proto::pipeline::v1::{
    ConsumeRequest, ConsumeResponse, ConsumptionStatus, ProcessRequest, ProcessResponse, ProcessingStatus,
};

use crate::metrics::Verdict;
use crate::{BoxError, Consumer, Consumption, Message, Outcome, Processor};

/// One kind of service.
pub(crate) trait Work: Send + Sync + 'static {
    /// What comes in.
    type Request: Into<Message> + Send + 'static;
    /// What goes out.
    type Response: prost::Message + Send + 'static;
    /// What the author's code returns.
    type Done: Send + 'static;

    /// Calls the author's code.
    fn run(&self, message: Message) -> impl Future<Output = Result<Self::Done, BoxError>> + Send;

    /// Says it in the protocol's words.
    fn respond(trace_id: String, done: Result<Self::Done, String>, took: Duration) -> (Self::Response, Verdict);
}

/// Serves a [`Processor`].
pub(crate) struct Processing<P>(pub(crate) P);

/// Serves a [`Consumer`].
pub(crate) struct Consuming<C>(pub(crate) C);

// === impl Processing ===

impl<P: Processor> Work for Processing<P> {
    type Request = ProcessRequest;
    type Response = ProcessResponse;
    type Done = Outcome;

    fn run(&self, message: Message) -> impl Future<Output = Result<Outcome, BoxError>> + Send {
        self.0.process(message)
    }

    fn respond(trace_id: String, done: Result<Outcome, String>, took: Duration) -> (ProcessResponse, Verdict) {
        let response = ProcessResponse {
            trace_id,
            processing_time_ms: millis(took),
            ..Default::default()
        };
        match done {
            Ok(Outcome::Forward { payload, metadata }) => {
                let status = ProcessingStatus::Success.into();
                (
                    ProcessResponse {
                        payload,
                        metadata,
                        status,
                        ..response
                    },
                    Verdict::Sent,
                )
            }
            Ok(Outcome::Skip) => {
                let status = ProcessingStatus::Skipped.into();
                (ProcessResponse { status, ..response }, Verdict::Skipped)
            }
            Err(error_message) => {
                let status = ProcessingStatus::Error.into();
                (
                    ProcessResponse {
                        status,
                        error_message,
                        ..response
                    },
                    Verdict::Error,
                )
            }
        }
    }
}

// === impl Consuming ===

impl<C: Consumer> Work for Consuming<C> {
    type Request = ConsumeRequest;
    type Response = ConsumeResponse;
    type Done = Consumption;

    fn run(&self, message: Message) -> impl Future<Output = Result<Consumption, BoxError>> + Send {
        self.0.consume(message)
    }

    fn respond(trace_id: String, done: Result<Consumption, String>, took: Duration) -> (ConsumeResponse, Verdict) {
        let (status, error_message, verdict) = match done {
            Ok(Consumption::Consumed) => (ConsumptionStatus::Success, String::new(), Verdict::Sent),
            Ok(Consumption::Retry(why)) => (ConsumptionStatus::Retry, why, Verdict::Retry),
            Err(message) => (ConsumptionStatus::Error, message, Verdict::Error),
        };
        let processing_time_ms = millis(took);
        let status = status.into();
        (
            ConsumeResponse {
                trace_id,
                status,
                error_message,
                processing_time_ms,
            },
            verdict,
        )
    }
}

fn millis(took: Duration) -> i64 {
    i64::try_from(took.as_millis()).unwrap_or(i64::MAX)
}
