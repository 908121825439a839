//! A batch run that is over stays over, complete or failed: the published status remembers it when the Job is gone. A complete
//! one is also remembered when the revision's hash moved because a processor's address did; one that failed has not done its
//! work, and the new address may be what it lacked. Else only the object's own spec starts another run; nothing here looks at a
//! Job.

use flowctl_api::{ConditionType, Pipeline, Reason, pipeline::Mode, status::RevisionStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{Children, revision};

/// A run that was published as complete or failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over<'a> {
    /// What was said of it.
    pub(crate) available: &'a Condition,
    /// The revision that it ran.
    pub(crate) revision: &'a RevisionStatus,
}

/// What the object asks for now.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked<'a> {
    /// This revision.
    Revision(&'a str),
    /// Nothing that can be built: what was stays.
    Held,
}

/// The published run, when it is over and the object's spec has not asked for another since: it is of this generation,
/// or the change left the revision as it was (a pause, a limit). `None` while any Job runs.
pub(crate) fn over<'a>(object: &'a Pipeline, asked: Asked<'_>, children: &Children) -> Option<Over<'a>> {
    if object.spec.mode != Some(Mode::Batch) || children.jobs.iter().any(|job| !revision::finished(job)) {
        return None;
    }
    let status = object.status.as_ref()?;
    let revision = status.revision.as_ref()?;
    let available = available(object).filter(|_| !revision.current.is_empty())?;
    let complete = available.status == "True" && available.reason == Reason::Complete.as_str();
    let failed = available.status == "False" && available.reason == Reason::Failed.as_str();
    let generation = object.metadata.generation;
    let stands = match asked {
        Asked::Held => complete || failed,
        Asked::Revision(hash) if hash == revision.current => complete || failed,
        Asked::Revision(_) => complete && generation.is_some() && available.observed_generation == generation,
    };
    stands.then_some(Over { available, revision })
}

/// The published condition `Available`. On a Batch pipeline its `observedGeneration` is that of the spec whose run it
/// tells of, which a held object's newer spec is not.
pub(crate) fn available(object: &Pipeline) -> Option<&Condition> {
    let conditions = &object.status.as_ref()?.conditions;
    conditions
        .iter()
        .find(|condition| condition.type_ == ConditionType::Available.as_str())
}
