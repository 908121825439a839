//! What a control plane is told about the steps of a pipeline, under the keys of seed 001's detailed status.

use flowctl_bridge::Gate;
use flowctl_sdk::control_plane::{Component, Statistics};
use tokio::sync::watch;

use crate::metrics::StepMetrics;

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
        });
    }

    /// Reports where every step stands now.
    pub(crate) fn report(&self, checkpoint: Option<u32>) {
        if let Some(ledger) = checkpoint {
            self.statistics.set("checkpoint_ledger", f64::from(ledger));
        }
        for step in &self.steps {
            step.component.report(step.numbers());
            let shut = step.gate.as_ref().is_some_and(|gate| *gate.borrow() != Gate::Open);
            step.component.in_trouble(shut);
        }
    }
}

// === impl Step ===

impl Step {
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
