//! What can go wrong: in an author's code (anything), and in serving it (a closed list).

use std::error::Error;
use std::path::PathBuf;

use flowctl_runtime::{BindError, ShutdownError};

/// Any error; `?` makes one of every error type, and `into()` of a string.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// Why a service cannot start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// See [`ShutdownError`].
    #[error(transparent)]
    Signals(#[from] ShutdownError),
    /// See [`BindError`].
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The settings contradict each other.
    #[error("cannot set up TLS: {0}")]
    TlsSettings(&'static str),
    /// A certificate or key cannot be read.
    #[error("cannot read {what} from {}: {source}", path.display())]
    TlsFile {
        /// Which of them, and the setting that names it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The files were read, and do not hold what they should.
    #[error("cannot use the TLS certificate and key: {0}; both must be PEM and belong together")]
    TlsContent(String),
    /// The server ended without being asked.
    #[error("cannot serve gRPC: {0}")]
    Transport(String),
    /// The grace period was over before every call was answered; their senders were told that it is not available.
    #[error("stopped with {calls} calls unanswered after the grace period")]
    GracePeriodOver {
        /// Unary calls and streams that were still open.
        calls: usize,
    },
}
