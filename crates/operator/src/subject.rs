//! Names an object of ours: what is queued, reconciled and woken. It must hold nothing but the name, so that a queue of
//! a hundred thousand of them is small and an object that was deleted and made again is the same entry.

use std::fmt;

use flowctl_api::{ExternalProcessor, Pipeline, labels};
use flowctl_plan::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

/// One of our two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SubjectKind {
    /// `Pipeline`.
    Pipeline,
    /// `ExternalProcessor`.
    ExternalProcessor,
}

/// An object of one of our kinds, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Subject {
    /// Its kind.
    pub(crate) kind: SubjectKind,
    /// Its namespace and name.
    pub(crate) key: Key,
}

// === impl SubjectKind ===

impl SubjectKind {
    /// Both kinds.
    pub(crate) const ALL: [Self; 2] = [Self::Pipeline, Self::ExternalProcessor];

    /// The kind as Kubernetes spells it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pipeline => "Pipeline",
            Self::ExternalProcessor => "ExternalProcessor",
        }
    }

    /// The kind's name in the API, as in `pipelines.flowctl.dev`.
    pub(crate) fn plural(self) -> String {
        match self {
            Self::Pipeline => Pipeline::plural(&()).into_owned(),
            Self::ExternalProcessor => ExternalProcessor::plural(&()).into_owned(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

// === impl Subject ===

impl Subject {
    /// A Pipeline.
    pub(crate) fn pipeline(key: Key) -> Self {
        Self {
            kind: SubjectKind::Pipeline,
            key,
        }
    }

    /// An ExternalProcessor.
    pub(crate) fn processor(key: Key) -> Self {
        Self {
            kind: SubjectKind::ExternalProcessor,
            key,
        }
    }

    /// The object of ours that controls the one with this metadata.
    pub(crate) fn controlling(meta: &ObjectMeta) -> Option<Self> {
        let owner = controller(meta)?;
        let (group, _) = owner.api_version.split_once('/')?;
        if group != flowctl_api::GROUP {
            return None;
        }
        let kind = SubjectKind::parse(&owner.kind)?;
        Some(Self {
            kind,
            key: Key::new(meta.namespace.clone()?, owner.name.clone()),
        })
    }

    /// The object of ours whose selector labels the one with this metadata carries: pods and ReplicaSets, which we do
    /// not own ourselves.
    pub(crate) fn labelled(meta: &ObjectMeta) -> Option<Self> {
        let labels = meta.labels.as_ref()?;
        let kind = SubjectKind::parse(labels.get(labels::KIND)?)?;
        Some(Self {
            kind,
            key: Key::new(meta.namespace.clone()?, labels.get(labels::NAME)?),
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.key)
    }
}

/// The controller reference, of which an object has at most one.
pub(crate) fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .as_ref()?
        .iter()
        .find(|owner| owner.controller == Some(true))
}

/// Namespace and name of a namespaced object.
pub(crate) fn key_of(meta: &ObjectMeta) -> Option<Key> {
    Some(Key::new(meta.namespace.clone()?, meta.name.clone()?))
}
