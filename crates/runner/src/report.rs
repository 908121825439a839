//! What a control plane is told about the steps of a pipeline, under the keys of seed 001's detailed status.

use flowctl_bridge::Gate;
use flowctl_sdk::control_plane::{Component, Statistics};
use tokio::sync::watch;

use crate::metrics::{SoFar, StepMetrics};

/// Passes the counts of every step on.
#[derive(Debug)]
pub(crate) struct Reports {
    statistics: Statistics,
    steps: Vec<Step>,
}

/// What a step is, and so what its counts mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Reads ledgers.
    Source,
    /// Makes messages of the source's ledgers, with the source's counts.
    Reader,
    /// A service between source and consumers.
    Processor,
    /// A service at the end.
    Consumer,
    /// Writes to standard output.
    Stream,
    /// Writes a file.
    File,
}

#[derive(Debug)]
struct Step {
    kind: Kind,
    component: Component,
    metrics: StepMetrics,
    /// Of an external step: whether it takes messages.
    gate: Option<watch::Receiver<Gate>>,
    /// Where it stood when it was last looked at.
    seen: Option<SoFar>,
}

// === impl Reports ===

impl Reports {
    pub(crate) fn new(statistics: Statistics) -> Self {
        Self {
            statistics,
            steps: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, kind: Kind, name: &str, metrics: StepMetrics, gate: Option<watch::Receiver<Gate>>) {
        self.steps.push(Step {
            kind,
            component: self.statistics.component(kind.word(), name),
            metrics,
            gate,
            seen: None,
        });
    }

    /// Reports where every step stands now. While messages are under way and nothing moves, no step reports: after a while they
    /// are stale, for nobody can be called healthy in a pipeline that stands. Unless all wait for a service that takes nothing, which
    /// is told as that service's trouble. A step to which nothing comes is none that hangs.
    pub(crate) fn report(&mut self, checkpoint: Option<u32>, under_way: bool) {
        if let Some(ledger) = checkpoint {
            self.statistics.set("checkpoint_ledger", f64::from(ledger));
        }
        let mut has_moved = false;
        for step in &mut self.steps {
            let now = Some(step.metrics.so_far());
            has_moved |= step.seen != now;
            step.seen = now;
        }
        let stands = under_way && !has_moved && !self.steps.iter().any(Step::is_shut);
        for step in &self.steps {
            if !stands {
                step.component.report(step.numbers());
            }
            step.component.in_trouble(step.is_shut());
        }
    }
}

// === impl Step ===

impl Step {
    fn is_shut(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| *gate.borrow() != Gate::Open)
    }

    #[expect(clippy::cast_precision_loss, reason = "the protocol's numbers are doubles")]
    fn numbers(&self) -> Vec<(&'static str, f64)> {
        let so_far = self.metrics.so_far();
        let ledgers = ("processed_ledgers", so_far.received as f64);
        let current = ("current_ledger", so_far.ledger as f64);
        let events = [
            ("successful_events", so_far.sent as f64),
            ("failed_events", so_far.errors as f64),
        ];
        let bytes = ("total_bytes", so_far.written as f64);
        let mut numbers = vec![ledgers];
        match self.kind {
            Kind::Source => numbers.push(current),
            Kind::Reader => {}
            Kind::Processor => {
                numbers.extend(events);
                numbers.push(("filtered_events", so_far.filtered as f64));
            }
            Kind::Consumer => numbers.extend(events),
            Kind::Stream => {
                numbers.extend(events);
                numbers.push(bytes);
            }
            Kind::File => {
                numbers.extend(events);
                let files = f64::from(u8::from(so_far.written > 0));
                numbers.extend([("files_written", files), bytes]);
            }
        }
        numbers
    }
}

// === impl Kind ===

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Reader | Self::Processor => "processor",
            Self::Consumer | Self::Stream | Self::File => "consumer",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flowctl_sdk::control_plane::{Health, Report as _, STALE_AFTER};
    use tokio::time::advance;

    use super::*;
    use crate::metrics::RunnerMetrics;

    // A pipeline that hangs beats all the same: its steps must not be called healthy for that; and one that has nothing to do must.
    #[tokio::test(start_paused = true)]
    async fn steps_of_a_pipeline_that_stands_are_stale() {
        let (statistics, metrics) = (Statistics::new(), RunnerMetrics::default());
        let mut reports = Reports::new(statistics.clone());
        let (open, gate) = watch::channel(Gate::Open);
        reports.add(Kind::Source, "S", metrics.step("S"), None);
        reports.add(Kind::Consumer, "C", metrics.step("C"), Some(gate));
        let mut later = async |under_way| {
            advance(STALE_AFTER / 2 + Duration::from_secs(1)).await;
            reports.report(None, under_way);
            statistics.snapshot().health
        };
        for _ in 0..3 {
            assert_eq!(later(false).await, Health::Healthy);
        }
        // Only the source moves: a filter may leave nothing for the rest.
        for _ in 0..3 {
            metrics.step("S").received();
            assert_eq!(later(true).await, Health::Healthy);
        }
        assert_eq!(later(true).await, Health::Healthy);
        assert_eq!(later(true).await, Health::Unhealthy);
        assert_eq!(statistics.snapshot().texts["C_status"], "stale");
        metrics.step("C").sent();
        assert_eq!(later(true).await, Health::Healthy);
        open.send_replace(Gate::Closed);
        for _ in 0..3 {
            assert_eq!(later(true).await, Health::Degraded);
        }
    }
}
