//! When not to believe a control plane: a dead process falls silent alone, a broken control plane makes many fall silent at
//! once. The test is made when the first of them would be called stale: those that fell silent with it are late by then.

use std::time::Duration;

use super::expect::Pace;

/// So many at least.
const LEAST: usize = 3;

/// Ids whose pods are ready, counted over all objects of a control plane.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    /// Known to have beaten, and healthy until now.
    pub(super) healthy: usize,
    /// Of these, those that are late.
    pub(super) silent: usize,
}

// === impl Count ===

impl Count {
    /// Whether it is more likely that the control plane does not hear than that so many died at once.
    pub(super) fn is_suspicious(self) -> bool {
        self.silent >= LEAST && 2 * self.silent > self.healthy
    }
}

/// Whether an id that was silent for so long has missed a beat: beats are seen up to one poll (5 s) late.
pub(super) fn is_late(silence: Duration, pace: Pace) -> bool {
    silence >= pace.interval.mul_f64(1.5) + Duration::from_secs(5)
}
