//! How long to wait before the next attempt: exponential, with full jitter, so
//! that many callers of one recovering peer do not come back at the same instant.

use std::time::Duration;

/// Bounds of the wait between attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Upper bound of the first wait.
    pub initial: Duration,
    /// Upper bound of every wait.
    pub max: Duration,
    /// Growth of that bound from one attempt to the next, at least 1.
    pub multiplier: f64,
}

// === impl Backoff ===

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(200),
            max: Duration::from_secs(30),
            multiplier: 2.0,
        }
    }
}

impl Backoff {
    /// The upper bound of the wait after `failures` failures in a row (1 is the first).
    #[must_use]
    pub fn ceiling(&self, failures: u32) -> Duration {
        let growth = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.initial.as_secs_f64() * self.multiplier.max(1.0).powi(growth);
        // Also for what is too large to be a duration.
        Duration::try_from_secs_f64(seconds).map_or(self.max, |wait| wait.min(self.max))
    }

    /// A wait between zero and [`Backoff::ceiling`], evenly distributed.
    #[must_use]
    pub fn wait(&self, failures: u32) -> Duration {
        self.ceiling(failures).mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum() {
        let backoff = Backoff::default();
        let ceilings: Vec<u128> = (1..=4).map(|n| backoff.ceiling(n).as_millis()).collect();
        assert_eq!(ceilings, [200, 400, 800, 1600]);
        assert_eq!(backoff.ceiling(u32::MAX), Duration::from_secs(30));
    }

    #[test]
    fn a_wait_never_exceeds_its_ceiling() {
        let backoff = Backoff::default();
        for failures in 1..200 {
            assert!(backoff.wait(failures) <= backoff.ceiling(failures));
        }
    }
}
