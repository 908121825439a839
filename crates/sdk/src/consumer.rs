//! What the author of a consumer implements.

use std::future::Future;

use crate::{BoxError, Message};

/// Takes messages, at the end of a pipeline.
///
/// Several messages are consumed at once, as with [`Processor`](crate::Processor); a consumer that must see them in order
/// sets [`Service::max_in_flight`](crate::Service::max_in_flight) to 1. A message may come again (delivery is at least
/// once): consuming it twice must not count twice.
pub trait Consumer: Send + Sync + 'static {
    /// Consumes one message. The future is dropped when the caller gave up or the grace period of a shutdown is over.
    ///
    /// # Errors
    ///
    /// Any error becomes an answer with status ERROR and the error's text, and so does a panic: this message can never
    /// be consumed. When it only cannot be consumed now, answer [`Consumption::Retry`].
    fn consume(&self, message: Message) -> impl Future<Output = Result<Consumption, BoxError>> + Send;
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consumption {
    /// Taken for good: it need not come again (status SUCCESS).
    Consumed,
    /// Not taken now, for this reason; it should come again later (status RETRY).
    Retry(String),
}
