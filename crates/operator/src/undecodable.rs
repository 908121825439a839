//! An object that this version of the operator cannot read (a definition that allows more than the program knows): it
//! gets a status that says so, everything of it is left running, and nobody else is disturbed.

use flowctl_api::{ConditionType, Reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::error_boundary::InvalidObject;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    caches::Cached,
    ownership::Master,
    publish::{News, Published, Statuses, Write},
    rbac::Rule,
    write::{Error, Writer},
};

/// What reading such an object as it is needs.
pub(crate) const RULES: &[Rule] = &[Rule::new("flowctl.dev", &["externalprocessors", "pipelines"], &["get"])];

/// The part of a status that can always be told, and that replaces one that cannot be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refusal {
    observed_generation: Option<i64>,
    why: String,
    conditions: Vec<Condition>,
}

/// Says in the object's status that it cannot be read, unless it says so already.
pub(crate) async fn tell<K: Cached>(
    writer: &Writer,
    statuses: &Statuses,
    master: &Master,
    invalid: &InvalidObject,
) -> Result<Published, Error> {
    let Some(live) = writer.get_as::<K, Value>(&master.namespace, &master.name).await? else {
        return Ok(Published::Done);
    };
    let generation = live.pointer("/metadata/generation").and_then(Value::as_i64);
    let published = live
        .get("status")
        .and_then(|status| serde_json::from_value::<Refusal>(status.clone()).ok());
    let wanted = refusal(&invalid.error, generation, published.as_ref(), Timestamp::now());
    if published.as_ref() == Some(&wanted) {
        return Ok(Published::Done);
    }
    match statuses
        .write::<K, Value>(master, generation, &wanted, News::Turn)
        .await?
    {
        Write::Deferred(wait) => Ok(Published::Deferred(wait)),
        Write::Answer(_) | Write::Gone => Ok(Published::Done),
    }
}

fn refusal(error: &str, generation: Option<i64>, published: Option<&Refusal>, now: Timestamp) -> Refusal {
    let error = error.trim().replace('\n', " ");
    let message = format!(
        "this version of the operator cannot read the object: {error}; correct it, or install the \
         CustomResourceDefinitions and the operator of the same version"
    );
    let conditions = [
        (ConditionType::Accepted, "False"),
        (ConditionType::Stalled, "True"),
        (ConditionType::Ready, "False"),
    ];
    let conditions = conditions.map(|(type_, status)| {
        let before = published.and_then(|published| {
            let same = |condition: &&Condition| condition.type_ == type_.as_str() && condition.status == status;
            published.conditions.iter().find(same)
        });
        Condition {
            type_: type_.as_str().to_owned(),
            status: status.to_owned(),
            reason: Reason::Invalid.as_str().to_owned(),
            message: message.clone(),
            observed_generation: generation,
            last_transition_time: before.map_or(Time(now), |before| before.last_transition_time.clone()),
        }
    });
    Refusal {
        observed_generation: generation,
        why: message,
        conditions: conditions.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The second pass over such an object must find nothing to write, or it would wake itself for ever.
    #[test]
    fn told_once() {
        let first = refusal("unknown variant `Other`", Some(3), None, Timestamp::UNIX_EPOCH);
        let stored: Refusal =
            serde_json::from_value(serde_json::to_value(&first).expect("JSON")).expect("the same shape");
        let later = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(1);
        assert_eq!(refusal("unknown variant `Other`", Some(3), Some(&stored), later), first);
        let changed = refusal("missing field", Some(4), Some(&stored), later);
        assert_ne!(changed, first);
        assert_eq!(
            changed.conditions[0].last_transition_time,
            first.conditions[0].last_transition_time
        );
    }
}
