//! Why a run failed. Each message names the step and the ledger, because it is what a person reads
//! on the pod and on the Pipeline object; what to do about it is in the innermost part.

use flowctl_bridge::{CallError, TlsError};
use tokio::task::JoinError;

use crate::checkpoint::CheckpointError;
use crate::source::SourceError;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The source cannot go on.
    #[error("source {step}: {source}")]
    Source {
        /// The source's name.
        step: String,
        /// Why.
        source: Box<SourceError>,
    },
    /// An external step failed on a message for good.
    #[error("ledger {ledger}: {source}")]
    External {
        /// The ledger of the message.
        ledger: u32,
        /// Which step, where, and why.
        source: Box<CallError>,
    },
    /// A consumer cannot write.
    #[error("step {step}: cannot write to {place}: {source}")]
    Write {
        /// The step's name.
        step: String,
        /// Where to.
        place: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A message cannot be written as a line of JSON.
    #[error("step {step}: ledger {ledger}: the message is not JSON: {problem}")]
    NotJson {
        /// The step's name.
        step: String,
        /// The ledger of the message.
        ledger: u32,
        /// What is wrong with it.
        problem: String,
    },
    /// TLS files of an external step cannot be used.
    #[error("step {step}: {source}")]
    Tls {
        /// The step's name.
        step: String,
        /// Which file, and why not.
        source: Box<TlsError>,
    },
    /// The checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The source ended and no step failed, but not everything was acknowledged.
    #[error("{0} ledgers were dropped without a reason; this is a defect of the runner")]
    Dropped(u64),
    /// A task panicked.
    #[error("a part of the runner ended unexpectedly: {0}; this is a defect of the runner")]
    Task(#[from] JoinError),
}
