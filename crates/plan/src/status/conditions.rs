//! From verdicts to the seven conditions, and from a status back to one of them. A condition's instant moves only when
//! its status flips (invariant R9).

use flowctl_api::{ConditionType, Status};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    text::{MESSAGE, clip},
    verdict::Verdict,
};

/// The condition of that type in a published status.
pub(super) fn find(status: Option<&Status>, kind: ConditionType) -> Option<&Condition> {
    status?
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind.as_str())
}

/// Writes a verdict down.
pub(super) fn condition(
    kind: ConditionType,
    verdict: &Verdict,
    generation: Option<i64>,
    published: Option<&Status>,
    now: Timestamp,
) -> Condition {
    let status = verdict.truth.as_str();
    let since = find(published, kind)
        .filter(|published| published.status == status)
        .map_or_else(|| whole_seconds(now), |published| published.last_transition_time.0);
    Condition {
        type_: kind.as_str().to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.as_str().to_owned(),
        message: clip(&verdict.message, MESSAGE),
        observed_generation: generation,
        last_transition_time: Time(since),
    }
}

/// Kubernetes writes instants with whole seconds; a fraction would make the status differ from itself when read back.
pub(super) fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
