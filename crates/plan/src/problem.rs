//! A problem: bad input as data, with the field and the repair (invariants R3 and R11).

use flowctl_api::{ConditionType, Reason};

/// Something wrong with an object, or with what it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The condition that it makes bad: `Accepted` or `ResolvedRefs`.
    pub condition: ConditionType,
    /// The condition's reason.
    pub reason: Reason,
    /// Path of the field, as in `spec.processors[1].processorRef`.
    pub field: String,
    /// What is wrong and how to repair it, in one line, lower case, without a full stop.
    pub message: String,
    /// Whether waiting can help.
    pub severity: Severity,
}

/// Whether waiting can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Another object may appear or change: not stalled.
    Waiting,
    /// Only a change of this object's spec helps: stalled.
    Person,
}
