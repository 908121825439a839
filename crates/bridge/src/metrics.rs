//! What the bridge counts. Labels are the step's name and the endpoint as configured, never an
//! address of a pod: label values must not grow with time.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::window::WindowGauges;

/// Metrics of all external steps of one process. Clones share the numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    attempts: Family<AttemptLabels, Counter>,
    latency: Family<LatencyLabels, Histogram>,
    spurious: Family<StepLabels, Counter>,
    redeliveries: Family<StepLabels, Counter>,
    reopened: Family<StepLabels, Counter>,
    endpoint_up: Family<EndpointLabels, Gauge>,
    endpoint_addresses: Family<EndpointLabels, Gauge>,
    in_flight_messages: Family<StepLabels, Gauge>,
    in_flight_bytes: Family<StepLabels, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabels {
    step: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AttemptLabels {
    step: String,
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EndpointLabels {
    step: String,
    endpoint: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LatencyLabels {
    step: String,
    endpoint: String,
    code: String,
}

/// The metrics of one step.
#[derive(Clone, Debug)]
pub(crate) struct StepMetrics {
    all: Metrics,
    step: String,
    endpoint: String,
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        Self {
            attempts: Family::default(),
            // 1 ms to about 4 minutes.
            latency: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 4.0, 10))),
            spurious: Family::default(),
            redeliveries: Family::default(),
            reopened: Family::default(),
            endpoint_up: Family::default(),
            endpoint_addresses: Family::default(),
            in_flight_messages: Family::default(),
            in_flight_bytes: Family::default(),
        }
    }
}

impl Metrics {
    /// Adds the metrics to a registry. Names get the registry's prefix.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "attempts",
            "Attempts to deliver a message to an external step, by the gRPC code they ended with",
            self.attempts.clone(),
        );
        registry.register(
            "call_duration_seconds",
            "Time from sending a message to the answer, by the gRPC code",
            self.latency.clone(),
        );
        registry.register(
            "spurious_answers",
            "Answers whose id is unknown or was answered before",
            self.spurious.clone(),
        );
        registry.register(
            "redeliveries",
            "Messages that a consumer asked to get again (RETRY)",
            self.redeliveries.clone(),
        );
        registry.register(
            "streams_reopened",
            "Streams that were opened again after the first one",
            self.reopened.clone(),
        );
        registry.register(
            "endpoint_up",
            "1 while messages flow to the endpoint, 0 while they are held",
            self.endpoint_up.clone(),
        );
        registry.register(
            "endpoint_addresses",
            "Addresses behind the endpoint's name that serve",
            self.endpoint_addresses.clone(),
        );
        registry.register(
            "step_in_flight_messages",
            "Messages inside an external step",
            self.in_flight_messages.clone(),
        );
        registry.register(
            "step_in_flight_bytes",
            "Payload bytes inside an external step",
            self.in_flight_bytes.clone(),
        );
    }

    pub(crate) fn of(&self, step: &str, endpoint: &str) -> StepMetrics {
        StepMetrics {
            all: self.clone(),
            step: step.to_owned(),
            endpoint: endpoint.to_owned(),
        }
    }
}

// === impl StepMetrics ===

impl StepMetrics {
    fn step(&self) -> StepLabels {
        StepLabels {
            step: self.step.clone(),
        }
    }

    fn endpoint(&self) -> EndpointLabels {
        EndpointLabels {
            step: self.step.clone(),
            endpoint: self.endpoint.clone(),
        }
    }

    pub(crate) fn attempt(&self, code: &str, seconds: f64) {
        self.all
            .attempts
            .get_or_create(&AttemptLabels {
                step: self.step.clone(),
                code: code.to_owned(),
            })
            .inc();
        self.all
            .latency
            .get_or_create(&LatencyLabels {
                step: self.step.clone(),
                endpoint: self.endpoint.clone(),
                code: code.to_owned(),
            })
            .observe(seconds);
    }

    pub(crate) fn spurious(&self) {
        self.all.spurious.get_or_create(&self.step()).inc();
    }

    pub(crate) fn redelivery(&self) {
        self.all.redeliveries.get_or_create(&self.step()).inc();
    }

    pub(crate) fn reopened(&self) {
        self.all.reopened.get_or_create(&self.step()).inc();
    }

    pub(crate) fn addresses(&self, serving: usize) {
        let labels = self.endpoint();
        let serving = i64::try_from(serving).unwrap_or(i64::MAX);
        self.all.endpoint_addresses.get_or_create(&labels).set(serving);
        self.all.endpoint_up.get_or_create(&labels).set(i64::from(serving > 0));
    }

    pub(crate) fn window(&self) -> WindowGauges {
        WindowGauges {
            messages: self.all.in_flight_messages.get_or_create_owned(&self.step()),
            bytes: self.all.in_flight_bytes.get_or_create_owned(&self.step()),
        }
    }
}
