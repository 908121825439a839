//! The plan of an ExternalProcessor.

use crate::{Plan, ProcessorObserved};

/// What must exist, and what must not, for an ExternalProcessor.
pub fn plan(observed: &ProcessorObserved) -> Plan {
    let _ = observed;
    Plan::default()
}
