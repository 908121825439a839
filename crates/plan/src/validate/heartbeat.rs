//! How often a component beats, and under which id.

use flowctl_api::{Heartbeat, HeartbeatIdentity};

use super::Problems;
use crate::env::DEFAULT_HEARTBEAT_SECONDS;

/// What pods are told about heartbeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ValidHeartbeat {
    /// Seconds between two beats, when the spec says so.
    pub(crate) interval_seconds: Option<i32>,
    /// The one id of all pods, with identity Shared.
    pub(crate) shared_id: Option<String>,
}

/// Checks `spec.heartbeat`.
pub(super) fn check(heartbeat: Option<&Heartbeat>, problems: &mut Problems) -> ValidHeartbeat {
    let heartbeat = heartbeat.cloned().unwrap_or_default();
    let interval = heartbeat.interval_seconds.unwrap_or(DEFAULT_HEARTBEAT_SECONDS);
    if !(1..=60).contains(&interval) {
        problems.invalid(
            "spec.heartbeat.intervalSeconds",
            format!("{interval} is not within 1 and 60"),
        );
    }
    if let Some(stale) = heartbeat.stale_after_seconds.filter(|stale| *stale < 3 * interval) {
        problems.invalid(
            "spec.heartbeat.staleAfterSeconds",
            format!(
                "{stale} is less than three times intervalSeconds ({interval}); use at least {}",
                3 * interval
            ),
        );
    }
    let shared = heartbeat.identity.unwrap_or_default() == HeartbeatIdentity::Shared;
    if shared != heartbeat.component_id.is_some() {
        problems.invalid(
            "spec.heartbeat.componentId",
            "componentId is required with identity Shared, and only allowed there",
        );
    }
    ValidHeartbeat {
        interval_seconds: heartbeat.interval_seconds,
        shared_id: heartbeat.component_id,
    }
}

// === impl ValidHeartbeat ===

impl ValidHeartbeat {
    /// Seconds between two beats, after defaults.
    pub(crate) fn seconds(&self) -> i32 {
        self.interval_seconds.unwrap_or(DEFAULT_HEARTBEAT_SECONDS)
    }
}
