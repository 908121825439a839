//! How many objects have which conditions, counted from the caches at each scrape: what an alert is made of; and how many wait for a pass or
//! are in one, counted then too, because a queue fills and empties between two looks of any clock. The labels
//! are our own kinds, types and reasons; what anybody else writes into a status is counted as `other`.

use std::{collections::BTreeMap, fmt, sync::Arc};

use flowctl_api::{ConditionType, ExternalProcessor, Pipeline, Reason, Status};
use flowctl_runtime::Metrics as Registry;
use kube::core::object::HasStatus;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};

use crate::caches::{Cached, Caches};

const STATUSES: [&str; 3] = ["True", "False", "Unknown"];
const OTHER: &str = "other";

/// Counts when it is asked.
#[derive(Debug)]
struct Census {
    caches: Arc<Caches>,
}

/// Labels of objects that have a condition in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct Labels {
    kind: &'static str,
    condition: &'static str,
    status: &'static str,
    reason: &'static str,
}

type Counts = BTreeMap<Labels, u64>;

/// Tells of the objects in these caches.
pub(crate) fn register(registry: &Registry, caches: Arc<Caches>) {
    registry.register(|registry| {
        let into = registry.sub_registry_with_prefix("flowctl_operator");
        into.register_collector(Box::new(Census { caches }));
    });
}

impl Collector for Census {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut counts = Counts::new();
        count::<Pipeline>(&self.caches, &mut counts);
        count::<ExternalProcessor>(&self.caches, &mut counts);
        let help = "Objects by what the conditions in their status say";
        let mut family = encoder.encode_descriptor("conditions", help, None, MetricType::Gauge)?;
        for (labels, count) in counts {
            ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
        }
        let queue = &self.caches.queue;
        for (name, help, count) in [
            ("queue_depth", "Objects that wait for a pass", queue.depth()),
            ("reconciles_in_work", "Passes that are going on", queue.in_work()),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(u64::try_from(count).unwrap_or(u64::MAX)).encode(gauge)?;
        }
        Ok(())
    }
}

fn count<K: Cached + HasStatus<Status = Status>>(caches: &Caches, counts: &mut Counts) {
    K::store(caches).each(|object| {
        for condition in object.status().into_iter().flat_map(|status| &status.conditions) {
            let Some(type_) = ConditionType::ALL
                .iter()
                .find(|known| known.as_str() == condition.type_)
            else {
                continue;
            };
            let reason = Reason::ALL.iter().find(|known| known.as_str() == condition.reason);
            let labels = Labels {
                kind: K::KIND,
                condition: type_.as_str(),
                status: STATUSES
                    .into_iter()
                    .find(|known| *known == condition.status)
                    .unwrap_or(OTHER),
                reason: reason.map_or(OTHER, |reason| reason.as_str()),
            };
            *counts.entry(labels).or_default() += 1;
        }
    });
}

#[cfg(test)]
mod tests {
    use flowctl_plan::Key;
    use kube::core::error_boundary::DeserializeGuard;
    use serde_json::{Value, json};

    use super::*;
    use crate::{queue::Queue, subject::Subject};

    fn pipeline(name: &str, conditions: Value) -> DeserializeGuard<Pipeline> {
        serde_json::from_value(json!({
            "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline",
            "metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": "1"},
            "spec": {"source": {"type": "A"}, "consumers": [{"type": "B"}]},
            "status": {"conditions": conditions},
        }))
        .expect("a Pipeline")
    }

    fn condition(type_: &str, status: &str, reason: &str) -> Value {
        json!({"type": type_, "status": status, "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    // A storm that is over before the next look of a clock is what the first alert on a queue is about.
    #[tokio::test]
    async fn the_queue_is_counted_when_it_is_asked_for() {
        let queue = Queue::new();
        let registry = Registry::new("test", "0");
        register(&registry, Arc::new(Caches::new(queue.clone())));
        let told = |depth: u32, in_work: u32| {
            let text = registry.encode().expect("text");
            for line in [
                format!("flowctl_operator_queue_depth {depth}"),
                format!("flowctl_operator_reconciles_in_work {in_work}"),
            ] {
                assert!(text.lines().any(|found| found == line), "{line} in {text}");
            }
        };
        told(0, 0);
        for name in ["a", "b", "c"] {
            queue.wake(Subject::pipeline(Key::new("ns", name)));
        }
        told(3, 0);
        let work = queue.next().await.expect("open");
        told(2, 1);
        drop(work);
        told(2, 0);
    }

    // An alert on objects that are not Ready must see each of them once, and a stranger's reasons must not fill the
    // monitoring system with series.
    #[test]
    fn objects_are_counted_by_our_words_and_no_others() {
        let caches = Arc::new(Caches::new(Queue::new()));
        let ready = || condition("Ready", "True", "Ready");
        for (name, conditions) in [
            ("a", json!([ready()])),
            ("b", json!([ready()])),
            ("c", json!([condition("Ready", "False", "NameConflict")])),
            (
                "d",
                json!([
                    condition("Ready", "Perhaps", "Tuesday"),
                    condition("Theirs", "True", "Theirs")
                ]),
            ),
            ("e", json!([])),
        ] {
            caches.pipelines.observed(pipeline(name, conditions));
        }
        let registry = Registry::new("test", "0");
        register(&registry, Arc::clone(&caches));
        let told = || {
            let text = registry.encode().expect("text");
            let lines = text
                .lines()
                .filter(|line| line.starts_with("flowctl_operator_conditions"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let line = |labels: &str, count: u32| {
            format!("flowctl_operator_conditions{{kind=\"Pipeline\",condition=\"Ready\",{labels}}} {count}")
        };
        let none = line("status=\"False\",reason=\"NameConflict\"", 1);
        let both = line("status=\"True\",reason=\"Ready\"", 2);
        let other = line("status=\"other\",reason=\"other\"", 1);
        assert_eq!(told(), [none, both.clone(), other.clone()]);
        caches.pipelines.gone(&pipeline("c", json!([])));
        assert_eq!(told(), [both, other], "what is gone is not told as 0 for ever");
    }
}
