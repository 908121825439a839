//! What a pass says about its object: the seven conditions from the first pass on, `why`, the columns, and the events
//! that changes deserve. It judges what is live after the writes, never what was meant; equal observations give equal
//! statuses, so that a converged object is not written (invariant R9).
//!
//! The runner's `/readyz` opens when the processors answer, so a fresh Pipeline turns Ready only with them; a processor that
//! fails later shows in `steps`, and in the Pipeline's Healthy once its heartbeats say that all of it is unhealthy.

mod conditions;
mod container;
mod deployment;
mod effective;
mod events;
mod failures;
mod health;
mod job;
mod pipeline;
mod pods;
mod problems;
mod summary;
mod text;
mod verdict;
mod volumes;
mod workload;

#[cfg(test)]
mod tests;

use flowctl_api::{
    ConditionType, Reason, Status,
    external_processor::External,
    labels::{KIND, NAME},
    pipeline::Mode,
    status::{Effective, RevisionStatus},
};
use kube::ResourceExt;

pub(crate) use self::health::published_verdict;
use self::{
    health::{Health, Scene},
    pods::Place,
    summary::{Causes, Published, conclude},
    verdict::Verdict,
    workload::{Asked, Running},
};
use crate::{Applied, PipelineObserved, Plan, ProcessorObserved, Publication, RevisionPlan};

/// The status of a Pipeline after a pass.
pub fn pipeline(observed: &PipelineObserved, plan: &Plan, applied: &Applied) -> Publication {
    let object = observed.object.as_ref();
    let spec = &object.spec;
    let upstream = pipeline::upstream(observed, &plan.wiring);
    let place = Place {
        now: observed.now,
        field: "spec.runtime",
        must_run: "a Streaming pipeline runs for ever; a finite range is mode: Batch",
        upstream: upstream.as_deref(),
        served: served(object.status.as_ref()),
    };
    let workload = workload::find(plan, &applied.children);
    let over = pipeline::over(object, plan, &applied.children);
    let running = match over {
        Some(over) => workload::over(over),
        None => workload::look(
            workload,
            Asked {
                suspended: spec.suspend == Some(true),
                pods: 1,
            },
            plan,
            &applied.children,
            &place,
        ),
    };
    let steps = pipeline::steps(observed, &plan.wiring);
    let shown = object.status.as_ref().and_then(|status| status.effective.clone());
    let mut effective = over
        .and(shown)
        .unwrap_or_else(|| effective::read(workload::template(workload), plan.revision.as_ref()));
    effective.mode = Some(spec.mode.unwrap_or(Mode::Streaming));
    let status = Status {
        steps_ready: pipeline::steps_ready(&steps),
        steps,
        revision: revision(plan.revision.as_ref(), object.status.as_ref()),
        pods: running.pods.map(|pods| pods.to_string()),
        effective: Some(effective),
        ..Status::default()
    };
    let refers_to = match status.steps.len() {
        0 => "it refers to no ExternalProcessor".to_owned(),
        number => format!("{} found", text::count(number, "ExternalProcessor")),
    };
    let policy = spec
        .heartbeat
        .as_ref()
        .and_then(|heartbeat| heartbeat.policy)
        .unwrap_or_default();
    let own = health::judge(&Scene {
        policy,
        heartbeats: &observed.heartbeats,
        pods: &pods::live(&applied.children),
        place: &place,
        published: object.status.as_ref(),
        created: None,
    });
    let health = pipeline::with_steps(own, policy, observed, &plan.wiring);
    let causes = causes(
        plan,
        applied,
        running,
        &refers_to,
        health,
        object.namespace().as_deref(),
    );
    let was = Published {
        generation: object.metadata.generation,
        shown: pipeline::generation_shown(object, plan),
        status: object.status.as_ref(),
        now: observed.now,
    };
    conclude(status, causes, upstream, was)
}

/// The status of an ExternalProcessor after a pass.
pub fn processor(observed: &ProcessorObserved, plan: &Plan, applied: &Applied) -> Publication {
    let object = observed.object.as_ref();
    let spec = &object.spec;
    let place = Place {
        now: observed.now,
        field: "spec.workload",
        must_run: "a service must keep running",
        upstream: None,
        served: served(object.status.as_ref()),
    };
    let workload = workload::find(plan, &applied.children);
    let asked = Asked {
        suspended: spec.suspend == Some(true),
        pods: spec
            .workload
            .as_ref()
            .map_or(0, |workload| usize::try_from(workload.replicas).unwrap_or_default()),
    };
    let (running, effective) = match &spec.external {
        Some(external) => (
            elsewhere(external),
            effective::elsewhere(
                spec.control_plane.as_ref(),
                object.metadata.namespace.as_deref().unwrap_or_default(),
                &observed.settings,
            ),
        ),
        None => (
            workload::look(workload, asked, plan, &applied.children, &place),
            effective::read(workload::template(workload), plan.revision.as_ref()),
        ),
    };
    let selector = || format!("{KIND}=ExternalProcessor,{NAME}={}", object.name_any());
    let status = Status {
        endpoint: plan.wiring.endpoint.clone(),
        used_by: Some(i32::try_from(observed.used_by).unwrap_or(i32::MAX)),
        revision: revision(plan.revision.as_ref(), object.status.as_ref()),
        replicas: running.replicas,
        selector: spec.workload.is_some().then(selector),
        pods: running.pods.map(|pods| pods.to_string()),
        effective: Some(effective).filter(|effective| *effective != Effective::default()),
        ..Status::default()
    };
    let refers_to = match spec.connections.len() {
        0 => "it refers to no ExternalProcessor".to_owned(),
        number => format!("{} found", text::count(number, "ExternalProcessor")),
    };
    let health = health::judge(&Scene {
        policy: spec
            .heartbeat
            .as_ref()
            .and_then(|heartbeat| heartbeat.policy)
            .unwrap_or_default(),
        heartbeats: &observed.heartbeats,
        pods: &pods::live(&applied.children),
        place: &place,
        published: object.status.as_ref(),
        created: object.creation_timestamp().map(|at| at.0),
    });
    let causes = causes(
        plan,
        applied,
        running,
        &refers_to,
        health,
        object.namespace().as_deref(),
    );
    let was = Published {
        generation: object.metadata.generation,
        shown: object.metadata.generation,
        status: object.status.as_ref(),
        now: observed.now,
    };
    conclude(status, causes, None, was)
}

fn causes(
    plan: &Plan,
    applied: &Applied,
    running: Running,
    refers_to: &str,
    health: Health,
    namespace: Option<&str>,
) -> Causes {
    let accepted = problems::accepted(plan);
    let resolved = problems::resolved(plan, &accepted, refers_to);
    let outcome = failures::judge(applied, &running, namespace);
    Causes {
        accepted,
        resolved,
        running,
        health,
        outcome,
        unfinished: plan.unfinished,
    }
}

/// How many pods were published as ready, when they were enough.
fn served(published: Option<&Status>) -> Option<usize> {
    let available = conditions::find(published, ConditionType::Available)?;
    let enough = available.status == "True" && available.reason == Reason::MinimumReplicasAvailable.as_str();
    let (ready, _) = published?.pods.as_deref()?.split_once('/')?;
    // From no pods at all, there is no service to go on.
    ready.parse().ok().filter(|ready| enough && *ready > 0)
}

fn elsewhere(external: &External) -> Running {
    let message = format!("it runs elsewhere, at {}", external.endpoint);
    Running {
        available: Verdict::good(Reason::External, message),
        going_on: None,
        stuck: None,
        pods: None,
        replicas: None,
    }
}

/// The wanted revision; a held object keeps what was published.
fn revision(plan: Option<&RevisionPlan>, published: Option<&Status>) -> Option<RevisionStatus> {
    let Some(plan) = plan else {
        return published.and_then(|status| status.revision.clone());
    };
    Some(RevisionStatus {
        current: plan.current.clone(),
        previous: plan.previous.clone(),
        taken_by_user: plan.taken_by_user.clone(),
    })
}
