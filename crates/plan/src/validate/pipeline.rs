//! A Pipeline that can be built.

use flowctl_api::pipeline::{Flavor, Mode, PipelineSpec, Strategy, StrategyType};
use flowctl_api::{ControlPlane, Reason};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::steps::Work;
use super::{Problems, ValidContainer, ValidHeartbeat, ValidStep, container, control_plane, heartbeat, owner, steps};
use crate::body::{Owner, OwnerKind};
use crate::{PipelineObserved, WiredStep};

/// A Pipeline that can be built.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValidPipeline {
    pub(crate) owner: Owner,
    pub(crate) mode: Mode,
    pub(crate) flavor: Flavor,
    pub(crate) source: ValidStep,
    pub(crate) processors: Vec<ValidStep>,
    pub(crate) consumers: Vec<ValidStep>,
    pub(crate) container: ValidContainer,
    /// Secret with the client certificate.
    pub(crate) client_tls: Option<String>,
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) heartbeat: ValidHeartbeat,
    /// As the spec has it; the operator's is a default of rendering.
    pub(crate) control_plane: Option<ControlPlane>,
    pub(crate) restarted_at: Option<String>,
}

/// Where progress is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Checkpoint {
    Claim(String),
    EmptyDir,
}

/// Checks a Pipeline. With problems there is still what can be judged further, with stand-ins for endpoints that are not
/// known, unless it is too broken for that.
pub(crate) fn pipeline(
    observed: &PipelineObserved,
    problems: &mut Problems,
) -> (Option<ValidPipeline>, Vec<WiredStep>) {
    let spec = &observed.object.spec;
    let owner = owner(OwnerKind::Pipeline, &observed.object.metadata, problems);
    let runtime = spec.runtime.clone().unwrap_or_default();
    let flavor = runtime.flavor.unwrap_or_default();
    let container = container::check(&runtime.container, "spec.runtime", problems);
    if flavor == Flavor::Cdp && (container.image.is_none() || container.command.is_empty()) {
        problems.invalid(
            "spec.runtime",
            "flavor Cdp needs image and command: the published images have no entrypoint",
        );
    }
    let heartbeat = heartbeat::check(spec.heartbeat.as_ref(), problems);
    if let Some(named) = &spec.control_plane {
        control_plane::check(named, &observed.settings, problems);
    }
    modes(spec, problems);
    let checkpoint = checkpoint(spec, problems);
    let (steps, wired) = steps::check(observed, flavor, runtime.client_tls.is_some(), problems);
    let valid = steps.map(|steps| ValidPipeline {
        owner,
        mode: spec.mode.unwrap_or_default(),
        flavor,
        source: steps.source,
        processors: steps.processors,
        consumers: steps.consumers,
        container,
        client_tls: runtime.client_tls.map(|tls| tls.secret_name),
        checkpoint,
        heartbeat,
        control_plane: spec.control_plane.clone(),
        restarted_at: spec.restarted_at.clone(),
    });
    (valid, wired)
}

fn modes(spec: &PipelineSpec, problems: &mut Problems) {
    let mode = spec.mode.unwrap_or_default();
    if spec.batch.is_some() && mode != Mode::Batch {
        problems.invalid(
            "spec.batch",
            "batch is only used with mode: Batch; remove one of the two",
        );
    }
    if spec.strategy.is_some() && mode != Mode::Streaming {
        problems.invalid(
            "spec.strategy",
            "strategy is only used with mode: Streaming; remove one of the two",
        );
    }
    if let Some(strategy) = &spec.strategy {
        bounds(strategy, problems);
    }
    let batch = spec.batch.clone().unwrap_or_default();
    if batch.backoff_limit.is_some_and(|limit| !(0..=100).contains(&limit)) {
        problems.invalid("spec.batch.backoffLimit", "backoffLimit is not within 0 and 100");
    }
    if batch.active_deadline_seconds.is_some_and(|seconds| seconds < 1) {
        problems.invalid(
            "spec.batch.activeDeadlineSeconds",
            "activeDeadlineSeconds is not above 0",
        );
    }
}

fn bounds(strategy: &Strategy, problems: &mut Problems) {
    let Some(bounds) = &strategy.rolling_update else { return };
    match strategy.kind.unwrap_or_default() {
        StrategyType::Recreate => problems.invalid(
            "spec.strategy.rollingUpdate",
            "rollingUpdate is only used with type: RollingUpdate; remove one of the two",
        ),
        StrategyType::RollingUpdate => {}
    }
    for (key, value) in [
        ("maxSurge", &bounds.max_surge),
        ("maxUnavailable", &bounds.max_unavailable),
    ] {
        let right = match value {
            None => true,
            Some(IntOrString::Int(number)) => *number >= 0,
            Some(IntOrString::String(text)) => {
                let percent = text.strip_suffix('%').and_then(|digits| digits.parse::<u32>().ok());
                percent.is_some_and(|percent| percent <= 100)
            }
        };
        if !right {
            problems.invalid(
                format!("spec.strategy.rollingUpdate.{key}"),
                "write a whole number of pods, or a percentage such as 25%",
            );
        }
    }
    let zero = |value: &IntOrString| match value {
        IntOrString::Int(number) => *number == 0,
        IntOrString::String(text) => text == "0%",
    };
    if bounds.max_surge.as_ref().is_some_and(zero) && bounds.max_unavailable.as_ref().is_none_or(zero) {
        problems.invalid(
            "spec.strategy.rollingUpdate",
            "maxSurge and maxUnavailable are both 0, so nothing could ever be replaced; raise one of them",
        );
    }
}

fn checkpoint(spec: &PipelineSpec, problems: &mut Problems) -> Option<Checkpoint> {
    let checkpoint = spec.checkpoint.as_ref()?;
    match (&checkpoint.claim_name, checkpoint.empty_dir) {
        (Some(claim), None) => Some(Checkpoint::Claim(claim.clone())),
        (None, Some(_)) => Some(Checkpoint::EmptyDir),
        (None, None) | (Some(_), Some(_)) => {
            problems.refuse(
                Reason::Invalid,
                "spec.checkpoint",
                "exactly one of claimName and emptyDir must be set",
            );
            None
        }
    }
}

// === impl ValidPipeline ===

impl ValidPipeline {
    /// All steps, in the order in which messages pass.
    pub(crate) fn steps(&self) -> impl Iterator<Item = &ValidStep> {
        std::iter::once(&self.source)
            .chain(&self.processors)
            .chain(&self.consumers)
    }

    /// The steps that are ExternalProcessors.
    pub(crate) fn external(&self) -> impl Iterator<Item = (&crate::Key, &crate::Endpoint)> {
        self.steps().filter_map(|step| match &step.work {
            Work::External(target, endpoint) => Some((target, endpoint)),
            Work::BuiltIn(_) => None,
        })
    }
}
