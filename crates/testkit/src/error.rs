//! What can go wrong outside: every message says what was being done, with what, and what to do.

use std::io;
use std::path::Path;
use std::time::Duration;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be done. The reason stands in the message, so it is not a `source` too: printed chains would
/// say it twice.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or a process could not be used.
    #[error("cannot {doing}: {reason}")]
    Io {
        /// What was being done, with what.
        doing: String,
        /// The reason.
        reason: io::Error,
    },
    /// A command ended with a failure.
    #[error("`{command}` failed ({status}): {said}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it wrote to standard error, or to standard output if that is empty.
        said: String,
    },
    /// The apiserver did not do what it was asked.
    #[error("cannot {doing}: {reason}")]
    Kube {
        /// What was being done.
        doing: String,
        /// The reason.
        reason: Box<kube::Error>,
    },
    /// Something did not happen in time.
    #[error("{what}: not within {limit:?}{detail}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// What was seen last, with a separator in front, or empty.
        detail: String,
    },
    /// A component of the cluster ended by itself.
    #[error("{name} ended ({status}); the end of its log:\n{log}")]
    Exited {
        /// Its name.
        name: String,
        /// How it ended.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// Something cannot work here; the message says what to do about it.
    #[error("{0}")]
    Impossible(String),
}

// === impl Error ===

impl Error {
    /// An input or output error while `doing` something.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |reason| Self::Io {
            doing: doing.into(),
            reason,
        }
    }

    /// An input or output error with a file.
    pub fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let doing = format!("{verb} {}", path.display());
        move |reason| Self::Io { doing, reason }
    }

    /// An error of the apiserver while `doing` something.
    pub fn kube(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        move |reason| Self::Kube {
            doing: doing.into(),
            reason: Box::new(reason),
        }
    }

    /// Something that cannot work here, and what to do.
    pub fn impossible(message: impl Into<String>) -> Self {
        Self::Impossible(message.into())
    }
}
