//! The plan of a Pipeline: the file and the template of the revision that is wanted, and the one workload that runs it: a
//! Deployment for Streaming, a Job for Batch. Two copies of a pipeline would process the same ledgers twice, so a workload
//! of another kind or another run must be gone before the next one is made.

use flowctl_api::Pipeline;
use flowctl_api::pipeline::{Flavor, Mode};
use flowctl_api::status::RevisionStatus;
use k8s_openapi::api::core::v1::Pod;

use crate::body::{Owner, OwnerKind};
use crate::build::{self, Deployment, Job, Replacement};
use crate::over::{self, Asked, Over};
use crate::revision::{self, Chosen, Content};
use crate::validate::{self, Problems, ValidPipeline};
use crate::{
    Child, ChildKind, ChildRef, Children, PipelineObserved, Plan, RevisionPlan, Wiring, held, inputs, names, render,
};

/// What must exist, and what must not, for a Pipeline. When it is refused, or when a reference does not resolve, what runs
/// is held as it is; `suspend` is obeyed all the same.
pub fn plan(observed: &PipelineObserved) -> Plan {
    let mut problems = Problems::default();
    let (spec, steps) = validate::pipeline(observed, &mut problems);
    let mut plan = Plan {
        wiring: Wiring { endpoint: None, steps },
        ..Plan::default()
    };
    match spec {
        Some(valid) if problems.is_empty() => {
            let hash = hash(observed, &valid);
            match over(observed, &valid.owner, &hash) {
                Some(over) => done(observed, &valid.owner, over, &mut plan),
                None => match choose(observed, &valid, hash, &mut problems) {
                    Some(chosen) => wanted(observed, &valid, chosen, &mut plan),
                    None => refused(observed, &mut plan),
                },
            }
        }
        spec => {
            problems.add_new(objections(observed, spec));
            refused(observed, &mut plan);
        }
    }
    plan.problems = problems.into_vec();
    plan
}

/// What else would be wrong with a spec that has problems already.
fn objections(observed: &PipelineObserved, spec: Option<ValidPipeline>) -> Problems {
    let object = &observed.object;
    let mut problems = Problems::default();
    let judged = spec.filter(|_| !render::was_accepted(object.status.as_ref(), object.metadata.generation));
    if let Some(spec) = judged {
        render::pipeline(
            &spec,
            render::UNNAMED,
            &observed.settings,
            &observed.heartbeats,
            &mut problems,
        );
    }
    problems
}

fn hash(observed: &PipelineObserved, valid: &ValidPipeline) -> String {
    let runtime = observed.object.spec.runtime.as_ref();
    let pod_template = runtime.and_then(|runtime| runtime.container.pod_template.as_ref());
    inputs::of_pipeline(valid, pod_template)
}

fn choose(observed: &PipelineObserved, valid: &ValidPipeline, hash: String, problems: &mut Problems) -> Option<Chosen> {
    revision::choose(&valid.owner, hash.clone(), &observed.children, || {
        render::pipeline(valid, &hash, &observed.settings, &observed.heartbeats, problems)
    })
}

/// A run that is over and whose Job cannot show it: it is gone, or bears the name of another revision.
fn over<'o>(observed: &'o PipelineObserved, owner: &Owner, hash: &str) -> Option<Over<'o>> {
    let children = &observed.children;
    let over = over::over(&observed.object, Asked::Revision(hash), children)?;
    let shown = over.revision.current == hash
        && held::existing(children, ChildKind::Job, names::revision(&owner.name, hash)).is_some();
    (!shown).then_some(over)
}

/// Nothing is made and nothing is written: what is published stands.
fn done(observed: &PipelineObserved, owner: &Owner, over: Over<'_>, plan: &mut Plan) {
    let children = &observed.children;
    let RevisionStatus {
        current,
        previous,
        taken_by_user,
    } = over.revision.clone();
    let keep: Vec<_> = std::iter::once(current.as_str()).chain(previous.as_deref()).collect();
    plan.absent = revision::prunable(children, &keep);
    plan.revision = Some(RevisionPlan {
        image: revision::content(owner, &current, children).and_then(|content| content.image()),
        current,
        previous,
        taken_by_user,
    });
}

fn wanted(observed: &PipelineObserved, valid: &ValidPipeline, chosen: Chosen, plan: &mut Plan) {
    let (object, children, owner) = (observed.object.as_ref(), &observed.children, &valid.owner);
    let published = object.status.as_ref().and_then(|status| status.revision.as_ref());
    let previous = revision::previous(&chosen.hash, published, children);
    plan.revision = Some(revision::told(&chosen, previous.clone()));
    let stops = stop(object, owner, children, plan);
    pause(object, owner, children, plan);
    if !chosen.in_the_way.is_empty() {
        plan.make_room(chosen.in_the_way);
        return;
    }
    plan.present.extend(chosen.children.iter().cloned());
    match valid.flavor {
        Flavor::Runner => plan.present.push(build::pipeline_service(owner)),
        Flavor::Cdp => plan.absent.extend(held::existing(
            children,
            ChildKind::Service,
            names::pipeline(&owner.name),
        )),
    }
    match valid.mode {
        Mode::Streaming => streaming(object, owner, &chosen, children, stops, plan),
        Mode::Batch => batch(object, owner, &chosen, children, plan),
    }
    let keep: Vec<_> = std::iter::once(chosen.hash.as_str())
        .chain(previous.as_deref())
        .collect();
    plan.absent.extend(revision::prunable(children, &keep));
    // What is stopped first goes in the next pass.
    plan.absent
        .retain(|id| !plan.present.iter().any(|child| child.id == *id));
    plan.absent.sort();
    plan.absent.dedup();
}

/// Stops what runs before anything else is written, when it is suspended; the rest of the Deployment follows in the next
/// pass. Whether there was something to stop.
fn stop(object: &Pipeline, owner: &Owner, children: &Children, plan: &mut Plan) -> bool {
    let running = held::to_stop(owner, &names::pipeline(&owner.name), children).filter(|_| suspended(object));
    let stops = running.map(|content| build::deployment(owner, deployment(object, owner, 0, &content.template)));
    let found = stops.is_some();
    plan.present.extend(stops);
    found
}

/// As [`stop`], for Jobs: one that must go is suspended in this pass and goes in the next.
fn pause(object: &Pipeline, owner: &Owner, children: &Children, plan: &mut Plan) {
    if suspended(object) {
        let running = held::to_suspend(owner, children).into_iter();
        plan.present
            .extend(running.map(|(hash, content)| job(object, owner, hash, &content)));
    }
}

fn job(object: &Pipeline, owner: &Owner, hash: &str, content: &Content) -> Child {
    let job = Job {
        hash,
        batch: object.spec.batch.as_ref(),
        suspend: suspended(object),
        template: &content.template,
        frozen: content.job.as_ref(),
    };
    build::job(owner, job)
}

fn streaming(object: &Pipeline, owner: &Owner, chosen: &Chosen, children: &Children, stops: bool, plan: &mut Plan) {
    let jobs = children.jobs.iter().filter_map(|job| job.metadata.name.clone());
    plan.absent.extend(jobs.map(|name| ChildRef {
        kind: ChildKind::Job,
        name,
    }));
    let exists = held::existing(children, ChildKind::Deployment, names::pipeline(&owner.name)).is_some();
    // Pods of a ReplicaSet that has lost its Deployment are the new Deployment's to adopt; those that end are not.
    let run_goes_on = children.jobs.iter().any(|job| !revision::finished(job))
        || live_pods(children).any(|pod| is_of_job(pod) || pod.metadata.deletion_timestamp.is_some());
    if !stops && (exists || !run_goes_on) {
        let replicas = if suspended(object) { 0 } else { 1 };
        let deployment = deployment(object, owner, replicas, &chosen.content.template);
        plan.present.push(build::deployment(owner, deployment));
    }
}

fn batch(object: &Pipeline, owner: &Owner, chosen: &Chosen, children: &Children, plan: &mut Plan) {
    let name = names::revision(&owner.name, &chosen.hash);
    let deployment = held::existing(children, ChildKind::Deployment, names::pipeline(&owner.name));
    // A finished run stays, as long as its revision does: it is the record that it need not run again.
    let unfinished = children.jobs.iter().filter(|job| !revision::finished(job));
    let others = unfinished.filter_map(|job| job.metadata.name.clone().filter(|other| *other != name));
    let others: Vec<_> = others
        .map(|name| ChildRef {
            kind: ChildKind::Job,
            name,
        })
        .collect();
    let mut same = children
        .jobs
        .iter()
        .filter(|job| job.metadata.name.as_ref() == Some(&name));
    let exists = same.any(|job| job.metadata.deletion_timestamp.is_none());
    let occupied = deployment.is_some() || !others.is_empty() || live_pods(children).next().is_some();
    let pauses = plan
        .present
        .iter()
        .any(|child| child.id.kind == ChildKind::Job && child.id.name == name);
    plan.absent.extend(deployment);
    plan.absent.extend(others);
    if !pauses && (exists || !occupied) {
        plan.present.push(job(object, owner, &chosen.hash, &chosen.content));
    }
}

fn refused(observed: &PipelineObserved, plan: &mut Plan) {
    let (object, children) = (observed.object.as_ref(), &observed.children);
    if !suspended(object) {
        return;
    }
    let owner = validate::owner(OwnerKind::Pipeline, &object.metadata, &mut Problems::default());
    if let Some(content) = held::running(&owner, &names::pipeline(&owner.name), children) {
        let deployment = deployment(object, &owner, 0, &content.template);
        plan.present.push(build::deployment(&owner, deployment));
    }
    for live in children.jobs.iter().filter(|live| !revision::finished(live)) {
        let hash = revision::label(&live.metadata);
        if let Some((hash, content)) = hash.and_then(|hash| Some((hash, revision::content(&owner, hash, children)?))) {
            plan.present.push(job(object, &owner, hash, &content));
        }
    }
}

fn deployment<'a>(object: &Pipeline, owner: &Owner, replicas: i32, template: &'a serde_json::Value) -> Deployment<'a> {
    Deployment {
        name: names::pipeline(&owner.name),
        replicas,
        replacement: Replacement::of(object.spec.strategy.as_ref()),
        min_ready_seconds: 0,
        template,
    }
}

fn suspended(object: &Pipeline) -> bool {
    object.spec.suspend == Some(true)
}

/// Pods that have not ended, whoever made them.
fn live_pods(children: &Children) -> impl Iterator<Item = &Pod> {
    children
        .pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod| !revision::ended(pod))
}

fn is_of_job(pod: &Pod) -> bool {
    pod.metadata
        .owner_references
        .iter()
        .flatten()
        .any(|owner| owner.kind == "Job")
}
