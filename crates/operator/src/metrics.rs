//! What the operator counts. Every label has few values that are known beforehand: kinds, verbs, outcomes and HTTP
//! codes, never a name or a message.

use std::time::Duration;

use flowctl_runtime::Metrics as Registry;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Unit,
};

/// A gauge of a number that is no integer.
type Fractional = Gauge<f64, std::sync::atomic::AtomicU64>;

/// Labels of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Kind {
    kind: &'static str,
}

/// Labels of a pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Pass {
    kind: &'static str,
    outcome: &'static str,
}

/// Labels of a write.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Write {
    kind: &'static str,
    verb: &'static str,
    /// HTTP status; 0 when there was no answer.
    code: u16,
}

/// Labels of a watch that ended otherwise than by its time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct WatchEnd {
    kind: &'static str,
    reason: &'static str,
}

/// The operator's metrics, shared by clones.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    passes: Family<Pass, Counter>,
    seconds: Family<Kind, Histogram, fn() -> Histogram>,
    waits: Family<Kind, Histogram, fn() -> Histogram>,
    writes: Family<Write, Counter>,
    watch_age: Family<Kind, Fractional>,
    watch_ends: Family<WatchEnd, Counter>,
    objects: Family<Kind, Gauge>,
    undecodable: Family<Kind, Gauge>,
    crd_missing: Family<Kind, Gauge>,
    crd_outdated: Family<Kind, Gauge>,
    /// Namespaces whose lists or watches fail; all namespaces at once count as one.
    pub(crate) unreadable_namespaces: Gauge,
    /// 1 while this replica leads.
    pub(crate) leader: Gauge,
    /// Statuses that were put off because the budget was used up.
    pub(crate) deferred: Counter,
    /// Events that were not published because too many waited.
    pub(crate) events_dropped: Counter,
}

// === impl Metrics ===

impl Metrics {
    /// Registers everything, under the prefix `flowctl_operator_`.
    pub(crate) fn register(registry: &Registry) -> Self {
        let metrics = Self {
            passes: Family::default(),
            seconds: Family::new_with_constructor(durations),
            waits: Family::new_with_constructor(durations),
            writes: Family::default(),
            watch_age: Family::default(),
            watch_ends: Family::default(),
            objects: Family::default(),
            undecodable: Family::default(),
            crd_missing: Family::default(),
            crd_outdated: Family::default(),
            unreadable_namespaces: Gauge::default(),
            leader: Gauge::default(),
            deferred: Counter::default(),
            events_dropped: Counter::default(),
        };
        registry.register(|registry| {
            let into = registry.sub_registry_with_prefix("flowctl_operator");
            into.register(
                "reconciles",
                "Passes over objects, by what came of them",
                metrics.passes.clone(),
            );
            let seconds = metrics.seconds.clone();
            into.register_with_unit("reconcile_duration", "How long passes took", Unit::Seconds, seconds);
            let waits = metrics.waits.clone();
            into.register_with_unit("queue_wait", "How long objects waited for a pass", Unit::Seconds, waits);
            into.register(
                "writes",
                "Mutating requests, by HTTP status (0: no answer)",
                metrics.writes.clone(),
            );
            let age = metrics.watch_age.clone();
            into.register_with_unit(
                "watch_age",
                "Since the least live watch showed life",
                Unit::Seconds,
                age,
            );
            into.register(
                "watch_failures",
                "Lists and watches that failed",
                metrics.watch_ends.clone(),
            );
            into.register("cached_objects", "Objects in the caches", metrics.objects.clone());
            let undecodable = metrics.undecodable.clone();
            into.register(
                "undecodable_objects",
                "Objects that this version cannot read",
                undecodable,
            );
            let missing = metrics.crd_missing.clone();
            into.register("crd_missing", "1 while the apiserver does not serve the kind", missing);
            let outdated = metrics.crd_outdated.clone();
            into.register(
                "crd_outdated",
                "1 while the kind's definition lacks fields of this version",
                outdated,
            );
            let unreadable = metrics.unreadable_namespaces.clone();
            into.register(
                "unreadable_namespaces",
                "Watched namespaces that are not listed or not heard of",
                unreadable,
            );
            into.register("leader", "1 while this replica leads", metrics.leader.clone());
            let deferred = metrics.deferred.clone();
            into.register(
                "status_deferred",
                "Statuses put off because the write budget was used up",
                deferred,
            );
            let dropped = metrics.events_dropped.clone();
            into.register(
                "events_dropped",
                "Events not published because too many waited",
                dropped,
            );
        });
        metrics
    }

    pub(crate) fn pass(&self, kind: &'static str, outcome: &'static str, took: Duration) {
        self.passes.get_or_create(&Pass { kind, outcome }).inc();
        self.seconds.get_or_create(&Kind { kind }).observe(took.as_secs_f64());
    }

    pub(crate) fn waited(&self, kind: &'static str, waited: Duration) {
        self.waits.get_or_create(&Kind { kind }).observe(waited.as_secs_f64());
    }

    pub(crate) fn write(&self, kind: &'static str, verb: &'static str, code: u16) {
        self.writes.get_or_create(&Write { kind, verb, code }).inc();
    }

    pub(crate) fn watch_failed(&self, kind: &'static str, reason: &'static str) {
        self.watch_ends.get_or_create(&WatchEnd { kind, reason }).inc();
    }

    pub(crate) fn watch_age(&self, kind: &'static str, age: Duration) {
        self.watch_age.get_or_create(&Kind { kind }).set(age.as_secs_f64());
    }

    pub(crate) fn objects(&self, kind: &'static str, readable: usize, undecodable: usize) {
        let kind = Kind { kind };
        self.objects
            .get_or_create(&kind)
            .set(i64::try_from(readable).unwrap_or(i64::MAX));
        self.undecodable
            .get_or_create(&kind)
            .set(i64::try_from(undecodable).unwrap_or(i64::MAX));
    }

    pub(crate) fn crd_outdated(&self, kind: &'static str, outdated: bool) {
        self.crd_outdated.get_or_create(&Kind { kind }).set(i64::from(outdated));
    }

    pub(crate) fn crd_missing(&self, kind: &'static str, missing: bool) {
        self.crd_missing.get_or_create(&Kind { kind }).set(i64::from(missing));
    }
}

/// Buckets from what a pass over a settled object takes to its limit, in seconds.
fn durations() -> Histogram {
    Histogram::new([
        0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
    ])
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
