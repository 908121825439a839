//! Deployments: the workload of a Streaming pipeline and of a processor.

use flowctl_api::pipeline::{Strategy, StrategyType};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::spec;
use crate::body::Owner;
use crate::{Child, ChildKind};

/// Seconds until a roll-out that makes no progress is told as stuck.
const PROGRESS_DEADLINE: i32 = 600;
/// ReplicaSets that are kept: as many as revisions.
const HISTORY: i32 = 5;

/// What differs between Deployments.
#[derive(Clone, Debug)]
pub(crate) struct Deployment<'a> {
    pub(crate) name: String,
    /// Always sent: somebody else's scale would stand otherwise.
    pub(crate) replicas: i32,
    pub(crate) replacement: Replacement,
    /// Seconds for which a pod must be ready to count.
    pub(crate) min_ready_seconds: i32,
    pub(crate) template: &'a Value,
}

/// How pods are replaced.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Replacement {
    /// The old pod ends first.
    Recreate,
    /// Both bounds are always sent: a bound that the apiserver filled in would stay behind when the type turns to Recreate,
    /// and be refused there.
    Rolling {
        surge: IntOrString,
        unavailable: IntOrString,
    },
}

/// A Deployment.
pub(crate) fn deployment(owner: &Owner, wanted: Deployment<'_>) -> Child {
    let strategy = match wanted.replacement {
        Replacement::Recreate => json!({"type": "Recreate"}),
        Replacement::Rolling { surge, unavailable } => {
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
        }
    };
    let min_ready = (wanted.min_ready_seconds > 0).then_some(wanted.min_ready_seconds);
    let body = json!({
        "replicas": wanted.replicas,
        "selector": {"matchLabels": owner.selector()},
        "strategy": strategy,
        "minReadySeconds": min_ready,
        "progressDeadlineSeconds": PROGRESS_DEADLINE,
        "revisionHistoryLimit": HISTORY,
        "template": wanted.template,
    });
    owner.child(ChildKind::Deployment, wanted.name, owner.labels(), spec(body))
}

// === impl Replacement ===

impl Replacement {
    /// What a Pipeline's strategy asks for; default: Recreate.
    pub(crate) fn of(strategy: Option<&Strategy>) -> Self {
        let strategy = strategy.cloned().unwrap_or_default();
        let bounds = strategy.rolling_update.unwrap_or_default();
        match strategy.kind.unwrap_or_default() {
            StrategyType::Recreate => Replacement::Recreate,
            StrategyType::RollingUpdate => Replacement::Rolling {
                surge: bounds.max_surge.unwrap_or(IntOrString::Int(1)),
                unavailable: bounds.max_unavailable.unwrap_or(IntOrString::Int(0)),
            },
        }
    }

    /// One more pod first, then one fewer: callers never see fewer than they were promised.
    pub(crate) fn surge() -> Self {
        Replacement::Rolling {
            surge: IntOrString::Int(1),
            unavailable: IntOrString::Int(0),
        }
    }
}
