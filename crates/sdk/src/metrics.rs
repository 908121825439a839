//! What a service counts, under the names that every component of a pipeline uses (`received`, `sent`, `errors`,
//! `discarded`). Every received message is counted exactly once more when it ends, so the sums agree.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flowctl_runtime::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::control_plane::count;

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Forwarded or consumed.
    Sent,
    /// Answered with an error, a panic included.
    Error,
    /// Ended on purpose.
    Skipped,
    /// To come again.
    Retry,
    /// Given up by the caller, or by us at the end of the grace period.
    Cancelled,
}

/// The counters of one service, shared by clones.
#[derive(Debug, Clone)]
pub(crate) struct ServiceMetrics {
    received: Counter,
    sent: Counter,
    errors: Counter,
    discarded: Family<Discarded, Counter>,
    in_flight: Gauge,
    seconds: Histogram,
    last_took: Arc<AtomicU64>,
}

/// A message that was received and not yet counted as anything else; dropped without a verdict it was cancelled.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    metrics: &'a ServiceMetrics,
    verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Discarded {
    /// Whether dropping the message was what the author wanted: `true` or `false`.
    intentional: &'static str,
    reason: &'static str,
}

// === impl ServiceMetrics ===

impl ServiceMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        // From a lookup in memory to a call that somebody's timeout (30 s unless set) ends.
        let buckets = [
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        ];
        let this = Self {
            received: Counter::default(),
            sent: Counter::default(),
            errors: Counter::default(),
            discarded: Family::default(),
            in_flight: Gauge::default(),
            seconds: Histogram::new(buckets),
            last_took: Arc::default(),
        };
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("flowctl");
            registry.register("received", "Messages received", this.received.clone());
            registry.register("sent", "Messages forwarded or consumed", this.sent.clone());
            registry.register("errors", "Messages answered with an error", this.errors.clone());
            registry.register(
                "discarded",
                "Messages that were neither sent nor an error",
                this.discarded.clone(),
            );
            registry.register(
                "in_flight_messages",
                "Messages received and not yet answered",
                this.in_flight.clone(),
            );
            registry.register(
                "processing_seconds",
                "Time in the processor or consumer, without waiting for a free place",
                this.seconds.clone(),
            );
        });
        this
    }

    pub(crate) fn received(&self) -> Received<'_> {
        self.received.inc();
        self.in_flight.inc();
        Received {
            metrics: self,
            verdict: Verdict::Cancelled,
        }
    }

    /// What a heartbeat says, under the names that the real components use (seed 002, phase 2).
    pub(crate) fn reported(&self) -> [(String, f64); 6] {
        let in_flight = u64::try_from(self.in_flight.get()).unwrap_or(0);
        let skipped = Discarded {
            intentional: "true",
            reason: "skipped",
        };
        let skipped = self.discarded.get(&skipped).map_or(0, |counter| counter.get());
        let micros = self.last_took.load(Ordering::Relaxed);
        [
            ("total_processed", count(self.received.get())),
            ("success_count", count(self.sent.get())),
            ("error_count", count(self.errors.get())),
            ("skipped_count", count(skipped)),
            ("in_flight", count(in_flight)),
            ("processing_latency_ms", count(micros) / 1000.0),
        ]
        .map(|(key, value)| (key.to_owned(), value))
    }

    pub(crate) fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.last_took.store(micros, Ordering::Relaxed);
        self.seconds.observe(time.as_secs_f64());
    }

    fn discard(&self, intentional: bool, reason: &'static str) {
        let intentional = if intentional { "true" } else { "false" };
        self.discarded.get_or_create(&Discarded { intentional, reason }).inc();
    }
}

// === impl Received ===

impl Received<'_> {
    pub(crate) fn ended(mut self, verdict: Verdict) {
        self.verdict = verdict;
    }
}

impl Drop for Received<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        match self.verdict {
            Verdict::Sent => {
                self.metrics.sent.inc();
            }
            Verdict::Error => {
                self.metrics.errors.inc();
            }
            Verdict::Skipped => self.metrics.discard(true, "skipped"),
            Verdict::Retry => self.metrics.discard(false, "retry"),
            Verdict::Cancelled => self.metrics.discard(false, "cancelled"),
        }
    }
}
