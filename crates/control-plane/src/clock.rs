//! The two clocks: a steady one tells how long something is silent, the wall clock is only reported. Whatever sets the
//! wall clock (a person, NTP, a suspended machine) must not make a service expire or come back.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Now, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Never goes back; means nothing outside this process.
    pub steady: Instant,
    /// For people, and for other processes; may jump in either direction.
    pub wall: SystemTime,
}

/// Where [`Now`] comes from.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Reads both clocks.
    fn now(&self) -> Now;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// A clock that stands until it is moved, for tests.
#[derive(Debug)]
pub struct ManualClock(Mutex<Now>);

// === impl SystemClock ===

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

// === impl ManualClock ===

impl ManualClock {
    /// Time passes, on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.steady += by;
        now.wall += by;
    }

    /// Somebody sets the wall clock.
    pub fn set_wall(&self, wall: SystemTime) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).wall = wall;
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self(Mutex::new(SystemClock.now()))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
