//! How long after a change of a spec the last write that follows from it is done, while changes go on. Both instants are
//! the apiserver's own, from its audit log.

use std::{collections::BTreeMap, time::Duration};

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_testkit::{Error, Result, audit::Event};
use jiff::Timestamp;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    REST, log,
    objects::{pipeline_name, processor_name},
    program::Operator,
    scene::Scene,
};

/// What changes cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Churn {
    /// Changes made.
    pub(super) changes: usize,
    /// In a second.
    pub(super) rate: u32,
    /// Changes after which no child was written: must be none.
    pub(super) unanswered: usize,
    /// From the answer to the change until the last write of a child was answered, in milliseconds.
    pub(super) children: Spread,
    /// Until the status was.
    pub(super) statuses: Spread,
    /// Writes of the operator.
    pub(super) writes: log::Requests,
}

/// Middle and ends of a set of times, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Spread {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

/// Makes changes at a steady rate, of each object one at most, and measures when the operator is at rest again.
pub(super) async fn run(
    scene: &Scene,
    operator: &Operator,
    place: &str,
    count: usize,
    rate: u32,
    seconds: u32,
) -> Result<Churn> {
    let mark = log::mark(scene)?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    let asked = usize::try_from(rate.saturating_mul(seconds)).unwrap_or(usize::MAX);
    let changes = asked.clamp(1, 2 * count.max(1));
    for number in 0..changes {
        ticks.tick().await;
        change(scene, place, number).await?;
    }
    operator.rests(REST).await?;
    measure(&log::since(scene, mark)?, place, rate)
}

/// Even numbers change a Pipeline, odd ones a processor.
async fn change(scene: &Scene, place: &str, number: usize) -> Result<()> {
    let (object, params) = (number / 2, PatchParams::default());
    if number.is_multiple_of(2) {
        let api: Api<Pipeline> = Api::namespaced(scene.client.clone(), place);
        let patch = json!({"spec": {"source": {"config": {"path": format!("/ledgers/changed-{number}")}}}});
        let changed = api.patch(&pipeline_name(object), &params, &Patch::Merge(patch)).await;
        return changed.map(drop).map_err(Error::kube("change a Pipeline"));
    }
    let api: Api<ExternalProcessor> = Api::namespaced(scene.client.clone(), place);
    let patch = json!({"spec": {"workload": {"image": format!("ttp-processor:changed-{number}")}}});
    let changed = api.patch(&processor_name(object), &params, &Patch::Merge(patch)).await;
    changed.map(drop).map_err(Error::kube("change a processor"))
}

fn measure(events: &[Event], place: &str, rate: u32) -> Result<Churn> {
    let mut changed: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
    let mut children: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
    let mut statuses: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.is_write()) {
        let Some(object) = &event.object_ref else { continue };
        let at = event.answered.0;
        if object.namespace != place || object.api_group == "events.k8s.io" {
            continue;
        }
        let into = match (log::is_of_operator(event, place), object.subresource.as_str()) {
            (true, "status") => &mut statuses,
            (true, _) => &mut children,
            (false, "") if object.api_group == flowctl_api::GROUP => &mut changed,
            (false, _) => continue,
        };
        into.entry(log::owner(event)).or_default().push(at);
    }
    let mut churn = Churn {
        changes: changed.values().map(Vec::len).sum(),
        rate,
        unanswered: 0,
        children: Spread::default(),
        statuses: Spread::default(),
        writes: log::Requests::of(
            events
                .iter()
                .filter(|event| event.is_write() && log::is_of_operator(event, place)),
        ),
    };
    let (mut to_children, mut to_statuses) = (Vec::new(), Vec::new());
    for (owner, mut at) in changed {
        at.sort_unstable();
        for (index, begin) in at.iter().enumerate() {
            let end = at.get(index + 1);
            match last_between(children.get(owner), *begin, end) {
                Some(delay) => to_children.push(delay),
                None => churn.unanswered += 1,
            }
            to_statuses.extend(last_between(statuses.get(owner), *begin, end));
        }
    }
    churn.children = Spread::of(to_children);
    churn.statuses = Spread::of(to_statuses);
    Ok(churn)
}

/// Milliseconds from `begin` to the last of these that is after it and before `end`.
fn last_between(times: Option<&Vec<Timestamp>>, begin: Timestamp, end: Option<&Timestamp>) -> Option<f64> {
    let within = times?
        .iter()
        .filter(|at| **at > begin && end.is_none_or(|end| *at < end));
    within
        .max()
        .map(|last| last.duration_since(begin).as_secs_f64() * 1000.0)
}

// === impl Spread ===

impl Spread {
    /// Of these; all 0 without any.
    pub(super) fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let Some(last) = times.len().checked_sub(1) else {
            return Self::default();
        };
        // The smallest that at least so many hundredths do not exceed.
        let at = |hundredths: usize| times[((times.len() * hundredths).div_ceil(100)).saturating_sub(1).min(last)];
        Self {
            p50: at(50),
            p99: at(99),
            max: times[last],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A percentile off by one hides the slowest change.
    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = (1..=200).rev().map(f64::from).collect();
        assert_eq!(
            Spread::of(times),
            Spread {
                p50: 100.0,
                p99: 198.0,
                max: 200.0
            }
        );
        assert_eq!(
            Spread::of(vec![3.0]),
            Spread {
                p50: 3.0,
                p99: 3.0,
                max: 3.0
            }
        );
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }

    // A write that follows the next change of the same object is not this one's.
    #[test]
    fn a_delay_ends_with_the_last_write_before_the_next_change() {
        let at = |second: i64| Timestamp::from_second(second).expect("in range");
        let writes = vec![at(1), at(11), at(12), at(21)];
        assert_eq!(last_between(Some(&writes), at(10), Some(&at(20))), Some(2000.0));
        assert_eq!(last_between(Some(&writes), at(20), None), Some(1000.0));
        assert_eq!(last_between(Some(&writes), at(30), None), None);
    }
}
