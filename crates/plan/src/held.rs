//! What is done with live children besides applying the wanted revision: finding what exists, and obeying `suspend` for an
//! object that is refused. A workload that cannot be stopped because its spec has another fault would be a trap.

use crate::body::Owner;
use crate::revision::{self, Content};
use crate::{ChildKind, ChildRef, Children};

/// The child, when it exists.
pub(crate) fn existing(children: &Children, kind: ChildKind, name: String) -> Option<ChildRef> {
    let id = ChildRef { kind, name };
    children.contains(&id).then_some(id)
}

/// Every child that exists, the workloads first.
pub(crate) fn all(children: &Children) -> Vec<ChildRef> {
    fn of<'a, K: kube::ResourceExt + 'a>(
        kind: ChildKind,
        items: &'a [std::sync::Arc<K>],
    ) -> impl Iterator<Item = ChildRef> + 'a {
        items.iter().filter_map(move |item| {
            Some(ChildRef {
                kind,
                name: item.meta().name.clone()?,
            })
        })
    }
    of(ChildKind::Deployment, &children.deployments)
        .chain(of(ChildKind::Job, &children.jobs))
        .chain(of(ChildKind::PodDisruptionBudget, &children.budgets))
        .chain(of(ChildKind::Service, &children.services))
        .chain(of(ChildKind::ControllerRevision, &children.revisions))
        .chain(of(ChildKind::ConfigMap, &children.config_maps))
        .collect()
}

/// What a live Deployment runs, as it is stored.
pub(crate) fn running(owner: &Owner, name: &str, children: &Children) -> Option<Content> {
    let live = children
        .deployments
        .iter()
        .find(|live| live.metadata.name.as_deref() == Some(name))?;
    let hash = revision::label(live.spec.as_ref()?.template.metadata.as_ref()?)?;
    revision::content(owner, hash, children)
}
