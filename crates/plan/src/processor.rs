//! The plan of an ExternalProcessor: its Services, its budget, and the Deployment of the revision that is wanted.

use flowctl_api::ExternalProcessor;

use crate::body::{Owner, OwnerKind};
use crate::build::{self, Deployment, Replacement};
use crate::revision::{self, Chosen};
use crate::validate::{self, Problems, ValidProcessor, ValidWorkload};
use crate::{ChildKind, Children, Plan, ProcessorObserved, Wiring, endpoint, held, inputs, names, render};

/// Seconds for which a pod must be ready to count: components report ready just before they open their gRPC port.
const MIN_READY_SECONDS: i32 = 5;

/// What must exist, and what must not, for an ExternalProcessor. When it is refused, its Services stay and the rest is
/// held; `suspend` is obeyed all the same, and `replicas` when only references are at fault: autoscalers write them.
pub fn plan(observed: &ProcessorObserved) -> Plan {
    let object = observed.object.as_ref();
    let mut problems = Problems::default();
    let mut plan = Plan {
        wiring: Wiring {
            endpoint: endpoint::of(object, &observed.settings).map(|endpoint| endpoint.address),
            steps: Vec::new(),
        },
        ..Plan::default()
    };
    let ValidProcessor { owner, workload } = validate::processor(observed, &mut problems);
    match workload {
        None if problems.is_empty() => plan.absent = held::all(&observed.children),
        Some(workload) if problems.is_empty() => match choose(observed, &owner, &workload, &mut problems) {
            Some(chosen) => here(observed, &owner, chosen, &mut plan),
            None => refused(observed, problems.only_references(), &mut plan),
        },
        workload => {
            refused(observed, problems.only_references(), &mut plan);
            problems.add_new(objections(observed, &owner, workload));
        }
    }
    plan.problems = problems.into_vec();
    plan
}

/// What else would be wrong with a spec that has problems already.
fn objections(observed: &ProcessorObserved, owner: &Owner, workload: Option<ValidWorkload>) -> Problems {
    let object = &observed.object;
    let mut problems = Problems::default();
    let judged = workload.filter(|_| !render::was_accepted(object.status.as_ref(), object.metadata.generation));
    if let Some(workload) = judged {
        render::processor(
            owner,
            &workload,
            render::UNNAMED,
            &observed.settings,
            &observed.heartbeats,
            &mut problems,
        );
    }
    problems
}

fn choose(
    observed: &ProcessorObserved,
    owner: &Owner,
    workload: &ValidWorkload,
    problems: &mut Problems,
) -> Option<Chosen> {
    let spec = observed.object.spec.workload.as_ref();
    let pod_template = spec.and_then(|workload| workload.container.pod_template.as_ref());
    let hash = inputs::of_workload(workload, pod_template);
    revision::choose(owner, hash.clone(), &observed.children, || {
        render::processor(
            owner,
            workload,
            &hash,
            &observed.settings,
            &observed.heartbeats,
            problems,
        )
    })
}

fn here(observed: &ProcessorObserved, owner: &Owner, chosen: Chosen, plan: &mut Plan) {
    let object = observed.object.as_ref();
    let published = object.status.as_ref().and_then(|status| status.revision.as_ref());
    let previous = revision::previous(&chosen.hash, published, &observed.children);
    let stops = stop(object, owner, &observed.children, plan);
    if !chosen.in_the_way.is_empty() {
        // No revision is told: what serves meanwhile is judged by itself.
        plan.make_room(chosen.in_the_way);
        return;
    }
    plan.revision = Some(revision::told(&chosen, previous.clone()));
    plan.present.extend(chosen.children);
    services(object, owner, plan);
    budget(object, owner, &observed.children, plan);
    if !stops {
        plan.present.push(build::deployment(
            owner,
            deployment(owner, replicas(object), &chosen.content.template),
        ));
    }
    let keep: Vec<_> = std::iter::once(chosen.hash.as_str())
        .chain(previous.as_deref())
        .collect();
    plan.absent.extend(revision::prunable(&observed.children, &keep));
}

/// `valid`: only references are at fault.
fn refused(observed: &ProcessorObserved, valid: bool, plan: &mut Plan) {
    let (object, children) = (observed.object.as_ref(), &observed.children);
    let owner = validate::owner(OwnerKind::ExternalProcessor, &object.metadata, &mut Problems::default());
    let wanted = match object.spec.suspend {
        Some(true) => Some(0),
        None | Some(false) => valid.then(|| replicas(object)),
    };
    let stops = wanted == Some(0) && stop(object, &owner, children, plan);
    services(object, &owner, plan);
    if valid {
        budget(object, &owner, children, plan);
    }
    if let Some(wanted) = wanted.filter(|_| !stops)
        && let Some(content) = held::running(&owner, &names::processor(&owner.name), children)
    {
        plan.present
            .push(build::deployment(&owner, deployment(&owner, wanted, &content.template)));
    }
}

/// Stops what runs before anything else is written, when nothing is to run; the rest of the Deployment follows in the next
/// pass. Whether there was something to stop.
fn stop(object: &ExternalProcessor, owner: &Owner, children: &Children, plan: &mut Plan) -> bool {
    let running = held::to_stop(owner, &names::processor(&owner.name), children).filter(|_| replicas(object) == 0);
    let stops = running.map(|content| build::deployment(owner, deployment(owner, 0, &content.template)));
    let found = stops.is_some();
    plan.present.extend(stops);
    found
}

/// A budget for more than one pod; on a single one it would block every drain of its node.
fn budget(object: &ExternalProcessor, owner: &Owner, children: &Children, plan: &mut Plan) {
    if replicas(object) > 1 {
        plan.present.push(build::budget(owner));
    } else {
        let name = names::processor(&owner.name);
        plan.absent
            .extend(held::existing(children, ChildKind::PodDisruptionBudget, name));
    }
}

fn deployment<'a>(owner: &Owner, replicas: i32, template: &'a serde_json::Value) -> Deployment<'a> {
    Deployment {
        name: names::processor(&owner.name),
        replicas,
        replacement: Replacement::surge(),
        min_ready_seconds: MIN_READY_SECONDS,
        template,
    }
}

fn services(object: &ExternalProcessor, owner: &Owner, plan: &mut Plan) {
    if let Some(ports) = validate::ports(object) {
        plan.present.extend(build::processor_services(owner, &ports));
    }
}

/// Pods that are wanted now.
fn replicas(object: &ExternalProcessor) -> i32 {
    match (&object.spec.workload, object.spec.suspend) {
        (Some(workload), None | Some(false)) => workload.replicas,
        (Some(_), Some(true)) | (None, _) => 0,
    }
}
