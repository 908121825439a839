//! What follows from the causes, the same for both kinds: Reconciling, Stalled, Ready, `why`, and when to look again.

use std::time::Duration;

use flowctl_api::{ConditionType, Reason, Status};
use jiff::Timestamp;

use super::{
    conditions::{condition, find},
    events::{Verdicts, turned},
    failures::Outcome,
    health::Health,
    text::{WHY, clip},
    verdict::{Truth, Verdict},
    workload::Running,
};
use crate::{Event, Publication};

/// The causes of a pass.
#[derive(Clone, Debug)]
pub(super) struct Causes {
    pub(super) accepted: Verdict,
    pub(super) resolved: Verdict,
    pub(super) running: Running,
    pub(super) health: Health,
    pub(super) outcome: Outcome,
    /// The plan needs another pass, though nothing is wrong.
    pub(super) unfinished: bool,
}

/// What the object itself says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Published<'a> {
    pub(super) generation: Option<i64>,
    /// The generation whose workload `Available` tells of.
    pub(super) shown: Option<i64>,
    pub(super) status: Option<&'a Status>,
    pub(super) now: Timestamp,
}

/// Adds conditions and `why` to a status that holds everything else. `upstream` names a cause outside the object for
/// pods that are not ready though nothing is wrong with them.
pub(super) fn conclude(
    mut status: Status,
    causes: Causes,
    upstream: Option<String>,
    was: Published<'_>,
) -> Publication {
    let again = Again::after(&causes.outcome);
    let due = causes.health.wake_after;
    let next = causes.unfinished.then_some(SOON);
    status.beats = causes
        .health
        .heartbeat
        .as_ref()
        .map(|heartbeat| format!("{}/{}", heartbeat.fresh, heartbeat.expected));
    status.heartbeat.clone_from(&causes.health.heartbeat);
    let verdicts = verdicts(causes);
    status.observed_generation = was.generation;
    status.why = why(&verdicts, upstream);
    status.conditions = verdicts
        .iter()
        .map(|(kind, verdict)| {
            let generation = match kind {
                ConditionType::Available => was.shown,
                _ => was.generation,
            };
            condition(*kind, verdict, generation, was.status, was.now)
        })
        .collect();
    let events: Vec<Event> = turned(&verdicts, was.status, was.now);
    let pause = again.and_then(|again| again.pause(&status, was.now));
    let wake_after = pause.into_iter().chain(due).chain(next).min();
    Publication {
        status,
        events,
        wake_after,
    }
}

fn verdicts(causes: Causes) -> Verdicts {
    let Causes {
        accepted,
        resolved,
        running,
        health: Health {
            verdict: healthy, fit, ..
        },
        outcome: Outcome { refused, retried },
        unfinished: _,
    } = causes;
    let Running {
        available: seen,
        going_on,
        mut stuck,
        pods,
        ..
    } = running;
    let available = match refused {
        // A run that is over is over, whatever else cannot be written; forgetting it would run it again.
        Some(refusal) if matches!(seen.reason, Reason::Complete | Reason::Failed) => {
            stuck = stuck.or_else(|| refusal.waits_for_a_person().then_some(refusal));
            seen
        }
        Some(refusal) => refusal,
        None => seen,
    };
    let stalled = stalled([&accepted, &resolved, &available], stuck.as_ref());
    let reconciling = reconciling(&stalled, retried, going_on);
    let serving = match (pods, fit) {
        (Some(pods), Some(fit)) if fit < pods.least() => Serving::TooFew,
        _ => Serving::Enough,
    };
    let ready = ready([&accepted, &resolved, &available, &healthy], serving);
    [
        (ConditionType::Accepted, accepted),
        (ConditionType::ResolvedRefs, resolved),
        (ConditionType::Available, available),
        (ConditionType::Healthy, healthy),
        (ConditionType::Reconciling, reconciling),
        (ConditionType::Stalled, stalled),
        (ConditionType::Ready, ready),
    ]
}

fn stalled(causes: [&Verdict; 3], stuck: Option<&Verdict>) -> Verdict {
    let cause = causes
        .into_iter()
        .find(|verdict| verdict.waits_for_a_person())
        .or(stuck);
    match cause {
        Some(cause) => Verdict {
            truth: Truth::True,
            ..cause.clone()
        },
        None => Verdict::bad(Reason::NotStalled, "nothing waits for a person"),
    }
}

/// Together with Stalled only while a write is tried again: it may be the one that stops the pods of an object that is
/// refused. For what cannot come, tools that read both (kstatus) would wait otherwise.
fn reconciling(stalled: &Verdict, retried: Option<String>, going_on: Option<String>) -> Verdict {
    match (retried, stalled.truth, going_on) {
        (Some(message), ..) => Verdict::good(Reason::ApplyRetrying, message),
        (None, Truth::True, _) => Verdict::bad(Reason::Idle, "nothing goes on until a person acts; Stalled says why"),
        (None, _, Some(message)) => Verdict::good(Reason::Progressing, message),
        (None, _, None) => Verdict::bad(Reason::Idle, "nothing is going on"),
    }
}

/// Whether enough pods are ready and not unhealthy, of as many as `Available` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serving {
    Enough,
    TooFew,
}

/// Accepted, ResolvedRefs and Available must be True; Healthy must not be False, unless only some pods are unhealthy and enough
/// others serve.
fn ready(causes: [&Verdict; 4], serving: Serving) -> Verdict {
    let [accepted, resolved, available, healthy] = causes;
    let missing = [accepted, resolved, available]
        .into_iter()
        .find(|verdict| verdict.truth != Truth::True);
    let leaves_enough = healthy.reason == Reason::SomePodsUnhealthy && serving == Serving::Enough;
    let unhealthy = Some(healthy).filter(|healthy| healthy.is_bad() && !leaves_enough);
    let bad = match missing {
        // That pods are not ready yet says less than why they are not.
        Some(available) if available.reason == Reason::Progressing => unhealthy.or(missing),
        Some(_) => missing,
        None => unhealthy,
    };
    if let Some(bad) = bad {
        return Verdict {
            truth: Truth::False,
            ..bad.clone()
        };
    }
    let reason = match available.reason {
        Reason::Complete => Reason::Complete,
        Reason::Suspended => Reason::Suspended,
        _ => Reason::Ready,
    };
    Verdict::good(reason, available.message.clone())
}

/// The first cause in one line; empty when Ready.
fn why(verdicts: &Verdicts, upstream: Option<String>) -> String {
    let [.., (_, ready)] = verdicts;
    if ready.truth == Truth::True {
        return String::new();
    }
    let waits = matches!(ready.reason, Reason::Progressing | Reason::ProgressDeadlineExceeded);
    match upstream {
        Some(upstream) if waits => clip(&upstream, WHY),
        _ => clip(&format!("{}: {}", ready.reason, ready.message), WHY),
    }
}

/// The shortest pause before the next pass.
const SOON: Duration = Duration::from_secs(1);
/// What may work the next time is tried again at least so often, whatever else is refused for hours.
const RETRY: Duration = Duration::from_secs(30);
/// As above, for what is only refused.
const REFUSED: Duration = Duration::from_mins(5);

/// A write that failed is tried again after as long as it has been failing, within bounds: the pause doubles without
/// a counter that an operator's restart would lose.
#[derive(Clone, Copy, Debug)]
struct Again {
    /// The condition that tells since when.
    since: ConditionType,
    longest: Duration,
}

// === impl Again ===

impl Again {
    fn after(outcome: &Outcome) -> Option<Self> {
        // Reconciling may have been True for long before the write failed, so the bound is lower.
        let retried = outcome.retried.as_ref().map(|_| Self {
            since: ConditionType::Reconciling,
            longest: RETRY,
        });
        let refused = outcome.refused.as_ref().map(|_| Self {
            since: ConditionType::Available,
            longest: REFUSED,
        });
        retried.or(refused)
    }

    fn pause(self, status: &Status, now: Timestamp) -> Option<Duration> {
        let since = find(Some(status), self.since)?.last_transition_time.0;
        let failing = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        Some(failing.clamp(SOON, self.longest))
    }
}
