//! What goes wrong, in words and as an exit code that scripts can rely on.

use std::fmt;

use flowctl_runtime::with_causes;
use tonic::{Code, Status};

/// It failed, or what was asked about is unhealthy.
pub(crate) const FAILED: u8 = 1;
/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;
/// Neither healthy nor unhealthy.
pub(crate) const BETWEEN: u8 = 3;
/// What was asked about is not there.
pub(crate) const NOT_FOUND: u8 = 4;
/// No control plane was reached.
pub(crate) const UNREACHABLE: u8 = 5;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server said no.
    Refused {
        /// What was being done.
        doing: String,
        /// What it said.
        status: Box<Status>,
    },
    /// What was asked about is not there.
    NotFound(String),
    /// There is no way to the server.
    Unreachable(String),
    /// Anything else.
    Other(String),
}

// === impl Failure ===

impl Failure {
    /// From an answer of the server at `place`.
    pub(crate) fn from_status(doing: impl Into<String>, place: &str, status: Status) -> Self {
        match status.code() {
            Code::NotFound => Self::NotFound(status.message().to_owned()),
            Code::Unknown if status.message().contains("not found") => Self::NotFound(status.message().to_owned()),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Self::Unreachable(format!(
                "no answer from the control plane at {place}: {}; is it running, and is TLS right (--tls, --ca)?",
                because(&status)
            )),
            _ => Self::Refused {
                doing: doing.into(),
                status: Box::new(status),
            },
        }
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Refused { .. } | Self::Other(_) => FAILED,
            Self::NotFound(_) => NOT_FOUND,
            Self::Unreachable(_) => UNREACHABLE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { doing, status } => write!(f, "cannot {doing}: {} ({})", because(status), status.code()),
            Self::NotFound(what) | Self::Unreachable(what) | Self::Other(what) => f.write_str(what),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Other(format!("cannot write the answer: {error}"))
    }
}

/// A status with its causes: transports hide the reason behind "transport error".
fn because(status: &Status) -> String {
    with_causes(status.message().to_owned(), status)
}
