//! A narrow lane for objects whose last pass took long and failed: behind a webhook that does not answer, each of them
//! holds a worker for as long as a request may take, and is woken again by every event. However many there are, most
//! workers are left for everybody else. An object leaves the lane with the first pass that succeeds: one that fails
//! at once may only repeat what was slow before.

use std::{
    collections::HashSet,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A request that fails after so long, or a pass, was waiting for somebody: the apiserver itself refuses at once.
pub(crate) const SLOW: Duration = Duration::from_secs(5);
/// So many of them may be in work: a quarter of the workers, as many as there are by default.
const PLACES: usize = 2;

/// Who is in the lane. A key whose object is gone leaves it with the pass that finds this out.
#[derive(Debug)]
pub(crate) struct Lane<T> {
    slow: Mutex<HashSet<T>>,
    places: Arc<Semaphore>,
}

/// The right to begin a pass, held until its end.
#[derive(Debug)]
pub(crate) struct Place {
    _taken: Option<OwnedSemaphorePermit>,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing failed.
    Good,
    /// A write failed, or the pass as a whole.
    Bad,
}

// === impl Lane ===

impl<T: Clone + Eq + Hash> Lane<T> {
    pub(crate) fn new() -> Self {
        Self {
            slow: Mutex::default(),
            places: Arc::new(Semaphore::new(PLACES)),
        }
    }

    /// Whether a pass over this key may begin now; `None`: others like it are in work.
    pub(crate) fn enter(&self, key: &T) -> Option<Place> {
        if !self.lock().contains(key) {
            return Some(Place { _taken: None });
        }
        let taken = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Place { _taken: Some(taken) })
    }

    /// A pass over this key has ended after this time.
    pub(crate) fn ended(&self, key: &T, end: End, took: Duration) {
        let mut slow = self.lock();
        match end {
            End::Good => drop(slow.remove(key)),
            End::Bad if took >= SLOW => drop(slow.insert(key.clone())),
            End::Bad => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<T>> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One tenant's webhook that hangs would hold every worker, and all other tenants would wait for it.
    #[test]
    fn those_that_hang_leave_room_for_the_others() {
        let lane = Lane::new();
        for key in 0..20 {
            assert!(lane.enter(&key).is_some(), "nobody is known to be slow");
            lane.ended(&key, End::Bad, SLOW);
        }
        let mut places: Vec<_> = (0..20).filter_map(|key| lane.enter(&key)).collect();
        assert_eq!(places.len(), PLACES);
        assert!((20..40).all(|key| lane.enter(&key).is_some()), "everybody else");
        drop(places.pop());
        assert!(lane.enter(&7).is_some(), "whose turn comes");
        lane.ended(&7, End::Bad, Duration::from_millis(10));
        assert!(lane.lock().contains(&7), "the slow answer was only repeated");
        lane.ended(&7, End::Good, Duration::from_millis(10));
        lane.ended(&8, End::Good, SLOW * 2);
        lane.ended(&30, End::Bad, Duration::from_millis(10));
        let all = [7, 8, 30, 7, 8, 30].map(|key| lane.enter(&key));
        assert!(
            all.iter().all(Option::is_some),
            "who succeeds, or is refused at once, is not slow"
        );
        assert_eq!(lane.lock().len(), 18);
    }
}
