//! Token buckets: how many writes the operator may send. A pass never waits for one: who gets no token comes back when
//! there will be one. Lease renewals have no budget, so that a busy operator stays the leader.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A bucket that fills at a steady rate.
#[derive(Debug)]
pub(crate) struct Budget {
    per_second: f64,
    burst: f64,
    state: Mutex<(f64, Instant)>,
}

// === impl Budget ===

impl Budget {
    /// A full bucket of `burst` tokens that fills with `per_second`.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let burst = f64::from(burst);
        Self {
            per_second: f64::from(per_second),
            burst,
            state: Mutex::new((burst, Instant::now())),
        }
    }

    /// Takes a token, or says after what time there will be one.
    pub(crate) fn take(&self) -> Result<(), Duration> {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, filled) = *state;
        let tokens = (tokens + self.per_second * (now - filled).as_secs_f64()).min(self.burst);
        let left = tokens - 1.0;
        if left < 0.0 {
            *state = (tokens, now);
            return Err(Duration::from_secs_f64(-left / self.per_second));
        }
        *state = (left, now);
        Ok(())
    }

    /// Takes a token even when there is none: the debt delays whoever asks [`Budget::ready`] next.
    pub(crate) fn spend(&self) {
        if self.take().is_err() {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).0 -= 1.0;
        }
    }

    /// Whether there is no debt, or when it will be paid.
    pub(crate) fn ready(&self) -> Result<(), Duration> {
        let now = Instant::now();
        let (tokens, filled) = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = tokens + self.per_second * (now - filled).as_secs_f64();
        if tokens >= 0.0 {
            Ok(())
        } else {
            Err(Duration::from_secs_f64(-tokens / self.per_second))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A storm of changed verdicts must not become a storm of writes.
    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_the_rate() {
        let budget = Budget::new(20, 5);
        let taken = (0..100).filter(|_| budget.take().is_ok()).count();
        assert_eq!(taken, 5);
        let wait = budget.take().expect_err("empty");
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(50), "{wait:?}");
        let mut taken = 0;
        for _ in 0..200 {
            tokio::time::advance(Duration::from_millis(10)).await;
            taken += usize::from(budget.take().is_ok());
        }
        assert!((39..=41).contains(&taken), "{taken} in two seconds");
    }

    // A pass that has begun ends; the next ones wait until the rate is kept again.
    #[tokio::test(start_paused = true)]
    async fn debt_delays_the_next() {
        let budget = Budget::new(10, 2);
        for _ in 0..7 {
            assert!(budget.ready().is_ok() || budget.take().is_err());
            budget.spend();
        }
        let wait = budget.ready().expect_err("in debt");
        assert!((400..=500).contains(&wait.as_millis()), "{wait:?}");
        tokio::time::advance(wait).await;
        assert_eq!(budget.ready(), Ok(()));
    }
}
