//! What writes that did not succeed mean for the conditions.

use flowctl_api::Reason;

use super::{
    text::quote,
    verdict::{Truth, Verdict, child_reference},
    workload::Running,
};
use crate::{Applied, Failure, FailureKind};

/// What a failed write does to what was seen.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// Every write succeeded.
    Fine,
    /// It is tried again; what was seen stands.
    Retrying(String),
    /// The apiserver, or another owner, stands in the way.
    Refused(Verdict),
    /// So it does, and another child is tried again: it may be the one that stops the pods.
    RefusedAndRetrying(Verdict),
}

/// Judges the failures of a pass: a refusal before a retry.
pub(super) fn judge(applied: &Applied, running: &Running, namespace: Option<&str>) -> Outcome {
    let refused = applied
        .failures
        .iter()
        .find_map(|failure| refusal(failure, running, namespace));
    let retries = |failure: &Failure| matches!(failure.kind, FailureKind::Retry { .. });
    match refused {
        Some(verdict) if applied.failures.iter().any(retries) => return Outcome::RefusedAndRetrying(verdict),
        Some(verdict) => return Outcome::Refused(verdict),
        None => {}
    }
    match applied.failures.first() {
        Some(Failure {
            child,
            kind: FailureKind::Retry { message },
        }) => Outcome::Retrying(format!("{child} is written again: {}", quote(message))),
        _ => Outcome::Fine,
    }
}

fn refusal(failure: &Failure, running: &Running, namespace: Option<&str>) -> Option<Verdict> {
    let child = &failure.child;
    let (reason, text) = match &failure.kind {
        FailureKind::NameConflict { owner } => (
            Reason::NameConflict,
            format!("{child} exists and is not ours ({owner}); remove it, or give this object another name"),
        ),
        FailureKind::FieldConflict { manager, message } => (
            Reason::ApplyFailed,
            format!(
                "{child}: {manager:?} keeps setting fields that the operator sets: {}; set them in this object's spec, or stop \
                 {manager:?} from it",
                quote(message)
            ),
        ),
        FailureKind::Refused { message, .. } if message.contains("exceeded quota") => (
            Reason::QuotaExceeded,
            format!("no room for {child}: {}", quote(message)),
        ),
        FailureKind::Refused { code, message } => (
            Reason::ApplyFailed,
            format!("the apiserver refuses {child} ({code}): {}", quote(message)),
        ),
        FailureKind::Retry { .. } => return None,
    };
    let serving = running.available.truth == Truth::True && running.pods.is_some_and(|pods| pods.ready > 0);
    let still = if serving { "; what ran before keeps running" } else { "" };
    let verdict = Verdict::bad(reason, format!("{text}{still}")).about(child_reference(child, namespace));
    // Others may give room back; everything else stays as it is until somebody acts.
    Some(if reason == Reason::QuotaExceeded {
        verdict
    } else {
        verdict.for_a_person()
    })
}
