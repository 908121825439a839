//! The plan of a Pipeline.

use crate::{PipelineObserved, Plan};

/// What must exist, and what must not, for a Pipeline.
pub fn plan(observed: &PipelineObserved) -> Plan {
    let _ = observed;
    Plan::default()
}
