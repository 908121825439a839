//! Which workload decides `Available`, and what it shows.

use std::{fmt, sync::Arc};

use flowctl_api::{ConditionType, Reason};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    batch::v1::Job,
    core::v1::{Pod, PodTemplateSpec},
};
use kube::ResourceExt;

use super::{
    deployment, job,
    pods::{self, Place},
    text::count,
    verdict::Verdict,
};
use crate::{ChildKind, Children, Plan, over::Over};

/// The one workload that is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Workload<'a> {
    Deployment(&'a Deployment),
    Job(&'a Job),
    Missing,
}

/// What a workload shows.
#[derive(Clone, Debug)]
pub(super) struct Running {
    /// The condition `Available`.
    pub(super) available: Verdict,
    /// What goes on, if something does.
    pub(super) going_on: Option<String>,
    /// Why a roll-out is stuck although the earlier revision serves.
    pub(super) stuck: Option<Verdict>,
    /// Pods for the column; `None`: there are none by nature.
    pub(super) pods: Option<PodCount>,
    /// Pods that exist, for the scale subresource.
    pub(super) replicas: Option<i32>,
}

/// What the spec asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Nothing is to run.
    pub(super) suspended: bool,
    /// Pods, when it is not suspended.
    pub(super) pods: usize,
}

/// Ready and wanted pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PodCount {
    pub(super) ready: usize,
    pub(super) wanted: usize,
}

/// Finds the workload: the one that the plan wants, or, for a held object, the one that runs. What ran before a wanted
/// revision says nothing of it.
pub(super) fn find<'a>(plan: &Plan, children: &'a Children) -> Workload<'a> {
    let wanted = plan
        .present
        .iter()
        .map(|child| &child.id)
        .find(|id| is_workload(id.kind));
    if let Some(id) = wanted {
        return match id.kind {
            ChildKind::Job => by_name(&children.jobs, &id.name).map_or(Workload::Missing, Workload::Job),
            _ => by_name(&children.deployments, &id.name).map_or(Workload::Missing, Workload::Deployment),
        };
    }
    if plan.revision.is_some() {
        return Workload::Missing;
    }
    let absent = |kind: ChildKind, name: &str| plan.absent.iter().any(|id| id.kind == kind && id.name == name);
    let deployment = children
        .deployments
        .iter()
        .filter(|deployment| !absent(ChildKind::Deployment, &deployment.name_any()))
        .min_by_key(|deployment| deployment.name_any());
    let newest_job = children
        .jobs
        .iter()
        .filter(|job| !absent(ChildKind::Job, &job.name_any()))
        .max_by_key(|job| (job.creation_timestamp().map(|at| at.0), job.name_any()));
    match (deployment, newest_job) {
        (Some(deployment), _) => Workload::Deployment(deployment),
        (None, Some(job)) => Workload::Job(job),
        (None, None) => Workload::Missing,
    }
}

/// Looks at the workload.
pub(super) fn look(
    workload: Workload<'_>,
    asked: Asked,
    plan: &Plan,
    children: &Children,
    place: &Place<'_>,
) -> Running {
    let suspended = asked.suspended;
    let all: Vec<&Pod> = children.pods.iter().map(Arc::as_ref).collect();
    match workload {
        Workload::Deployment(deployment) if suspended && stopped(deployment) => suspension(&all),
        Workload::Deployment(deployment) => {
            let sets: Vec<&ReplicaSet> = children.replica_sets.iter().map(Arc::as_ref).collect();
            deployment::look(deployment, &sets, &all, place)
        }
        Workload::Job(job) if suspended && !job::is_finished(job) && suspends(job) => suspension(&all),
        Workload::Job(job) => {
            let own: Vec<&Pod> = all.into_iter().filter(|pod| owned_by(pod, job)).collect();
            job::look(job, &own, place)
        }
        Workload::Missing => missing(asked, plan, &all),
    }
}

/// A batch run that was over before.
pub(super) fn over(over: Over<'_>) -> Running {
    let said = over.available;
    Running {
        available: if said.reason == Reason::Complete.as_str() {
            Verdict::good(Reason::Complete, said.message.as_str())
        } else {
            Verdict::bad(Reason::Failed, said.message.as_str()).for_a_person()
        },
        going_on: None,
        stuck: None,
        pods: Some(PodCount::default()),
        replicas: None,
    }
}

/// The pod template that runs, or is about to.
pub(super) fn template<'a>(workload: Workload<'a>) -> Option<&'a PodTemplateSpec> {
    match workload {
        Workload::Deployment(deployment) => deployment.spec.as_ref().map(|spec| &spec.template),
        Workload::Job(job) => job.spec.as_ref().map(|spec| &spec.template),
        Workload::Missing => None,
    }
}

fn missing(asked: Asked, plan: &Plan, pods: &[&Pod]) -> Running {
    if plan.problems.is_empty() && asked.suspended {
        return suspension(pods);
    }
    let (available, going_on) = match plan.problems.first() {
        Some(problem) => {
            let first = match problem.condition {
                ConditionType::Accepted => "its spec must be valid first",
                _ => "its references must resolve first",
            };
            (
                Verdict::unknown(Reason::Blocked, format!("nothing runs: {first}")),
                None,
            )
        }
        None => {
            // Two copies of a pipeline would process the same ledgers twice, so the next one waits.
            let doing = match left(pods) {
                0 => "its objects are being created".to_owned(),
                left => format!("what ran before ends first, {} left", count(left, "pod")),
            };
            (
                Verdict::bad(Reason::Progressing, format!("nothing runs yet: {doing}")),
                Some(doing),
            )
        }
    };
    Running {
        available,
        going_on,
        stuck: None,
        pods: Some(PodCount {
            ready: 0,
            wanted: asked.pods,
        }),
        replicas: Some(0),
    }
}

fn suspension(all: &[&Pod]) -> Running {
    let left = left(all);
    let (message, going_on) = match left {
        0 => ("spec.suspend is set: nothing runs, as asked".to_owned(), None),
        left => {
            let text = format!("stopping, {} left", count(left, "pod"));
            (format!("spec.suspend is set: {text}"), Some(text))
        }
    };
    Running {
        available: Verdict::good(Reason::Suspended, message),
        going_on,
        stuck: None,
        pods: Some(PodCount::default()),
        replicas: Some(i32::try_from(left).unwrap_or(i32::MAX)),
    }
}

/// Pods that have not ended.
fn left(all: &[&Pod]) -> usize {
    all.iter().filter(|pod| !pods::has_ended(pod)).count()
}

fn stopped(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(0)
}

fn suspends(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true)
}

fn owned_by(pod: &Pod, job: &Job) -> bool {
    pod.owner_references()
        .iter()
        .any(|owner| Some(&owner.uid) == job.metadata.uid.as_ref())
}

/// Whether objects of that kind run pods.
pub(super) const fn is_workload(kind: ChildKind) -> bool {
    matches!(kind, ChildKind::Deployment | ChildKind::Job)
}

fn by_name<'a, K: ResourceExt>(items: &'a [Arc<K>], name: &str) -> Option<&'a K> {
    items
        .iter()
        .find(|item| item.meta().name.as_deref() == Some(name))
        .map(Arc::as_ref)
}

// === impl PodCount ===

impl PodCount {
    /// How many must serve for `Available` to hold: while pods are added, as many as served before.
    pub(super) fn least(self) -> usize {
        let least = deployment::least(self.wanted);
        if self.ready < least {
            return deployment::least(self.ready);
        }
        least
    }
}

impl fmt::Display for PodCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ready, self.wanted)
    }
}
