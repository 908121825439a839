//! Why a child is not as wanted, read out of what the apiserver answered.

use flowctl_plan::{Child, FailureKind};

use crate::{fights::conflict, write::Error};

/// Why a child is not as wanted.
pub(super) enum Failed {
    /// The others are worth a try.
    Child(FailureKind),
    /// As [`Failed::Child`], a while ago: nothing is sent for now.
    Still(FailureKind),
    /// The apiserver gives no answers, or may not be asked.
    Everything(FailureKind),
    /// It is there, as the plan did not foresee it.
    Unforeseen,
    /// The object that we work for is gone, though the cache still has it.
    MasterIsGone,
}

// === impl Failed ===

impl From<FailureKind> for Failed {
    fn from(kind: FailureKind) -> Self {
        Self::Child(kind)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        match error {
            Error::Status(_) | Error::Garbled(_) => Self::Child(error.into_failure()),
            Error::NotLeader | Error::Pushback(_) | Error::Silent(_) | Error::Broken(_) => {
                Self::Everything(error.into_failure())
            }
        }
    }
}

/// What passes by itself.
pub(super) fn again(message: String) -> Failed {
    Failed::Child(FailureKind::Retry { message })
}

/// The other manager that an answer names.
pub(super) fn named(error: &Error) -> Option<FailureKind> {
    match error {
        Error::Status(status) => conflict(status),
        Error::NotLeader | Error::Pushback(_) | Error::Silent(_) | Error::Garbled(_) | Error::Broken(_) => None,
    }
}

/// An object that carries our owner and the name of something that we store, and other content: nobody can change it.
pub(super) fn unlike(wanted: &Child, error: &Error) -> Option<FailureKind> {
    match error {
        Error::Status(status) if status.code == 422 && wanted.id.kind.write_once() => Some(FailureKind::Refused {
            code: status.code,
            message: format!(
                "what is there has another content and cannot be changed; remove it ({})",
                status.message
            ),
        }),
        _ => None,
    }
}
