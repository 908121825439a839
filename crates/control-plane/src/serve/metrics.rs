//! What the transport counts. Labels come from the protocols that are served, never from what a client sends: a client
//! cannot make a new series.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use flowctl_runtime::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::Code;

/// Connections of the gRPC port.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionMetrics {
    pub(crate) open: Gauge,
    pub(crate) refused: Counter,
    pub(crate) failed_handshakes: Counter,
}

/// Looks at TLS files that found something new.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsMetrics {
    pub(crate) replaced: Counter,
    pub(crate) broken: Gauge,
}

/// Calls, by method and code.
#[derive(Clone, Debug)]
pub(crate) struct RpcMetrics {
    methods: Arc<HashMap<String, Arc<Method>>>,
    other: Arc<Method>,
    pub(crate) panics: Counter,
}

/// One method of a protocol that is served.
#[derive(Debug)]
pub(crate) struct Method {
    labels: MethodLabel,
    shape: Shape,
    by_code: [OnceLock<Histogram>; CODES],
    seconds: Family<CallLabels, Histogram, fn() -> Histogram>,
    pub(crate) streams: Gauge,
}

/// Whether a call is one question and one answer. How long a stream lasted says nothing about us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Unary,
    Stream,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabel {
    method: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: String,
    code: &'static str,
}

/// gRPC has 17 codes.
const CODES: usize = 17;
/// For whatever is asked for and not served.
const OTHER: &str = "other";

fn buckets() -> Histogram {
    // From a beat (tens of microseconds) to a token review that an overloaded apiserver delays.
    Histogram::new([
        0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
    ])
}

// === impl ConnectionMetrics ===

impl ConnectionMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("flowctl_control_plane");
            registry.register("connections", "Open connections", this.open.clone());
            registry.register(
                "connections_refused",
                "Connections closed at once because too many were open",
                this.refused.clone(),
            );
            registry.register(
                "tls_handshakes_failed",
                "Connections that ended before TLS was agreed on",
                this.failed_handshakes.clone(),
            );
        });
        this
    }
}

// === impl TlsMetrics ===

impl TlsMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("flowctl_control_plane");
            registry.register(
                "tls_reloads",
                "Times that new TLS files were taken into use",
                this.replaced.clone(),
            );
            registry.register(
                "tls_files_broken",
                "1 while the TLS files cannot be used and earlier ones serve",
                this.broken.clone(),
            );
        });
        this
    }
}

// === impl RpcMetrics ===

impl RpcMetrics {
    /// Methods are those of the descriptor sets.
    pub(crate) fn register(metrics: &Metrics, descriptors: &[&[u8]]) -> Self {
        let seconds: Family<CallLabels, Histogram, fn() -> Histogram> = Family::new_with_constructor(buckets);
        let streams: Family<MethodLabel, Gauge> = Family::default();
        let panics = Counter::default();
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("flowctl_control_plane");
            registry.register(
                "rpc_seconds",
                "Time from a call's arrival to its last byte; 0 for streams, which are only counted",
                seconds.clone(),
            );
            registry.register("rpc_streams", "Open streams", streams.clone());
            registry.register("panics", "Calls that ended in a panic", panics.clone());
        });
        let method = |name: &str, shape| {
            let labels = MethodLabel {
                method: name.to_owned(),
            };
            let open = match shape {
                Shape::Stream => streams.get_or_create(&labels).clone(),
                Shape::Unary => Gauge::default(),
            };
            Arc::new(Method {
                labels,
                shape,
                by_code: [const { OnceLock::new() }; CODES],
                seconds: seconds.clone(),
                streams: open,
            })
        };
        let methods = served(descriptors)
            .into_iter()
            .map(|(name, shape)| (format!("/{name}"), method(&name, shape)))
            .collect();
        Self {
            methods: Arc::new(methods),
            other: method(OTHER, Shape::Unary),
            panics,
        }
    }

    pub(crate) fn method(&self, path: &str) -> Arc<Method> {
        Arc::clone(self.methods.get(path).unwrap_or(&self.other))
    }
}

/// `package.Service/Method` of every method in the sets. A set that cannot be read has none: it was compiled in.
fn served(descriptors: &[&[u8]]) -> Vec<(String, Shape)> {
    let mut found = Vec::new();
    for file in descriptors
        .iter()
        .filter_map(|set| FileDescriptorSet::decode(*set).ok())
        .flat_map(|set| set.file)
    {
        for service in &file.service {
            for method in &service.method {
                let streams = method.client_streaming() || method.server_streaming();
                let shape = if streams { Shape::Stream } else { Shape::Unary };
                found.push((
                    format!("{}.{}/{}", file.package(), service.name(), method.name()),
                    shape,
                ));
            }
        }
    }
    found
}

// === impl Method ===

impl Method {
    pub(crate) fn name(&self) -> &str {
        &self.labels.method
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn ended(&self, code: Code, took: Duration) {
        let seconds = match self.shape {
            Shape::Unary => took.as_secs_f64(),
            Shape::Stream => 0.0,
        };
        // The discriminant is the number on the wire.
        let index = (code as usize).min(CODES - 1);
        self.by_code[index]
            .get_or_init(|| {
                let labels = CallLabels {
                    method: self.labels.method.clone(),
                    code: name_of(code),
                };
                self.seconds.get_or_create(&labels).clone()
            })
            .observe(seconds);
    }
}

/// As gRPC's own documentation writes it.
pub(crate) fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
