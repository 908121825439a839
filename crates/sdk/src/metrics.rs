//! What a service counts, under the names that every component of a pipeline uses (`received`, `sent`, `errors`,
//! `discarded`). Every received message is counted exactly once more when it ends, so the sums agree.

use std::time::Duration;

use flowctl_runtime::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

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

    pub(crate) fn took(&self, time: Duration) {
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
