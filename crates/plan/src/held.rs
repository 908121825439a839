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
    let live = deployment(name, children)?;
    let hash = revision::label(live.spec.as_ref()?.template.metadata.as_ref()?)?;
    revision::content(owner, hash, children)
}

/// What a live Deployment that must still be scaled to nothing runs. Stopping it comes before everything else that a pass
/// writes, a new template included: none of that may fail and leave it running.
pub(crate) fn to_stop(owner: &Owner, name: &str, children: &Children) -> Option<Content> {
    let wanted = deployment(name, children)?.spec.as_ref()?.replicas;
    running(owner, name, children).filter(|_| wanted != Some(0))
}

/// The unfinished Jobs that must still be suspended, with their revisions' hashes and contents; for the same reason.
pub(crate) fn to_suspend<'a>(owner: &Owner, children: &'a Children) -> Vec<(&'a str, Content)> {
    let runs = |job: &&std::sync::Arc<k8s_openapi::api::batch::v1::Job>| {
        let suspended = job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
        !suspended && !revision::finished(job) && job.metadata.deletion_timestamp.is_none()
    };
    let jobs = children.jobs.iter().filter(runs);
    jobs.filter_map(|job| {
        let hash = revision::label(&job.metadata)?;
        Some((hash, revision::content(owner, hash, children)?))
    })
    .collect()
}

fn deployment<'a>(name: &str, children: &'a Children) -> Option<&'a k8s_openapi::api::apps::v1::Deployment> {
    let mut live = children.deployments.iter().map(AsRef::as_ref);
    live.find(|live| live.metadata.name.as_deref() == Some(name))
}
