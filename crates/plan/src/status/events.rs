//! Events for conditions that turned: one for a cause when it turns bad, and one when things are well again. A cause
//! shows in several conditions (Available, Stalled, Ready); only the first of them speaks.

use flowctl_api::{ConditionType, Reason, Status};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};

use super::{
    conditions::find,
    text::{MESSAGE, clip},
    verdict::{Truth, Verdict},
};
use crate::{Event, EventSeverity};

/// The verdicts of a pass in the order in which conditions are read.
pub(super) type Verdicts = [(ConditionType, Verdict); 7];

/// So far apart a Pipeline's runner and its processor notice the same trouble, at most: stale times are tens of seconds.
const TOGETHER: SignedDuration = SignedDuration::from_mins(5);

/// Conditions that are causes; the others follow from them.
const CAUSES: [ConditionType; 4] = [
    ConditionType::Accepted,
    ConditionType::ResolvedRefs,
    ConditionType::Available,
    ConditionType::Healthy,
];

/// What deserves an event, compared with what was published.
pub(super) fn turned(verdicts: &Verdicts, published: Option<&Status>, now: Timestamp) -> Vec<Event> {
    let ready_again = ready(verdicts, published);
    let mut events: Vec<Event> = CAUSES
        .iter()
        .filter(|kind| **kind != ConditionType::Healthy || !is_told_by_available(verdicts))
        .filter_map(|kind| {
            cause(
                verdict(verdicts, *kind)?,
                find(published, *kind),
                *kind,
                ready_again.is_some(),
                now,
            )
        })
        .collect();
    let in_trouble = CAUSES
        .iter()
        .any(|kind| verdict(verdicts, *kind).is_some_and(|verdict| trouble(verdict).is_some()));
    if !in_trouble {
        events.extend(verdict(verdicts, ConditionType::Stalled).and_then(|stalled| stuck(stalled, published)));
    }
    if events.is_empty() {
        events.extend(interrupted(verdicts, published).or_else(|| too_few(verdicts, published)));
    }
    events.extend(ready_again);
    events
}

/// What the pods themselves show is told of in both.
fn is_told_by_available(verdicts: &Verdicts) -> bool {
    let available = verdict(verdicts, ConditionType::Available).and_then(trouble);
    let healthy = verdict(verdicts, ConditionType::Healthy).and_then(trouble);
    available.is_some() && available == healthy
}

/// A cause that turned bad, or that is over while something else still keeps the object from being ready.
fn cause(
    verdict: &Verdict,
    before: Option<&Condition>,
    kind: ConditionType,
    ready_again: bool,
    now: Timestamp,
) -> Option<Event> {
    let was_bad = before.filter(|before| before.status == Truth::False.as_str());
    match trouble(verdict) {
        Some(reason) if was_bad.is_some_and(|before| is_same_trouble(before, reason, now)) => None,
        Some(_) => Some(event(EventSeverity::Warning, kind, verdict)),
        None => {
            let over = verdict.truth == Truth::True
                && was_bad.is_some_and(|before| before.reason != Reason::Progressing.as_str())
                && !ready_again;
            over.then(|| event(EventSeverity::Normal, kind, verdict))
        }
    }
}

/// That a step of a Pipeline does not work is seen by its runner and by its processor, one a moment before the other, and the runner
/// sees a moment later that it works again. Which of them speaks first is chance, and that the other one speaks, too, is no
/// news. A runner that has been in trouble for longer has another one.
fn is_same_trouble(before: &Condition, reason: Reason, now: Timestamp) -> bool {
    let was = |reasons: &[Reason]| reasons.iter().any(|reason| reason.as_str() == before.reason);
    let is_young = now.duration_since(before.last_transition_time.0) < TOGETHER;
    was(&[reason])
        || match reason {
            Reason::ProcessorUnhealthy => is_young && was(&[Reason::ReportedDegraded, Reason::ReportedUnhealthy]),
            Reason::ReportedDegraded | Reason::ReportedUnhealthy => was(&[Reason::ProcessorUnhealthy]),
            _ => false,
        }
}

/// A roll-out that is stuck while the earlier revision serves.
fn stuck(stalled: &Verdict, published: Option<&Status>) -> Option<Event> {
    let before = find(published, ConditionType::Stalled);
    let known =
        before.is_some_and(|before| before.status == Truth::True.as_str() && before.reason == stalled.reason.as_str());
    (stalled.truth == Truth::True && !known).then(|| event(EventSeverity::Warning, ConditionType::Stalled, stalled))
}

/// The object was ready and no longer is, although nothing is wrong but time: a roll-out, or a pod that went away.
fn interrupted(verdicts: &Verdicts, published: Option<&Status>) -> Option<Event> {
    let was_ready = find(published, ConditionType::Ready)?.status == Truth::True.as_str();
    let available = verdict(verdicts, ConditionType::Available)?;
    let rolling = verdict(verdicts, ConditionType::Reconciling)?.truth == Truth::True;
    let severity = if rolling {
        EventSeverity::Normal
    } else {
        EventSeverity::Warning
    };
    (was_ready && available.is_bad()).then(|| event(severity, ConditionType::Available, available))
}

/// The object was ready although some pods were unhealthy, and now they are too many.
fn too_few(verdicts: &Verdicts, published: Option<&Status>) -> Option<Event> {
    let was_ready = find(published, ConditionType::Ready)?.status == Truth::True.as_str();
    let ready = verdict(verdicts, ConditionType::Ready)?;
    let is_health = verdict(verdicts, ConditionType::Healthy)?.is_bad();
    (was_ready && ready.is_bad() && is_health).then(|| event(EventSeverity::Warning, ConditionType::Ready, ready))
}

/// The object turned ready, or is ready for another reason than before (complete, suspended, running again).
fn ready(verdicts: &Verdicts, published: Option<&Status>) -> Option<Event> {
    let ready = verdict(verdicts, ConditionType::Ready)?;
    let known = find(published, ConditionType::Ready)
        .is_some_and(|before| before.status == Truth::True.as_str() && before.reason == ready.reason.as_str());
    (ready.truth == Truth::True && !known).then(|| event(EventSeverity::Normal, ConditionType::Ready, ready))
}

/// The reason of a bad condition; that pods are merely starting is no trouble.
fn trouble(verdict: &Verdict) -> Option<Reason> {
    (verdict.is_bad() && verdict.reason != Reason::Progressing).then_some(verdict.reason)
}

fn verdict(verdicts: &Verdicts, kind: ConditionType) -> Option<&Verdict> {
    verdicts
        .iter()
        .find(|(candidate, _)| *candidate == kind)
        .map(|(_, verdict)| verdict)
}

fn event(severity: EventSeverity, condition: ConditionType, verdict: &Verdict) -> Event {
    let related: Option<ObjectReference> = verdict.related.clone();
    Event {
        severity,
        condition,
        reason: verdict.reason.as_str(),
        note: clip(&verdict.message, MESSAGE),
        related,
    }
}
