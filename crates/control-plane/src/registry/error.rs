//! Why the registry refuses, and the gRPC code that says so. Texts of unknown ids are those of the existing server:
//! clients match them.

use flowctl_proto::flowctl::RunStatus;
use tonic::{Code, Status};

use crate::store::StoreError;

/// A refusal. The registry is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No service is registered under the id.
    #[error("service {0} not found")]
    UnknownService(String),
    /// The id is registered, but by another pod than the verified one that beats: it must register first.
    #[error("service {0} not found for this pod: it is registered by another one; register first")]
    RegisteredByAnother(String),
    /// A newer pod has registered under the id since this one did.
    #[error("service {0} was registered by a newer pod: this one has been replaced")]
    Superseded(String),
    /// No run has the id.
    #[error("pipeline run not found: {0}")]
    UnknownRun(String),
    /// No run is of the pipeline.
    #[error("pipeline not found: {0}")]
    UnknownPipeline(String),
    /// A run has the id already.
    #[error("pipeline run {0} exists already; leave run_id empty to get a new one")]
    RunExists(String),
    /// The run has ended, or would go back.
    #[error("pipeline run {run_id} is {} and cannot become {}", .from.as_str_name(), .to.as_str_name())]
    RunTransition {
        /// The run.
        run_id: String,
        /// As it is.
        from: RunStatus,
        /// What was asked.
        to: RunStatus,
    },
    /// Something that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Something is malformed.
    #[error("{what} is not valid: {why}")]
    Invalid {
        /// The field.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something is larger than it may be.
    #[error("{what} too large: {found}, at most {limit} are allowed")]
    TooLarge {
        /// What is counted, with its unit.
        what: &'static str,
        /// How large it is.
        found: usize,
        /// How large it may be.
        limit: usize,
    },
    /// There is no room for another one.
    #[error("the registry is full: it has {limit} {what}; remove some, or raise the limit of the server")]
    Full {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// It could not be written to disk. Unlike with all others, memory has taken the change; a repeated call is safe.
    #[error(transparent)]
    Store(#[from] StoreError),
}

// === impl RegistryError ===

impl RegistryError {
    /// The gRPC code of this refusal.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::UnknownService(_) | Self::RegisteredByAnother(_) | Self::UnknownRun(_) | Self::UnknownPipeline(_) => {
                Code::NotFound
            }
            Self::Superseded(_) | Self::RunTransition { .. } => Code::FailedPrecondition,
            Self::RunExists(_) => Code::AlreadyExists,
            Self::Missing(_) | Self::Invalid { .. } | Self::TooLarge { .. } => Code::InvalidArgument,
            Self::Full { .. } => Code::ResourceExhausted,
            Self::Store(_) => Code::Unavailable,
        }
    }
}

impl From<RegistryError> for Status {
    fn from(error: RegistryError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
