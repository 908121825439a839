//! Jobs: the workload of a Batch pipeline. A Job belongs to one revision and bears its name, so that a finished run is
//! never run again and a changed pipeline is a new Job.

use flowctl_api::pipeline::{Batch, Flavor};
use serde_json::{Map, Value, json};

use super::spec;
use crate::body::{Owner, to_json};
use crate::{Child, ChildKind, names, pod};

/// Tries after the first one when the spec names no number.
const BACKOFF_LIMIT: i32 = 3;
/// Exit code of the runner for a file that it refuses: trying again cannot help.
const BAD_FILE: i32 = 2;

/// What differs between Jobs.
#[derive(Clone, Debug)]
pub(crate) struct Job<'a> {
    pub(crate) hash: &'a str,
    pub(crate) batch: Option<&'a Batch>,
    pub(crate) suspend: bool,
    pub(crate) template: &'a Value,
    /// What [`frozen`] gave when the revision was rendered.
    pub(crate) frozen: Option<&'a Value>,
}

/// A Job.
pub(crate) fn job(owner: &Owner, wanted: Job<'_>) -> Child {
    let batch = wanted.batch.cloned().unwrap_or_default();
    let mut body = wanted.frozen.and_then(Value::as_object).cloned().unwrap_or_default();
    body.extend(Map::from_iter([
        (
            "backoffLimit".to_owned(),
            Value::from(batch.backoff_limit.unwrap_or(BACKOFF_LIMIT)),
        ),
        (
            "activeDeadlineSeconds".to_owned(),
            to_json(&batch.active_deadline_seconds),
        ),
        // Always sent: somebody else's pause would stand otherwise.
        ("suspend".to_owned(), Value::Bool(wanted.suspend)),
        ("template".to_owned(), wanted.template.clone()),
    ]));
    let name = names::revision(&owner.name, wanted.hash);
    owner.child(
        ChildKind::Job,
        name,
        owner.revision_labels(wanted.hash),
        spec(Value::Object(body)),
    )
}

/// The parts of a Job that cannot change while it exists; stored with the revision.
pub(crate) fn frozen(flavor: Flavor) -> Value {
    let bad_file = json!({
        "action": "FailJob",
        "onExitCodes": {"containerName": pod::MAIN, "operator": "In", "values": [BAD_FILE]},
    });
    // A drained node is not the pipeline's fault.
    let drained = json!({
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    });
    let rules = match flavor {
        Flavor::Runner => vec![bad_file, drained],
        // A Go program that panics ends with 2 as well.
        Flavor::Cdp => vec![drained],
    };
    // Failed: the next pod waits until the one before has ended, so that two never run at once.
    json!({"podFailurePolicy": {"rules": rules}, "podReplacementPolicy": "Failed"})
}
