//! What writes that did not succeed mean for the conditions.

use flowctl_api::Reason;

use super::{
    text::quote,
    verdict::{Truth, Verdict, child_reference},
    workload::Running,
};
use crate::{Applied, Failure, FailureKind};

/// What failed writes do to what was seen; both may be at once, of two children.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// The apiserver, or another owner, stands in the way.
    pub(super) refused: Option<Verdict>,
    /// What is tried again, and why: it may be the write that stops the pods. What was seen stands.
    pub(super) retried: Option<String>,
}

/// Judges the failures of a pass: the first of either sort.
pub(super) fn judge(applied: &Applied, running: &Running, namespace: Option<&str>) -> Outcome {
    let failures = || applied.failures.iter();
    Outcome {
        refused: failures().find_map(|failure| refusal(failure, running, namespace)),
        retried: failures().find_map(retry),
    }
}

fn retry(failure: &Failure) -> Option<String> {
    match &failure.kind {
        FailureKind::Retry { message } => Some(format!("{} is written again: {}", failure.child, quote(message))),
        FailureKind::NameConflict { .. }
        | FailureKind::FieldConflict { .. }
        | FailureKind::Undone { .. }
        | FailureKind::Refused { .. } => None,
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
        FailureKind::Undone { by } => (
            Reason::ApplyFailed,
            format!(
                "{child}: something keeps {}; it is put right ever more rarely until that ends: find out who does it, as from \
                 the apiserver's audit log, and stop it",
                quote(by)
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
