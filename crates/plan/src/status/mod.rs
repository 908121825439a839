//! What a pass says about its object: conditions, `why`, columns, and the events that their changes deserve.

use crate::{Applied, PipelineObserved, Plan, ProcessorObserved, Publication};

/// The status of a Pipeline after a pass.
pub fn pipeline(observed: &PipelineObserved, _plan: &Plan, _applied: &Applied) -> Publication {
    Publication {
        status: observed.object.status.clone().unwrap_or_default(),
        events: Vec::new(),
        wake_after: None,
    }
}

/// The status of an ExternalProcessor after a pass.
pub fn processor(observed: &ProcessorObserved, _plan: &Plan, _applied: &Applied) -> Publication {
    Publication {
        status: observed.object.status.clone().unwrap_or_default(),
        events: Vec::new(),
        wake_after: None,
    }
}
