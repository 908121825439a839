//! What operators read about the registry. Services are counted when somebody asks, so that the numbers are never old.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use flowctl_proto::flowctl::ServiceType;
use flowctl_proto::flowctl::v1::HealthStatus;
use flowctl_runtime::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::names::{liveness_name, status_name, type_name};
use crate::registry::{Beaten, Liveness, Registry};

/// Beats as they come.
#[derive(Clone, Debug)]
pub(crate) struct BeatMetrics {
    gaps: Histogram,
    revived: Counter,
    left_out: Counter,
}

/// Counts services.
#[derive(Debug)]
struct Services(Arc<Registry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct ServiceLabels {
    r#type: &'static str,
    liveness: &'static str,
    status: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct AgeLabels {
    r#type: &'static str,
    quantile: &'static str,
}

// === impl BeatMetrics ===

impl BeatMetrics {
    /// Registers what is told about `registry`.
    pub(crate) fn register(metrics: &Metrics, registry: &Arc<Registry>) -> Self {
        let this = Self {
            // Around the usual intervals (5 and 10 s) and TTLs (30 s), up to an hour's silence.
            gaps: Histogram::new([
                0.5, 1.0, 2.5, 5.0, 7.5, 10.0, 12.5, 15.0, 20.0, 30.0, 60.0, 300.0, 3600.0,
            ]),
            revived: Counter::default(),
            left_out: Counter::default(),
        };
        metrics.register(|all| {
            let ours = all.sub_registry_with_prefix("flowctl_control_plane");
            ours.register(
                "heartbeat_gap_seconds",
                "Time between a heartbeat and the one before it (or the registration)",
                this.gaps.clone(),
            );
            ours.register(
                "services_revived",
                "Heartbeats that ended an expiry",
                this.revived.clone(),
            );
            ours.register(
                "heartbeat_metrics_left_out",
                "Metrics of heartbeats that were left out, because a bound was exceeded or the name is empty",
                this.left_out.clone(),
            );
            all.register_collector(Box::new(Services(Arc::clone(registry))));
        });
        this
    }

    pub(crate) fn beaten(&self, beaten: &Beaten) {
        self.gaps.observe(beaten.gap.as_secs_f64());
        if beaten.was == Liveness::Expired {
            self.revived.inc();
        }
        self.left_out.inc_by(beaten.left_out as u64);
    }
}

// === impl Services ===

impl Collector for Services {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let briefs = self.0.briefs();
        let mut counts: BTreeMap<ServiceLabels, u64> = BTreeMap::new();
        let mut ages: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        for brief in &briefs {
            let labels = labels(brief.service_type, brief.liveness, brief.reported);
            *counts.entry(labels).or_default() += 1;
            if brief.liveness != Liveness::Expired {
                let age = brief.silent_for.as_secs_f64();
                ages.entry(labels.r#type).or_default().push(age);
            }
        }
        let mut family = encoder.encode_descriptor(
            "flowctl_control_plane_services",
            "Services by type, signs of life and what they reported",
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for (labels, count) in &counts {
            ConstGauge::new(*count).encode(family.encode_family(labels)?)?;
        }
        let mut family = encoder.encode_descriptor(
            "flowctl_control_plane_heartbeat_age_seconds",
            "Time since the last heartbeat of services that are not expired: median, 99th percentile and oldest",
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for (kind, ages) in &mut ages {
            ages.sort_unstable_by(f64::total_cmp);
            for (quantile, share) in [("0.5", 0.5), ("0.99", 0.99), ("1", 1.0)] {
                let labels = AgeLabels { r#type: kind, quantile };
                ConstGauge::new(nearest_rank(ages, share)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn labels(kind: ServiceType, liveness: Liveness, status: HealthStatus) -> ServiceLabels {
    ServiceLabels {
        r#type: type_name(kind),
        liveness: liveness_name(liveness),
        status: status_name(status),
    }
}

/// Of sorted values, of which there is at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a rank among the services of one process"
)]
fn nearest_rank(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
