//! Everything that a decision may depend on, gathered before it is taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use flowctl_api::{ControlPlane, ExternalProcessor, Pipeline};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment, ReplicaSet},
    batch::v1::Job,
    core::v1::{ConfigMap, Pod, Service},
    policy::v1::PodDisruptionBudget,
};

use crate::{ChildKind, ChildRef, heartbeat::Heartbeats};

/// Namespace and name of an object of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The operator's own configuration, as far as it shapes children.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Runner image for new revisions of Pipelines with flavor Runner.
    pub runner_image: String,
    /// `imagePullPolicy` of new revisions; `None`: Kubernetes' default.
    pub image_pull_policy: Option<String>,
    /// Control plane of objects that name none.
    pub control_plane: Option<ControlPlane>,
    /// What a `spec.controlPlane.endpoint` may be besides a Service in the cluster: host names, or `*.suffix`.
    pub allowed_control_planes: Vec<String>,
    /// What a merged pod template may ask for.
    pub pod_security: PodSecurity,
    /// DNS domain of the cluster, usually `cluster.local`.
    pub cluster_domain: String,
    /// Namespaces that the operator works for; empty: all of them.
    pub watched_namespaces: Vec<String>,
}

/// The pod security level that pod templates are held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodSecurity {
    /// Pod security standard "restricted".
    #[default]
    Restricted,
    /// Pod security standard "baseline".
    Baseline,
}

/// What a pass over a Pipeline saw.
#[derive(Clone, Debug)]
pub struct PipelineObserved {
    /// The Pipeline itself, its published status included.
    pub object: Arc<Pipeline>,
    /// Those of the ExternalProcessors that it refers to which exist, granted or not.
    pub processors: BTreeMap<Key, Arc<ExternalProcessor>>,
    /// Namespaces that it refers into and that cannot be read at present: what is not found there may exist.
    pub unread: BTreeSet<String>,
    /// Its live children.
    pub children: Children,
    /// What is known about its heartbeats.
    pub heartbeats: Heartbeats,
    /// The operator's configuration.
    pub settings: Arc<Settings>,
    /// The instant of the pass.
    pub now: Timestamp,
}

/// What a pass over an ExternalProcessor saw.
#[derive(Clone, Debug)]
pub struct ProcessorObserved {
    /// The ExternalProcessor itself, its published status included.
    pub object: Arc<ExternalProcessor>,
    /// Those of the upstreams in `connections` which exist, granted or not.
    pub upstreams: BTreeMap<Key, Arc<ExternalProcessor>>,
    /// Namespaces that it refers into and that cannot be read at present: what is not found there may exist.
    pub unread: BTreeSet<String>,
    /// How many Pipelines and ExternalProcessors refer to it, with a grant.
    pub used_by: usize,
    /// Its live children.
    pub children: Children,
    /// What is known about its heartbeats.
    pub heartbeats: Heartbeats,
    /// The operator's configuration.
    pub settings: Arc<Settings>,
    /// The instant of the pass.
    pub now: Timestamp,
}

/// Live objects that the object owns (by controller reference), and what they own in turn.
#[derive(Clone, Debug, Default)]
pub struct Children {
    /// Pipeline files.
    pub config_maps: Vec<Arc<ConfigMap>>,
    /// Rendered pod templates.
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// Services.
    pub services: Vec<Arc<Service>>,
    /// Disruption budgets.
    pub budgets: Vec<Arc<PodDisruptionBudget>>,
    /// Deployments.
    pub deployments: Vec<Arc<Deployment>>,
    /// Jobs.
    pub jobs: Vec<Arc<Job>>,
    /// ReplicaSets of the Deployments.
    pub replica_sets: Vec<Arc<ReplicaSet>>,
    /// Pods that carry the owner's selector labels (kind and name), whoever owns them: a pod outlives the Job or
    /// ReplicaSet that made it, and a new copy of a pipeline must not start before the old one is gone.
    pub pods: Vec<Arc<Pod>>,
}

/// What came of a plan.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The children after the writes: each answer of the apiserver in the place of what was observed.
    pub children: Children,
    /// Writes that did not succeed. What comes after a failed write in a plan is not tried.
    pub failures: Vec<Failure>,
}

/// A write that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The child.
    pub child: ChildRef,
    /// Why.
    pub kind: FailureKind,
}

/// Why a write did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// An object of that name exists and is not ours; `owner` says whose it is, in words for a person.
    NameConflict {
        /// `Deployment web`, `Helm release x`, `no owner, created by kubectl`, and the like.
        owner: String,
    },
    /// Another field manager keeps setting a field of ours.
    FieldConflict {
        /// The manager's name.
        manager: String,
        /// The apiserver's message.
        message: String,
    },
    /// It was written several times, and somebody whom the apiserver does not name undid it each time: it is left as it
    /// is for a while.
    Undone {
        /// What that somebody keeps doing: `deleting it`, `changing spec.selector back`.
        by: String,
    },
    /// The apiserver refused it, and will again: 400, 403, 404, 413, 422.
    Refused {
        /// HTTP status.
        code: u16,
        /// The apiserver's message.
        message: String,
    },
    /// It may work the next time: 409, 429, 5xx, a timeout, no connection.
    Retry {
        /// What happened.
        message: String,
    },
}

// === impl Key ===

impl Key {
    /// A key from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl Children ===

impl Children {
    /// Whether a child of that kind and name is among them.
    pub fn contains(&self, id: &ChildRef) -> bool {
        fn any<K: kube::ResourceExt>(items: &[Arc<K>], name: &str) -> bool {
            items.iter().any(|item| item.meta().name.as_deref() == Some(name))
        }
        match id.kind {
            ChildKind::ConfigMap => any(&self.config_maps, &id.name),
            ChildKind::ControllerRevision => any(&self.revisions, &id.name),
            ChildKind::Service => any(&self.services, &id.name),
            ChildKind::PodDisruptionBudget => any(&self.budgets, &id.name),
            ChildKind::Deployment => any(&self.deployments, &id.name),
            ChildKind::Job => any(&self.jobs, &id.name),
        }
    }
}
