//! The fence that every write but the lease's own passes: open only while the lease is held, closed by time alone.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use tokio::time::Instant;

/// Whether this replica may write. Closed by time alone: a process that was stopped for a while cannot write when it
/// goes on, even before it hears that it lost the lease.
#[derive(Clone)]
pub(crate) struct Fence(Arc<Passage>);

enum Passage {
    Always,
    Until(Mutex<Option<Instant>>),
}

// === impl Fence ===

impl Fence {
    /// For an operator without leader election.
    pub(crate) fn always() -> Self {
        Self(Arc::new(Passage::Always))
    }

    /// Closed until the lease is held.
    pub(crate) fn closed() -> Self {
        Self(Arc::new(Passage::Until(Mutex::new(None))))
    }

    /// Whether a write may be sent now.
    pub(crate) fn is_open(&self) -> bool {
        match &*self.0 {
            Passage::Always => true,
            Passage::Until(until) => {
                let until = *until.lock().unwrap_or_else(PoisonError::into_inner);
                until.is_some_and(|until| Instant::now() < until)
            }
        }
    }

    /// Waits for a request only while the fence is open, and drops it unsent or unanswered when it is closed: what was
    /// not sent yet (a connection was being made, and then the process stood still) must not be sent any more.
    pub(crate) async fn pass<T>(&self, request: impl Future<Output = T>) -> Option<T> {
        let mut request = pin!(request);
        poll_fn(|context| {
            if self.is_open() {
                request.as_mut().poll(context).map(Some)
            } else {
                Poll::Ready(None)
            }
        })
        .await
    }

    /// As a renewal does.
    #[cfg(test)]
    pub(crate) fn open_for(&self, time: std::time::Duration) {
        self.set(Some(Instant::now() + time));
    }

    /// Opens it until then, or closes it.
    pub(crate) fn set(&self, open_until: Option<Instant>) {
        if let Passage::Until(until) = &*self.0 {
            *until.lock().unwrap_or_else(PoisonError::into_inner) = open_until;
        }
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence").field("open", &self.is_open()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::GIVE_UP;
    use std::time::Duration;

    // A leader that was paused must not write when it goes on: the fence closes by itself, before anybody tells it.
    #[tokio::test(start_paused = true)]
    async fn the_fence_closes_by_time_alone() {
        let fence = Fence::closed();
        assert!(!fence.is_open());
        fence.set(Some(Instant::now() + GIVE_UP));
        assert!(fence.is_open());
        tokio::time::advance(GIVE_UP).await;
        assert!(!fence.is_open());
        assert!(Fence::always().is_open());
    }

    // A pause may come between the decision to write and the first byte of it, while a connection is made.
    #[tokio::test(start_paused = true)]
    async fn a_request_that_stood_still_past_the_fence_is_not_sent() {
        let fence = Fence::closed();
        fence.set(Some(Instant::now() + GIVE_UP));
        let slowly = async |connected: Duration| {
            tokio::time::sleep(connected).await;
            "sent"
        };
        assert_eq!(fence.pass(slowly(GIVE_UP / 2)).await, Some("sent"));
        assert_eq!(fence.pass(slowly(GIVE_UP / 2)).await, None);
        assert_eq!(fence.pass(slowly(Duration::ZERO)).await, None);
        assert_eq!(Fence::always().pass(slowly(GIVE_UP)).await, Some("sent"));
    }
}
