//! The two steps of stopping, and who is still at work: first no new messages are taken, then (when the grace period is
//! over) what is under way is given up.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

/// Shared by everything that serves calls.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drain {
    /// Cancelled when no new messages are taken.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when messages under way are given up.
    pub(crate) given_up: CancellationToken,
    /// One token for each call (a stream is one call).
    pub(crate) calls: TaskTracker,
}

// === impl Drain ===

impl Drain {
    /// What callers get that are not answered: it tells every gRPC client that another attempt elsewhere is safe.
    pub(crate) fn unavailable() -> Status {
        Status::unavailable("the service is shutting down; send what was not answered again")
    }
}
