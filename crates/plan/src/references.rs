//! Who refers to whom, and who may: what the operator's reverse index and `usedBy` are made of.

use std::collections::BTreeSet;

use flowctl_api::{ConditionType, ExternalProcessor, Pipeline, ProcessorRef, pipeline::Step};
use serde_json::{Value, json};

use crate::Key;

/// The ExternalProcessors that a Pipeline refers to, found or not.
pub fn of_pipeline(pipeline: &Pipeline) -> BTreeSet<Key> {
    let spec = &pipeline.spec;
    let steps = std::iter::once(&spec.source)
        .chain(&spec.processors)
        .chain(&spec.consumers);
    keys(
        &pipeline.metadata,
        steps.filter_map(|step: &Step| step.processor_ref.as_ref()),
    )
}

/// The ExternalProcessors that an ExternalProcessor pulls from, found or not.
pub fn of_processor(processor: &ExternalProcessor) -> BTreeSet<Key> {
    let connections = processor.spec.connections.iter();
    keys(
        &processor.metadata,
        connections.map(|connection| &connection.processor_ref),
    )
}

/// Whether objects of that namespace may refer to the ExternalProcessor.
pub fn granted(target: &ExternalProcessor, from_namespace: &str) -> bool {
    let own = target.metadata.namespace.as_deref() == Some(from_namespace);
    let names = target.spec.allowed_namespaces.iter().flat_map(|allowed| &allowed.names);
    own || names.into_iter().any(|name| name == from_namespace)
}

/// What a pass over an object that refers to this ExternalProcessor may look at: everything but what moves in its status with
/// each step of its pods and each object that begins to refer to it. A change of the rest concerns nobody else.
pub fn looked_at(target: &ExternalProcessor) -> Value {
    let status = target.status.as_ref().map(|status| {
        let told = [ConditionType::Ready, ConditionType::Healthy].map(|type_| {
            let mut all = status.conditions.iter();
            let found = all.find(|condition| condition.type_ == type_.as_str())?;
            Some([&found.status, &found.reason, &found.message])
        });
        json!([told, status.why, status.endpoint, status.pods, status.beats])
    });
    json!([
        target.metadata.uid,
        target.metadata.deletion_timestamp,
        target.spec,
        status
    ])
}

/// What a reference of an object in that namespace points at.
pub(crate) fn target(reference: &ProcessorRef, namespace: &str) -> Key {
    Key::new(
        reference.namespace.as_deref().unwrap_or(namespace),
        reference.name.as_str(),
    )
}

fn keys<'a>(
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    references: impl Iterator<Item = &'a ProcessorRef>,
) -> BTreeSet<Key> {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    references.map(|reference| target(reference, namespace)).collect()
}
