//! What only a Pipeline's status has: its steps, and a cause that lies in one of their processors.

use flowctl_api::{
    ConditionType, ExternalProcessor, HeartbeatPolicy, Pipeline, Reason, pipeline::Mode, status::StepStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    conditions::find,
    health::Health,
    verdict::{Truth, Verdict},
    workload::is_workload,
};
use crate::{
    Children, PipelineObserved, Plan, Wiring,
    over::{self, Asked, Over},
};

/// One entry for every step that refers to an ExternalProcessor. A processor that is not there and one that does not
/// grant this namespace look the same: nothing of it is shown without an endpoint.
pub(super) fn steps(observed: &PipelineObserved, wiring: &Wiring) -> Vec<StepStatus> {
    let shown = |(step, processor): (&crate::WiredStep, Option<&ExternalProcessor>)| StepStatus {
        name: step.name.clone(),
        reference: step.target.to_string(),
        endpoint: step.endpoint.clone(),
        ready: processor.map_or(Truth::Unknown.as_str(), ready).to_owned(),
        pods: processor.and_then(|processor| processor.status.as_ref()?.pods.clone()),
    };
    wired(observed, wiring).map(shown).collect()
}

/// `ready/all` of those steps; `None` when there are none.
pub(super) fn steps_ready(steps: &[StepStatus]) -> Option<String> {
    let ready = steps.iter().filter(|step| step.ready == Truth::True.as_str()).count();
    (!steps.is_empty()).then(|| format!("{ready}/{}", steps.len()))
}

/// The first step whose processor is not ready, with that processor's own `why`.
pub(super) fn upstream(observed: &PipelineObserved, wiring: &Wiring) -> Option<String> {
    let (step, processor) = wired(observed, wiring)
        .filter_map(|(step, processor)| Some((step, processor?)))
        .find(|(_, processor)| ready(processor) != Truth::True.as_str())?;
    let why = processor
        .status
        .as_ref()
        .map(|status| status.why.as_str())
        .filter(|why| !why.is_empty());
    Some(format!(
        "{}: {}",
        step.name,
        why.unwrap_or("its ExternalProcessor is not ready yet")
    ))
}

/// The Pipeline's own health with that of the processors that it uses: a step that does not work is why the Pipeline does not,
/// and what is not known of a step is not known of the Pipeline.
pub(super) fn with_steps(own: Health, policy: HeartbeatPolicy, observed: &PipelineObserved, wiring: &Wiring) -> Health {
    if policy == HeartbeatPolicy::Off || own.verdict.reason == Reason::NothingRuns {
        return own;
    }
    let steps: Vec<(&str, &Condition)> = wired(observed, wiring)
        .filter_map(|(step, processor)| {
            let condition = find(processor?.status.as_ref(), ConditionType::Healthy)?;
            Some((step.name.as_str(), condition))
        })
        .collect();
    let unhealthy = steps.iter().find(|(_, health)| {
        health.status == Truth::False.as_str() && health.reason != Reason::SomePodsUnhealthy.as_str()
    });
    let verdict = match unhealthy {
        Some((step, health)) => Verdict::bad(
            Reason::ProcessorUnhealthy,
            format!("step {step}: {}: {}", health.reason, health.message),
        ),
        None if own.verdict.truth == Truth::True => unknown_step(&steps).unwrap_or(own.verdict),
        None => own.verdict,
    };
    Health { verdict, ..own }
}

/// The first step of whose processor nothing is known. Where nobody is to look, nothing is missed.
fn unknown_step(steps: &[(&str, &Condition)]) -> Option<Verdict> {
    steps
        .iter()
        .filter(|(_, health)| health.status == Truth::Unknown.as_str())
        .find_map(|(step, health)| {
            let reason = Reason::parse(&health.reason).filter(|reason| *reason != Reason::NotConfigured)?;
            Some(Verdict::unknown(reason, format!("step {step}: {}", health.message)))
        })
}

/// The run that is over and only remembered: no Job is wanted, and nothing else has been since.
pub(super) fn over<'o>(object: &'o Pipeline, plan: &Plan, children: &Children) -> Option<Over<'o>> {
    let wants_workload = plan.present.iter().any(|child| is_workload(child.id.kind));
    let asked = match &plan.revision {
        Some(revision) => Asked::Revision(&revision.current),
        None => Asked::Held,
    };
    over::over(object, asked, children).filter(|_| !wants_workload)
}

/// The generation whose workload `Available` tells of: the run of a held Batch pipeline is of the generation that was
/// last built. Without this a newer spec would look as if it had been run.
pub(super) fn generation_shown(object: &Pipeline, plan: &Plan) -> Option<i64> {
    let held = plan.revision.is_none() && object.spec.mode == Some(Mode::Batch);
    over::available(object)
        .filter(|_| held)
        .map_or(object.metadata.generation, |published| published.observed_generation)
}

fn wired<'o>(
    observed: &'o PipelineObserved,
    wiring: &'o Wiring,
) -> impl Iterator<Item = (&'o crate::WiredStep, Option<&'o ExternalProcessor>)> {
    wiring.steps.iter().map(|step| {
        let processor = step
            .endpoint
            .as_ref()
            .and_then(|_| observed.processors.get(&step.target));
        (step, processor.map(std::sync::Arc::as_ref))
    })
}

fn ready(processor: &ExternalProcessor) -> &str {
    let condition = find(processor.status.as_ref(), ConditionType::Ready);
    condition.map_or(Truth::Unknown.as_str(), |condition| condition.status.as_str())
}
