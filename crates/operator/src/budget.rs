//! Token buckets: how many writes the operator may send. A pass never waits for one: it is not begun before there is one,
//! or its status joins the `line`. Lease renewals have no budget, so that a busy operator stays the leader.

use std::{
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A bucket that fills at a steady rate, or one that is never empty.
#[derive(Debug)]
pub(crate) struct Budget(Option<Bucket>);

#[derive(Debug)]
struct Bucket {
    per_second: f64,
    burst: f64,
    state: Mutex<(f64, Instant)>,
}

// === impl Budget ===

impl Budget {
    /// For all writes together: a full bucket that fills at this rate, and holds what comes in four seconds. `None`: no
    /// limit.
    pub(crate) fn of_writes(per_second: Option<NonZeroU32>) -> Self {
        Self::new(per_second.map(|rate| (rate.get().into(), 4.0 * f64::from(rate.get()))))
    }

    /// For statuses that tell no more than what pods do: a fifth of all writes, so that flapping pods leave room for what
    /// users ask for.
    pub(crate) fn of_statuses(per_second: Option<NonZeroU32>) -> Self {
        let fifth = per_second.map(|rate| f64::from(rate.get()) / 5.0);
        Self::new(fifth.map(|fifth| (fifth, (2.0 * fifth).max(1.0))))
    }

    fn new(limit: Option<(f64, f64)>) -> Self {
        Self(limit.map(|(per_second, burst)| Bucket {
            per_second,
            burst,
            state: Mutex::new((burst, Instant::now())),
        }))
    }

    /// Takes a token, or says after what time there will be one.
    pub(crate) fn take(&self) -> Result<(), Duration> {
        self.0.as_ref().map_or(Ok(()), |bucket| bucket.take_above(0.0))
    }

    /// Takes a token that nobody else needs now: only while the bucket is more than half full.
    pub(crate) fn take_spare(&self) -> Result<(), Duration> {
        self.0
            .as_ref()
            .map_or(Ok(()), |bucket| bucket.take_above(bucket.burst / 2.0))
    }

    /// Takes a token even when there is none: the debt delays whoever asks [`Budget::ready`] next.
    pub(crate) fn spend(&self) {
        if let Some(bucket) = &self.0
            && bucket.take_above(0.0).is_err()
        {
            bucket.lock().0 -= 1.0;
        }
    }

    /// Whether there is no debt, or when it will be paid.
    pub(crate) fn ready(&self) -> Result<(), Duration> {
        self.0.as_ref().map_or(Ok(()), Bucket::ready)
    }
}

// === impl Bucket ===

impl Bucket {
    /// Takes a token if `floor` tokens are left then.
    fn take_above(&self, floor: f64) -> Result<(), Duration> {
        let now = Instant::now();
        let mut state = self.lock();
        let (tokens, filled) = *state;
        let tokens = (tokens + self.per_second * (now - filled).as_secs_f64()).min(self.burst);
        let left = tokens - 1.0;
        if left < floor {
            *state = (tokens, now);
            // Rounded up: a wait of nothing would be asked for again and again.
            let wait = Duration::from_secs_f64((floor - left) / self.per_second);
            return Err(wait.max(Duration::from_millis(1)));
        }
        *state = (left, now);
        Ok(())
    }

    fn ready(&self) -> Result<(), Duration> {
        let now = Instant::now();
        let (tokens, filled) = *self.lock();
        let tokens = tokens + self.per_second * (now - filled).as_secs_f64();
        if tokens >= 0.0 {
            Ok(())
        } else {
            Err(Duration::from_secs_f64(-tokens / self.per_second))
        }
    }

    fn lock(&self) -> MutexGuard<'_, (f64, Instant)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A storm of changed verdicts must not become a storm of writes.
    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_the_rate() {
        let budget = Budget::new(Some((20.0, 5.0)));
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

    // Who says that there is no limit must not find one; the smallest limit still lets everything through, in time.
    #[tokio::test(start_paused = true)]
    async fn no_limit_is_none_and_the_smallest_is_not_nothing() {
        let unlimited = [Budget::of_writes(None), Budget::of_statuses(None)];
        for budget in &unlimited {
            assert!((0..100_000).all(|_| budget.take().is_ok()) && budget.ready().is_ok());
        }
        let one = NonZeroU32::new(1);
        for budget in [Budget::of_writes(one), Budget::of_statuses(one)] {
            while budget.take().is_ok() {}
            tokio::time::advance(Duration::from_secs(5)).await;
            assert_eq!(budget.take(), Ok(()));
        }
    }

    // A pass that has begun ends; the next ones wait until the rate is kept again.
    #[tokio::test(start_paused = true)]
    async fn debt_delays_the_next() {
        let budget = Budget::new(Some((10.0, 2.0)));
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
