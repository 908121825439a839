//! Everything that the operator knows of the cluster: a store for each kind, who refers to whom, and the queue that is
//! woken when something changes. What is watched, and with which selector, stands here once, beside the rules that the
//! watches need.

use std::{collections::BTreeSet, fmt::Debug};

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_plan::{Key, references};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment, ReplicaSet},
    batch::v1::Job,
    core::v1::{ConfigMap, Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{Resource, core::NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    queue::Queue,
    rbac::Rule,
    references::References,
    store::{Change, Store},
    subject::Subject,
};

/// Children carry this label (`flowctl_api::labels`); pods and ReplicaSets have it from their template.
const OURS: &str = "app.kubernetes.io/managed-by=flowctl-operator";

/// What the watches below need.
pub(crate) const RULES: &[Rule] = &[
    Rule::new("flowctl.dev", &["externalprocessors", "pipelines"], &["list", "watch"]),
    Rule::new("", &["configmaps", "pods", "services"], &["list", "watch"]),
    Rule::new(
        "apps",
        &["controllerrevisions", "deployments", "replicasets"],
        &["list", "watch"],
    ),
    Rule::new("batch", &["jobs"], &["list", "watch"]),
    Rule::new("policy", &["poddisruptionbudgets"], &["list", "watch"]),
];

/// The caches.
#[derive(Debug)]
pub(crate) struct Caches {
    pub(crate) pipelines: Store<Pipeline>,
    pub(crate) processors: Store<ExternalProcessor>,
    pub(crate) config_maps: Store<ConfigMap>,
    pub(crate) revisions: Store<ControllerRevision>,
    pub(crate) services: Store<Service>,
    pub(crate) budgets: Store<PodDisruptionBudget>,
    pub(crate) deployments: Store<Deployment>,
    pub(crate) jobs: Store<Job>,
    pub(crate) replica_sets: Store<ReplicaSet>,
    pub(crate) pods: Store<Pod>,
    pub(crate) references: References,
    pub(crate) queue: Queue<Subject>,
}

/// A kind that is watched.
pub(crate) trait Cached:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// The kind as Kubernetes spells it.
    const KIND: &'static str;
    /// Label selector of the watch.
    const SELECTOR: Option<&'static str>;

    /// Where it is cached.
    fn store(caches: &Caches) -> &Store<Self>;

    /// Wakes whom a change concerns.
    fn changed(caches: &Caches, change: Change);
}

// === impl Caches ===

impl Caches {
    /// Empty caches that wake this queue.
    pub(crate) fn new(queue: Queue<Subject>) -> Self {
        fn controlled<K: Resource>(object: &K) -> Option<Subject> {
            Subject::controlling(object.meta())
        }
        fn labelled<K: Resource>(object: &K) -> Option<Subject> {
            Subject::labelled(object.meta())
        }
        Self {
            // Our own kinds are found by name.
            pipelines: Store::new(|_| None),
            processors: Store::new(|_| None),
            config_maps: Store::new(controlled),
            revisions: Store::new(controlled),
            services: Store::new(controlled),
            budgets: Store::new(controlled),
            deployments: Store::new(controlled),
            jobs: Store::new(controlled),
            replica_sets: Store::new(labelled),
            pods: Store::new(labelled),
            references: References::default(),
            queue,
        }
    }

    /// Wakes all objects of ours in a namespace, and those elsewhere that refer into it; or all of them.
    pub(crate) fn wake_all(&self, namespace: Option<&str>) {
        let referrers = namespace.map(|namespace| self.references.that_lead_to(namespace));
        for referrer in referrers.into_iter().flatten() {
            self.queue.wake(referrer);
        }
        for key in self.pipelines.keys(namespace) {
            self.queue.wake(Subject::pipeline(key));
        }
        for key in self.processors.keys(namespace) {
            self.queue.wake(Subject::processor(key));
        }
    }

    /// An object of ours changed, and what it refers to now is `targets`: it and the processors that it began or ceased
    /// to refer to have something to do.
    fn subject_changed(&self, subject: Subject, targets: BTreeSet<Key>) {
        for target in self.references.set(&subject, targets) {
            self.queue.wake(Subject::processor(target));
        }
        self.queue.wake(subject);
    }
}

impl Cached for Pipeline {
    const KIND: &'static str = "Pipeline";
    const SELECTOR: Option<&'static str> = None;

    fn store(caches: &Caches) -> &Store<Self> {
        &caches.pipelines
    }

    fn changed(caches: &Caches, change: Change) {
        let object = caches.pipelines.get(&change.key).and_then(Result::ok);
        let targets = object
            .map(|object| references::of_pipeline(&object))
            .unwrap_or_default();
        caches.subject_changed(Subject::pipeline(change.key), targets);
    }
}

impl Cached for ExternalProcessor {
    const KIND: &'static str = "ExternalProcessor";
    const SELECTOR: Option<&'static str> = None;

    fn store(caches: &Caches) -> &Store<Self> {
        &caches.processors
    }

    fn changed(caches: &Caches, change: Change) {
        let object = caches.processors.get(&change.key).and_then(Result::ok);
        let targets = object.as_deref().map(references::of_processor).unwrap_or_default();
        for referrer in caches.references.show(&change.key, object.as_deref()) {
            caches.queue.wake(referrer);
        }
        caches.subject_changed(Subject::processor(change.key), targets);
    }
}

macro_rules! child {
    ($($kind:ident in $store:ident,)*) => {$(
        impl Cached for $kind {
            const KIND: &'static str = stringify!($kind);
            const SELECTOR: Option<&'static str> = Some(OURS);

            fn store(caches: &Caches) -> &Store<Self> {
                &caches.$store
            }

            fn changed(caches: &Caches, change: Change) {
                for subject in change.belongs {
                    caches.queue.wake(subject);
                }
            }
        }
    )*};
}

child! {
    ConfigMap in config_maps,
    ControllerRevision in revisions,
    Service in services,
    PodDisruptionBudget in budgets,
    Deployment in deployments,
    Job in jobs,
    ReplicaSet in replica_sets,
    Pod in pods,
}
