//! What `/metrics` tells of control planes and of what reports to them, counted at each scrape. Labels are bounded: as many
//! control planes as are read, and as many series of components' measurements as [`MOST_SERIES`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use flowctl_plan::heartbeat::PlaneState;
use flowctl_runtime::Metrics as Registry;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, counter::Counter, family::Family, gauge::ConstGauge},
    registry::Unit,
};

use super::{Hub, plane::Plane};
use crate::subject::Subject;

/// Series of `component_metric`: what a small Prometheus takes without being asked.
const MOST_SERIES: usize = 10_000;
const QUANTILES: [(&str, f64); 3] = [("0.5", 0.5), ("0.99", 0.99), ("1", 1.0)];

/// Calls to control planes, shared by clones.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls(Family<Call, Counter>);

/// Counts when it is asked.
#[derive(Debug)]
struct Scrape {
    hub: Hub,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    call: &'static str,
    outcome: &'static str,
}

/// A control plane, and who chose it: an object may name the administrator's with a certificate that is not its.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    control_plane: String,
    named_by: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet)]
struct Standing {
    control_plane: String,
    named_by: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet)]
struct Age {
    control_plane: String,
    named_by: &'static str,
    quantile: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet)]
struct Component {
    kind: &'static str,
    namespace: String,
    name: String,
    component: String,
    key: String,
}

// === impl Calls ===

impl Calls {
    pub(super) fn answered(&self, call: &'static str) {
        self.count(call, "answered");
    }

    pub(super) fn not_offered(&self, call: &'static str) {
        self.count(call, "not_offered");
    }

    pub(super) fn failed(&self, call: &'static str) {
        self.count(call, "failed");
    }

    fn count(&self, call: &'static str, outcome: &'static str) {
        self.0.get_or_create(&Call { call, outcome }).inc();
    }
}

/// Tells of what the hub reads.
pub(super) fn register(registry: &Registry, hub: Hub, calls: &Calls) {
    registry.register(|registry| {
        let into = registry.sub_registry_with_prefix("flowctl_operator");
        let help = "Calls to control planes, by what came of them";
        into.register("control_plane_calls", help, calls.0.clone());
        into.register_collector(Box::new(Scrape { hub }));
    });
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let planes = self.hub.planes();
        standings(&planes, &mut encoder)?;
        ages(&planes, &mut encoder)?;
        numbers(&planes, &mut encoder)
    }
}

fn standings(planes: &[Arc<Plane>], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "1 for the state that each control plane is in";
    let mut family = encoder.encode_descriptor("control_plane_state", help, None, MetricType::Gauge)?;
    // Objects may name one with several certificates.
    let all: BTreeSet<_> = planes
        .iter()
        .map(|plane| (named(plane), name(&plane.state())))
        .collect();
    for (
        Name {
            control_plane,
            named_by,
        },
        state,
    ) in all
    {
        let labels = Standing {
            control_plane,
            named_by,
            state,
        };
        ConstGauge::new(1_u64).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn ages(planes: &[Arc<Plane>], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Since the last beat of the components that are expected at a control plane";
    let unit = Unit::Seconds;
    let mut family = encoder.encode_descriptor("heartbeat_age", help, Some(&unit), MetricType::Gauge)?;
    let mut all: BTreeMap<Name, Vec<f64>> = BTreeMap::new();
    for plane in planes {
        all.entry(named(plane)).or_default().extend(plane.ages());
    }
    for (name, mut ages) in all {
        ages.sort_unstable_by(f64::total_cmp);
        for (quantile, part) in QUANTILES {
            let Some(age) = at(&ages, part) else { continue };
            let labels = Age {
                control_plane: name.control_plane.clone(),
                named_by: name.named_by,
                quantile,
            };
            ConstGauge::new(age).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn named(plane: &Plane) -> Name {
    Name {
        control_plane: plane.address.endpoint.clone(),
        named_by: if plane.is_default { "administrator" } else { "object" },
    }
}

fn numbers(planes: &[Arc<Plane>], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut shown = Vec::new();
    let mut left_out: u64 = 0;
    for plane in planes {
        plane.each_number(|subject, component, key, value| {
            if shown.len() < MOST_SERIES {
                shown.push((labels(subject, component, key), value));
            } else {
                left_out += 1;
            }
        });
    }
    let help = "What components measure and report with their beats, of the keys that are allowed";
    let mut family = encoder.encode_descriptor("component_metric", help, None, MetricType::Gauge)?;
    for (labels, value) in &shown {
        ConstGauge::new(*value).encode(family.encode_family(labels)?)?;
    }
    let help = "Measurements of components that are not shown because there are too many";
    let family = encoder.encode_descriptor("component_metrics_left_out", help, None, MetricType::Gauge)?;
    ConstGauge::new(left_out).encode(family)
}

fn labels(subject: &Subject, component: &str, key: &str) -> Component {
    Component {
        kind: subject.kind.as_str(),
        namespace: subject.key.namespace.clone(),
        name: subject.key.name.clone(),
        component: component.to_owned(),
        key: key.to_owned(),
    }
}

/// The value below which this part of the sorted values lies.
fn at(sorted: &[f64], part: f64) -> Option<f64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into what is in memory"
    )]
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The state as a label and as a word.
pub(super) fn name(state: &PlaneState) -> &'static str {
    match state {
        PlaneState::Connecting => "connecting",
        PlaneState::Good => "good",
        PlaneState::Unreachable { .. } => "unreachable",
        PlaneState::Reset => "reset",
        PlaneState::Suspect { .. } => "suspect",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A dashboard that shows the oldest beat must not show the second oldest.
    #[test]
    fn quantiles_are_of_what_was_seen() {
        let ages: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(at(&ages, 0.5), Some(50.0));
        assert_eq!(at(&ages, 0.99), Some(99.0));
        assert_eq!(at(&ages, 1.0), Some(100.0));
        assert_eq!((at(&[7.0], 0.5), at(&[], 1.0)), (Some(7.0), None));
    }
}
