//! From an observation to objects and status. One pass of the operator calls [`pipeline::plan`] or [`processor::plan`],
//! applies the [`Plan`], and calls [`status::pipeline`] or [`status::processor`] with what came of it. Nothing here does I/O, reads a clock, or
//! fails: bad input is a [`Problem`] (invariants R1 to R4).

mod body;
mod build;
pub mod child;
pub mod compare;
mod digest;
pub mod endpoint;
mod env;
pub mod heartbeat;
mod held;
mod inputs;
mod list;
pub mod names;
pub mod observed;
mod over;
pub mod pipeline;
mod pod;
mod pod_security;
mod pod_template;
pub mod problem;
pub mod processor;
mod quantity;
pub mod references;
mod render;
mod revision;
pub mod status;
mod strict;
mod validate;
mod wire;

use flowctl_api::{ConditionType, Status};
use k8s_openapi::api::core::v1::ObjectReference;

pub use child::{Child, ChildKind, ChildRef};
pub use compare::{Difference, differs};
pub use endpoint::{Endpoint, EndpointTls};
pub use observed::{Applied, Children, Failure, FailureKind, Key, PipelineObserved, ProcessorObserved, Settings};
pub use problem::{Problem, Severity};

/// What one pass wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Objects that must exist, in the order in which they are applied: what is mounted or referred to first, the
    /// workload last. A workload that only has to stop comes before everything: no other failure may keep it running.
    pub present: Vec<Child>,
    /// Objects of ours that must not exist; deleted after everything in `present` was applied.
    pub absent: Vec<ChildRef>,
    /// What is wrong with the object or with what it refers to. An object in neither list is held: it stays as it is.
    pub problems: Vec<Problem>,
    /// The revision that is wanted and how it came about.
    pub revision: Option<RevisionPlan>,
    /// What `status` repeats about wiring.
    pub wiring: Wiring,
    /// What is wanted cannot be made before something in `absent` is gone, and nothing may tell of that: another pass must
    /// follow by itself.
    pub unfinished: bool,
}

/// The revision that a workload runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevisionPlan {
    /// Ten hex digits: the hash of the inputs.
    pub current: String,
    /// The one that ran before, when it is known.
    pub previous: Option<String>,
    /// Injected variables that the user set instead.
    pub taken_by_user: Vec<String>,
    /// Image of the main container in the stored template.
    pub image: Option<String>,
}

/// What was resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wiring {
    /// ExternalProcessor: what callers are given, `host:port`.
    pub endpoint: Option<String>,
    /// Pipeline: every step that refers to an ExternalProcessor, found or not, in file order.
    pub steps: Vec<WiredStep>,
}

/// A step that refers to an ExternalProcessor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WiredStep {
    /// Name of the step.
    pub name: String,
    /// What it refers to.
    pub target: Key,
    /// The endpoint, when the reference resolved.
    pub endpoint: Option<String>,
}

/// What a pass publishes.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// The whole status; equal to the observed one when nothing changed (invariant R9).
    pub status: Status,
    /// Events for conditions that turned.
    pub events: Vec<Event>,
    /// When to look again although nothing changed; `None`: at the resync.
    pub wake_after: Option<std::time::Duration>,
}

/// An Event to be published about the object.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Whether a person should look.
    pub severity: EventSeverity,
    /// The condition that turned.
    pub condition: ConditionType,
    /// The condition's reason.
    pub reason: &'static str,
    /// One line, at most 1 KiB.
    pub note: String,
    /// The child that it is about, if one.
    pub related: Option<ObjectReference>,
}

/// Type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSeverity {
    /// Good again.
    Normal,
    /// Turned bad.
    Warning,
}

// === impl Plan ===

impl Plan {
    /// These must go before what is wanted can be made.
    fn make_room(&mut self, in_the_way: Vec<ChildRef>) {
        self.absent = in_the_way;
        self.unfinished = true;
    }
}
