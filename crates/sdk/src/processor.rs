//! What the author of a processor implements.

use std::future::Future;

use bytes::Bytes;

use crate::{BoxError, Message, Metadata};

/// Turns one message into at most one other.
///
/// Several messages are processed at once, each in a task of its own: keep shared state behind a lock, and hand work
/// that takes a processor longer than some milliseconds to `tokio::task::spawn_blocking`, so that health checks are
/// answered meanwhile. A message may come again (delivery is at least once), with the same `trace_id`.
pub trait Processor: Send + Sync + 'static {
    /// Processes one message. The future is dropped when the caller gave up or the grace period of a shutdown is over.
    ///
    /// # Errors
    ///
    /// Any error becomes an answer with status ERROR and the error's text, and so does a panic: say what is wrong with
    /// the message. The server goes on.
    fn process(&self, message: Message) -> impl Future<Output = Result<Outcome, BoxError>> + Send;
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Goes on to the next step (status SUCCESS).
    Forward {
        /// The new message, JSON by convention.
        payload: Bytes,
        /// Its properties; they replace the old ones. [`Message::forward`] keeps them.
        metadata: Metadata,
    },
    /// Ends here, on purpose (status SKIPPED).
    Skip,
}
