//! The statistics of a pipeline, gathered as seed 001 asks: each component reports its numbers, the pipeline adds its age
//! and how many components there are, and a component that has not reported for 30 s is stale.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Health, Report, Snapshot};

/// A component that has not reported for longer is stale (seed 001, `IsHealthy`).
pub const STALE_AFTER: Duration = Duration::from_secs(30);

/// The statistics of one pipeline, shared by clones.
#[derive(Clone, Debug)]
pub struct Statistics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    components: BTreeMap<Key, Entry>,
    pipeline: BTreeMap<String, f64>,
}

/// Type and name.
type Key = (String, String);

#[derive(Debug)]
struct Entry {
    numbers: BTreeMap<String, f64>,
    reported: Instant,
    trouble: bool,
}

/// The handle of one component, shared by clones.
#[derive(Clone, Debug)]
pub struct Component {
    shared: Arc<Shared>,
    key: Key,
}

// === impl Statistics ===

impl Default for Statistics {
    fn default() -> Self {
        Self::new()
    }
}

impl Statistics {
    /// No components; the pipeline starts now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                started: Instant::now(),
                state: Mutex::default(),
            }),
        }
    }

    /// A component by its type (`source`, `processor`, `consumer`) and name. It exists from its first report on.
    #[must_use]
    pub fn component(&self, kind: impl Into<String>, name: impl Into<String>) -> Component {
        Component {
            shared: Arc::clone(&self.shared),
            key: (kind.into(), name.into()),
        }
    }

    /// Sets a number of the pipeline as a whole: `pipeline.<key>`.
    pub fn set(&self, key: &str, value: f64) {
        self.shared.lock().pipeline.insert(format!("pipeline.{key}"), value);
    }

    fn snapshot_at(&self, now: Instant) -> Snapshot {
        let state = self.shared.lock();
        let age = now.saturating_duration_since(self.shared.started);
        let mut numbers = state.pipeline.clone();
        numbers.insert("pipeline.uptime_seconds".to_owned(), count(age.as_secs()));
        numbers.insert(
            "pipeline.component_count".to_owned(),
            count(state.components.len() as u64),
        );
        let mut texts = BTreeMap::new();
        // Nothing has reported yet: a young pipeline is starting, an old one does nothing.
        let mut health = match (state.components.is_empty(), age > STALE_AFTER) {
            (false, _) => Health::Healthy,
            (true, false) => Health::Starting,
            (true, true) => Health::Unhealthy,
        };
        for ((kind, name), entry) in &state.components {
            let stale = now.saturating_duration_since(entry.reported) > STALE_AFTER;
            let (word, verdict) = match (stale, entry.trouble) {
                (true, _) => ("stale", Health::Unhealthy),
                (false, true) => ("unhealthy", Health::Degraded),
                (false, false) => ("healthy", Health::Healthy),
            };
            health = health.max(verdict);
            texts.insert(format!("{name}_status"), word.to_owned());
            for (key, value) in &entry.numbers {
                numbers.insert(format!("{kind}.{name}.{key}"), *value);
            }
        }
        Snapshot { health, numbers, texts }
    }
}

impl Report for Statistics {
    fn snapshot(&self) -> Snapshot {
        self.snapshot_at(Instant::now())
    }
}

// === impl Component ===

impl Component {
    /// Sets these numbers, keeps the others, and counts as a sign of life of the component.
    pub fn report<K: Into<String>>(&self, numbers: impl IntoIterator<Item = (K, f64)>) {
        self.report_at(Instant::now(), numbers);
    }

    /// Says that the component works, or does not although it still reports; the next heartbeat tells it as
    /// `<component>_status`.
    pub fn in_trouble(&self, trouble: bool) {
        if let Some(entry) = self.shared.lock().components.get_mut(&self.key) {
            entry.trouble = trouble;
        }
    }

    fn report_at<K: Into<String>>(&self, now: Instant, numbers: impl IntoIterator<Item = (K, f64)>) {
        let mut state = self.shared.lock();
        let entry = state.components.entry(self.key.clone()).or_insert_with(|| Entry {
            numbers: BTreeMap::new(),
            reported: now,
            trouble: false,
        });
        entry.reported = now;
        entry
            .numbers
            .extend(numbers.into_iter().map(|(key, value)| (key.into(), value)));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete in itself, so a panicking holder leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A count as the protocol's number: exact up to 2^53, which no count here reaches.
#[expect(clippy::cast_precision_loss, reason = "the protocol's numbers are doubles")]
pub(crate) fn count(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seed 001's own test of its statistics, and the names that its `flowctl status` prints.
    #[test]
    fn numbers_carry_type_and_name() {
        let statistics = Statistics::new();
        let source = statistics.component("source", "TestSource");
        source.report([("processed", 100.0), ("errors", 2.0)]);
        statistics
            .component("consumer", "SaveToParquet")
            .report([("files_written", 234.0)]);
        source.report([("processed", 125_000.0)]);
        let snapshot = statistics.snapshot();
        assert_eq!(snapshot.numbers["source.TestSource.processed"], 125_000.0);
        assert_eq!(snapshot.numbers["source.TestSource.errors"], 2.0);
        assert_eq!(snapshot.numbers["consumer.SaveToParquet.files_written"], 234.0);
        assert_eq!(snapshot.numbers["pipeline.component_count"], 2.0);
        assert_eq!(snapshot.numbers["pipeline.uptime_seconds"], 0.0);
        assert_eq!(snapshot.health, Health::Healthy);
    }

    // A component that hangs must not hide behind the pipeline's own heartbeat.
    #[test]
    fn a_silent_component_is_stale_after_30_seconds() {
        let statistics = Statistics::new();
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let [source, sink] = [("source", "S"), ("consumer", "C")].map(|(kind, name)| statistics.component(kind, name));
        source.report_at(begun, [("processed", 1.0)]);
        sink.report_at(after(20), [("written", 1.0)]);
        assert_eq!(statistics.snapshot_at(after(30)).health, Health::Healthy);
        let late = statistics.snapshot_at(after(31));
        assert_eq!(late.health, Health::Unhealthy);
        assert_eq!(late.texts["S_status"], "stale");
        assert_eq!(late.texts["C_status"], "healthy");
        source.report_at(after(32), [("processed", 2.0)]);
        assert_eq!(statistics.snapshot_at(after(33)).health, Health::Healthy);
        sink.in_trouble(true);
        let troubled = statistics.snapshot_at(after(33));
        assert_eq!(
            (troubled.health, troubled.texts["C_status"].as_str()),
            (Health::Degraded, "unhealthy")
        );
    }

    #[test]
    fn a_pipeline_without_components_is_starting_and_then_unhealthy() {
        let statistics = Statistics::new();
        assert_eq!(statistics.snapshot().health, Health::Starting);
        let later = Instant::now() + STALE_AFTER + Duration::from_secs(1);
        assert_eq!(statistics.snapshot_at(later).health, Health::Unhealthy);
    }
}
