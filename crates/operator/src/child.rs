//! The kinds of children as Rust types: where each stands among the observed children and in the caches.

use std::{fmt::Debug, sync::Arc};

use crate::{caches::Cached, store::prune, write::Addressable};
use flowctl_plan::Children;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    batch::v1::Job,
    core::v1::{ConfigMap, Service},
    policy::v1::PodDisruptionBudget,
};

/// A kind that we own directly.
pub(crate) trait ChildType: Cached + Addressable + Debug {
    /// Those among the children.
    fn among(children: &Children) -> &Vec<Arc<Self>>;
    /// Those among the children.
    fn among_mut(children: &mut Children) -> &mut Vec<Arc<Self>>;
}

macro_rules! child_types {
    ($($kind:ident in $field:ident,)*) => {$(
        impl ChildType for $kind {
            fn among(children: &Children) -> &Vec<Arc<Self>> {
                &children.$field
            }
            fn among_mut(children: &mut Children) -> &mut Vec<Arc<Self>> {
                &mut children.$field
            }
        }
    )*};
}

child_types! {
    ConfigMap in config_maps,
    ControllerRevision in revisions,
    Service in services,
    PodDisruptionBudget in budgets,
    Deployment in deployments,
    Job in jobs,
}

/// Calls an expression with `$type` standing for the Rust type of a `ChildKind`.
macro_rules! with_child_type {
    ($kind:expr, $type:ident => $body:expr) => {
        match $kind {
            flowctl_plan::ChildKind::ConfigMap => {
                type $type = k8s_openapi::api::core::v1::ConfigMap;
                $body
            }
            flowctl_plan::ChildKind::ControllerRevision => {
                type $type = k8s_openapi::api::apps::v1::ControllerRevision;
                $body
            }
            flowctl_plan::ChildKind::Service => {
                type $type = k8s_openapi::api::core::v1::Service;
                $body
            }
            flowctl_plan::ChildKind::PodDisruptionBudget => {
                type $type = k8s_openapi::api::policy::v1::PodDisruptionBudget;
                $body
            }
            flowctl_plan::ChildKind::Deployment => {
                type $type = k8s_openapi::api::apps::v1::Deployment;
                $body
            }
            flowctl_plan::ChildKind::Job => {
                type $type = k8s_openapi::api::batch::v1::Job;
                $body
            }
        }
    };
}
pub(crate) use with_child_type;

/// The child of this name.
pub(crate) fn find<K: ChildType>(children: &Children, name: &str) -> Option<Arc<K>> {
    K::among(children)
        .iter()
        .find(|child| child.meta().name.as_deref() == Some(name))
        .cloned()
}

/// Puts the apiserver's answer in the place of what was observed; gives what goes into the cache.
pub(crate) fn put<K: ChildType>(children: &mut Children, mut answer: K) -> Arc<K> {
    prune(&mut answer);
    let answer = Arc::new(answer);
    let all = K::among_mut(children);
    match all.iter_mut().find(|child| child.meta().name == answer.meta().name) {
        Some(place) => *place = Arc::clone(&answer),
        None => all.push(Arc::clone(&answer)),
    }
    answer
}
