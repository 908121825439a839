//! What the runner counts, by step. Names get the prefix `cdp_pipeline_` from the registry.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use flowctl_bridge::WindowGauges;

/// Metrics of one pipeline. Clones share the numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunnerMetrics {
    received: Family<StepLabels, Counter>,
    sent: Family<StepLabels, Counter>,
    errors: Family<StepLabels, Counter>,
    discarded: Family<DiscardLabels, Counter>,
    written: Family<StepLabels, Counter>,
    pub(crate) window: WindowGauges,
    pub(crate) checkpoint_ledger: Gauge,
    source_ledger: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabels {
    step: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DiscardLabels {
    step: String,
    intentional: String,
    reason: String,
}

/// Metrics of one step.
#[derive(Clone, Debug)]
pub(crate) struct StepMetrics {
    received: Counter,
    sent: Counter,
    errors: Counter,
    filtered: Counter,
    written: Counter,
    source_ledger: Gauge,
}

/// What a step has done until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SoFar {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) errors: u64,
    pub(crate) filtered: u64,
    /// Bytes.
    pub(crate) written: u64,
    /// Last ledger that entered the pipeline.
    pub(crate) ledger: i64,
}

// === impl RunnerMetrics ===

impl RunnerMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("received", "Messages that came into a step", self.received.clone());
        registry.register("sent", "Messages that left a step", self.sent.clone());
        registry.register("errors", "Messages on which a step failed", self.errors.clone());
        registry.register(
            "discarded",
            "Messages that ended in a step without being passed on",
            self.discarded.clone(),
        );
        registry.register(
            "written_bytes",
            "Bytes that a step of the runner's own wrote",
            self.written.clone(),
        );
        registry.register(
            "in_flight_messages",
            "Messages between the source and the last acknowledgement",
            self.window.messages.clone(),
        );
        registry.register(
            "in_flight_bytes",
            "Payload bytes between the source and the last acknowledgement",
            self.window.bytes.clone(),
        );
        registry.register(
            "checkpoint_ledger",
            "Last ledger up to which everything is acknowledged",
            self.checkpoint_ledger.clone(),
        );
        registry.register(
            "source_ledger",
            "Last ledger that entered the pipeline",
            self.source_ledger.clone(),
        );
    }

    pub(crate) fn step(&self, name: &str) -> StepMetrics {
        let labels = StepLabels { step: name.to_owned() };
        let filtered = DiscardLabels {
            step: name.to_owned(),
            intentional: "true".to_owned(),
            reason: "skipped".to_owned(),
        };
        StepMetrics {
            received: self.received.get_or_create_owned(&labels),
            sent: self.sent.get_or_create_owned(&labels),
            errors: self.errors.get_or_create_owned(&labels),
            filtered: self.discarded.get_or_create_owned(&filtered),
            written: self.written.get_or_create_owned(&labels),
            source_ledger: self.source_ledger.clone(),
        }
    }
}

// === impl StepMetrics ===

impl StepMetrics {
    pub(crate) fn received(&self) {
        self.received.inc();
    }

    pub(crate) fn sent(&self) {
        self.sent.inc();
    }

    pub(crate) fn failed(&self) {
        self.errors.inc();
    }

    pub(crate) fn filtered(&self) {
        self.filtered.inc();
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        self.written.inc_by(bytes as u64);
    }

    pub(crate) fn so_far(&self) -> SoFar {
        SoFar {
            received: self.received.get(),
            sent: self.sent.get(),
            errors: self.errors.get(),
            filtered: self.filtered.get(),
            written: self.written.get(),
            ledger: self.source_ledger.get(),
        }
    }

    pub(crate) fn at(&self, ledger: u32) {
        self.source_ledger.set(i64::from(ledger));
    }
}
