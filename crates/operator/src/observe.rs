//! Gathers what a decision may depend on, from the caches alone: it sends no request, so a pass over a converged object
//! costs the apiserver nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_plan::{
    Children, Key, PipelineObserved, ProcessorObserved, Settings,
    heartbeat::{asked_by_pipeline, asked_by_processor},
    references,
};
use jiff::Timestamp;
use kube::Resource;

use crate::{
    caches::Caches,
    heartbeats::Hub,
    ownership::Master,
    places::Places,
    subject::{Subject, controller},
};

/// What a pass over a Pipeline sees.
pub(crate) fn pipeline(
    caches: &Caches,
    places: &Places,
    heartbeats: &Hub,
    settings: &Arc<Settings>,
    subject: &Subject,
    master: &Master,
    object: Arc<Pipeline>,
) -> PipelineObserved {
    let targets = references::of_pipeline(&object);
    let children = children(caches, subject, master);
    let asked = asked_by_pipeline(&object, &children.pods, settings);
    PipelineObserved {
        heartbeats: heartbeats.look(subject, asked),
        unread: unread(places, &targets),
        processors: processors(caches, targets),
        children,
        settings: Arc::clone(settings),
        now: Timestamp::now(),
        object,
    }
}

/// What a pass over an ExternalProcessor sees.
pub(crate) fn processor(
    caches: &Caches,
    places: &Places,
    heartbeats: &Hub,
    settings: &Arc<Settings>,
    subject: &Subject,
    master: &Master,
    object: Arc<ExternalProcessor>,
) -> ProcessorObserved {
    let referrers = caches.references.of(&subject.key);
    let targets = references::of_processor(&object);
    let children = children(caches, subject, master);
    let asked = asked_by_processor(&object, &children.pods, settings);
    ProcessorObserved {
        heartbeats: heartbeats.look(subject, asked),
        unread: unread(places, &targets),
        upstreams: processors(caches, targets),
        used_by: referrers
            .iter()
            .filter(|referrer| references::granted(&object, &referrer.key.namespace))
            .count(),
        children,
        settings: Arc::clone(settings),
        now: Timestamp::now(),
        object,
    }
}

/// Those of the processors that exist. One that cannot be read counts as missing: nothing is known of it.
fn processors(caches: &Caches, keys: BTreeSet<Key>) -> BTreeMap<Key, Arc<ExternalProcessor>> {
    keys.into_iter()
        .filter_map(|key| Some((key.clone(), caches.processors.get(&key)?.ok()?)))
        .collect()
}

/// Namespaces that are not known: what is missing there may exist.
fn unread(places: &Places, keys: &BTreeSet<Key>) -> BTreeSet<String> {
    let namespaces = keys.iter().map(|key| &key.namespace);
    namespaces
        .filter(|namespace| !places.knows(namespace))
        .cloned()
        .collect()
}

/// The children of the very object, uid included, and what they own in turn.
fn children(caches: &Caches, subject: &Subject, master: &Master) -> Children {
    fn ours<K: Resource>(mut all: Vec<Arc<K>>, master: &Master) -> Vec<Arc<K>> {
        all.retain(|object| master.controls(object.meta()));
        all
    }
    fn uids<K: Resource>(all: &[Arc<K>]) -> impl Iterator<Item = &str> {
        all.iter().filter_map(|object| object.meta().uid.as_deref())
    }
    fn owned<K: Resource>(mut all: Vec<Arc<K>>, owners: &BTreeSet<&str>) -> Vec<Arc<K>> {
        all.retain(|object| controller(object.meta()).is_some_and(|owner| owners.contains(owner.uid.as_str())));
        all
    }
    let deployments = ours(caches.deployments.of(subject), master);
    let jobs = ours(caches.jobs.of(subject), master);
    let replica_sets = owned(caches.replica_sets.of(subject), &uids(&deployments).collect());
    Children {
        config_maps: ours(caches.config_maps.of(subject), master),
        revisions: ours(caches.revisions.of(subject), master),
        services: ours(caches.services.of(subject), master),
        budgets: ours(caches.budgets.of(subject), master),
        deployments,
        jobs,
        replica_sets,
        // By label alone: a pod outlives the Job or ReplicaSet that made it, and another copy must not start beside it.
        pods: caches.pods.of(subject),
    }
}
