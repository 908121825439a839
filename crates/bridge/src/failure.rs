//! What went wrong with a call, and whether it may be tried again. One place holds the table of
//! codes: retrying what can never succeed doubles side effects, and not retrying what would have
//! succeeded stops a pipeline for nothing.

use std::error::Error as _;
use std::time::Duration;

use tonic::{Code, ConnectError, Status};
use tonic_types::StatusExt;

/// A message that an external step could not bring to an end.
#[derive(Clone, Debug, thiserror::Error)]
#[error("step {step} at {endpoint} failed on message {trace_id}: {failure}")]
pub struct CallError {
    /// The step's name.
    pub step: String,
    /// The endpoint as configured.
    pub endpoint: String,
    /// Correlation id of the message.
    pub trace_id: String,
    /// What happened.
    pub failure: Failure,
}

/// The kinds of permanent failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The peer answered with its status ERROR.
    #[error("the peer answered ERROR: {message}")]
    Refused {
        /// The peer's own words.
        message: String,
    },
    /// The call ended with a code that retrying does not heal.
    #[error("the call failed with {code}: {message}")]
    Permanent {
        /// The gRPC code, as in `INVALID_ARGUMENT`.
        code: &'static str,
        /// What came with it.
        message: String,
    },
    /// Every attempt failed with something that might have healed.
    #[error(
        "{attempts} attempts failed, the last with {code}: {message}; raise max_retries or timeout if the peer needs longer"
    )]
    Exhausted {
        /// Attempts that were made.
        attempts: u32,
        /// Code of the last one.
        code: &'static str,
        /// What came with it.
        message: String,
    },
    /// `total_timeout` went by.
    #[error("total_timeout of {limit:?} went by; the last trouble was: {last}")]
    TotalTimeout {
        /// The configured bound.
        limit: Duration,
        /// The trouble of the last attempt.
        last: String,
    },
    /// The message is too large to be sent.
    #[error("the message has {bytes} bytes, more than the limit of {limit}; make it smaller before this step")]
    TooLarge {
        /// Encoded size.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The peer did not keep to the protocol.
    #[error("the peer broke the protocol: {0}")]
    Violation(String),
    /// The caller was closed while the message was under way. Neither success nor failure.
    #[error("the step was closed before the peer answered")]
    Closed,
}

/// What to do about a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// The peer never saw the message: hold it, do not count an attempt.
    Hold,
    /// Try again, not before the given wait when the peer asked for one.
    Retry(Option<Duration>),
    /// Retrying cannot help.
    GiveUp,
}

/// Name of a gRPC code as the specification spells it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Decides what to do about a status.
pub(crate) fn remedy(status: &Status) -> Remedy {
    if is_connect_error(status) {
        return Remedy::Hold;
    }
    let asked = pushback(status);
    if asked == Some(Pushback::Never) {
        return Remedy::GiveUp;
    }
    let wait = match asked {
        Some(Pushback::After(wait)) => Some(wait),
        Some(Pushback::Never) | None => status.get_details_retry_info().and_then(|info| info.retry_delay),
    };
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled => Remedy::Retry(wait),
        // A status that the transport made has a source error; one that the peer sent has none.
        Code::Unknown | Code::Internal if is_from_transport(status) => Remedy::Retry(wait),
        // "Message too large" has this code too and never heals.
        Code::ResourceExhausted if wait.is_some() => Remedy::Retry(wait),
        _ => Remedy::GiveUp,
    }
}

/// Whether the status was made by the connection, not by the peer.
pub(crate) fn is_from_transport(status: &Status) -> bool {
    status.source().is_some()
}

/// Whether no connection could be made, so that the message never left.
pub(crate) fn is_connect_error(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// A status in words, with its deepest cause: transports wrap the interesting part.
pub(crate) fn describe(status: &Status) -> String {
    let mut deepest = None;
    let mut source = status.source();
    while let Some(error) = source {
        deepest = Some(error.to_string());
        source = error.source();
    }
    match deepest {
        Some(cause) if !status.message().contains(&cause) => {
            format!("{} ({cause})", status.message())
        }
        _ => status.message().to_owned(),
    }
}

#[derive(PartialEq, Eq)]
enum Pushback {
    After(Duration),
    Never,
}

/// The peer's wish in the trailer `grpc-retry-pushback-ms` (gRFC A6): a negative or unreadable
/// value means "do not retry".
fn pushback(status: &Status) -> Option<Pushback> {
    let value = status.metadata().get("grpc-retry-pushback-ms")?;
    let wait = value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
    Some(wait.map_or(Pushback::Never, |ms| Pushback::After(Duration::from_millis(ms))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn only_what_can_heal_is_retried() {
        for (code, expected) in [
            (Code::Unavailable, Remedy::Retry(None)),
            (Code::DeadlineExceeded, Remedy::Retry(None)),
            (Code::Aborted, Remedy::Retry(None)),
            (Code::Cancelled, Remedy::Retry(None)),
            (Code::Unknown, Remedy::GiveUp),
            (Code::Internal, Remedy::GiveUp),
            (Code::InvalidArgument, Remedy::GiveUp),
            (Code::ResourceExhausted, Remedy::GiveUp),
            (Code::Unimplemented, Remedy::GiveUp),
            (Code::OutOfRange, Remedy::GiveUp),
        ] {
            assert_eq!(remedy(&Status::new(code, "x")), expected, "{code:?}");
        }
    }

    #[test]
    fn the_peer_says_when_to_come_back() {
        let wait = Duration::from_secs(3);
        let busy = Status::with_error_details(
            Code::ResourceExhausted,
            "busy",
            ErrorDetails::with_retry_info(Some(wait)),
        );
        assert_eq!(remedy(&busy), Remedy::Retry(Some(wait)));

        let mut later = Status::unavailable("restarting");
        later
            .metadata_mut()
            .insert("grpc-retry-pushback-ms", "1500".parse().expect("ascii"));
        assert_eq!(remedy(&later), Remedy::Retry(Some(Duration::from_millis(1500))));

        let mut never = Status::unavailable("restarting");
        never
            .metadata_mut()
            .insert("grpc-retry-pushback-ms", "-1".parse().expect("ascii"));
        assert_eq!(remedy(&never), Remedy::GiveUp);
    }

    #[test]
    fn a_broken_transport_is_retried_whatever_code_it_made() {
        let broken = Status::from_error(Box::new(std::io::Error::other("broken pipe")));
        assert_eq!(broken.code(), Code::Unknown);
        assert_eq!(remedy(&broken), Remedy::Retry(None));

        let refused = ConnectError(Box::new(std::io::Error::other("refused")));
        assert_eq!(remedy(&Status::from_error(Box::new(refused))), Remedy::Hold);
    }
}
