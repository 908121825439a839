//! How long to leave an object alone whose pass failed as a whole (its status could not be written): doubling from one
//! second to five minutes, jittered, from the start again after a success. A wake-up before its time is not a failure.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::lane::Lane;

const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(300);

/// Failures in a row, by key. A key that succeeds or is gone is forgotten.
#[derive(Debug)]
pub(crate) struct Backoff<T> {
    failures: Mutex<HashMap<T, u32>>,
    /// For those whose passes are long, too.
    pub(crate) lane: Lane<T>,
}

// === impl Backoff ===

impl<T: Clone + Eq + Hash> Backoff<T> {
    pub(crate) fn new() -> Self {
        Self {
            failures: Mutex::new(HashMap::new()),
            lane: Lane::new(),
        }
    }

    /// One more failure; gives the time to wait.
    pub(crate) fn failed(&self, key: &T) -> Duration {
        let mut failures = self.lock();
        let count = failures.entry(key.clone()).or_default();
        let wait = FIRST.saturating_mul(1 << (*count).min(16)).min(LAST);
        *count += 1;
        jittered(wait)
    }

    /// A success, or the end of the object.
    pub(crate) fn forget(&self, key: &T) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<T, u32>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between three quarters and five quarters of `wait`, so that what failed together does not come back together.
pub(crate) fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.75 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_cap_and_start_again_after_a_success() {
        let backoff = Backoff::new();
        let waits: Vec<f64> = (0..40).map(|_| backoff.failed(&1).as_secs_f64()).collect();
        for (index, wait) in waits.iter().enumerate() {
            let middle = f64::from(1 << index.min(20)).min(300.0);
            assert!((0.75 * middle..=1.25 * middle).contains(wait), "wait {index} is {wait}");
        }
        backoff.forget(&1);
        assert!(backoff.failed(&1) <= Duration::from_millis(1250));
        assert_eq!(backoff.lock().len(), 1);
    }
}
