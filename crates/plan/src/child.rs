//! Children as data: kind, name, and the JSON that is applied. JSON rather than types, because what is compared, hashed
//! and sent is exactly what we set, and a typed round trip would drop fields that it does not know.

use std::fmt;

use serde_json::Value;

/// The kinds of objects that the operator owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChildKind {
    /// The pipeline file of one revision; immutable.
    ConfigMap,
    /// The rendered pod template of one revision; immutable.
    ControllerRevision,
    /// How pods are reached.
    Service,
    /// How many pods may be evicted at once.
    PodDisruptionBudget,
    /// A workload that runs for ever.
    Deployment,
    /// A workload that ends.
    Job,
}

/// Names a child; the namespace is its owner's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildRef {
    /// Its kind.
    pub kind: ChildKind,
    /// Its name.
    pub name: String,
}

/// An object that must exist.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its kind and name.
    pub id: ChildRef,
    /// The whole apply configuration (apiVersion, kind, metadata with owner reference and labels, spec or data): only
    /// fields that we set, never an empty list or map, never null. The annotation with the hash is added by
    /// [`Child::sealed`].
    pub body: Value,
}

// === impl ChildKind ===

impl ChildKind {
    /// Every kind, in apply order.
    pub const ALL: [ChildKind; 6] = [
        ChildKind::ConfigMap,
        ChildKind::ControllerRevision,
        ChildKind::Service,
        ChildKind::PodDisruptionBudget,
        ChildKind::Deployment,
        ChildKind::Job,
    ];

    /// The kind as Kubernetes spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ChildKind::ConfigMap => "ConfigMap",
            ChildKind::ControllerRevision => "ControllerRevision",
            ChildKind::Service => "Service",
            ChildKind::PodDisruptionBudget => "PodDisruptionBudget",
            ChildKind::Deployment => "Deployment",
            ChildKind::Job => "Job",
        }
    }

    /// The kind's `apiVersion`.
    pub const fn api_version(self) -> &'static str {
        match self {
            ChildKind::ConfigMap | ChildKind::Service => "v1",
            ChildKind::ControllerRevision | ChildKind::Deployment => "apps/v1",
            ChildKind::PodDisruptionBudget => "policy/v1",
            ChildKind::Job => "batch/v1",
        }
    }

    /// Whether an object of this kind is written once and never changed: created, not applied. A Job is applied: its
    /// template and its failure policy are immutable, and come from a stored revision, but `suspend`, `backoffLimit` and
    /// `activeDeadlineSeconds` may change while it runs.
    pub const fn write_once(self) -> bool {
        match self {
            ChildKind::ConfigMap | ChildKind::ControllerRevision => true,
            ChildKind::Service | ChildKind::PodDisruptionBudget | ChildKind::Deployment | ChildKind::Job => false,
        }
    }
}

// === impl ChildRef ===

impl fmt::Display for ChildRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}
