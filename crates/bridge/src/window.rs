//! The window: how many messages, and how many of their bytes, may be under way at once. Entering
//! waits for room; that wait is the back-pressure. A permit leaves with the message and comes back
//! when the message is done, so the window bounds memory, not only a queue.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;

/// The two bounds of a window; whichever is reached first holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    /// Messages under way, at least 1.
    pub messages: usize,
    /// Payload bytes under way. One message larger than this still passes, alone.
    pub bytes: usize,
}

/// Gauges that follow a window; unregistered ones are harmless.
#[derive(Clone, Debug, Default)]
pub struct WindowGauges {
    /// Messages under way.
    pub messages: Gauge,
    /// Payload bytes under way.
    pub bytes: Gauge,
}

/// A shared bound on messages under way. Clones share one bound.
#[derive(Clone, Debug)]
pub struct Window {
    inner: Arc<Inner>,
}

/// The right of one message to be under way; dropping it makes room.
#[derive(Debug)]
pub struct Permit {
    inner: Arc<Inner>,
    bytes: usize,
}

#[derive(Debug)]
struct Inner {
    limits: WindowLimits,
    usage: Mutex<Usage>,
    room: Notify,
    gauges: WindowGauges,
}

#[derive(Debug, Default)]
struct Usage {
    messages: usize,
    bytes: usize,
}

// === impl WindowLimits ===

impl Default for WindowLimits {
    fn default() -> Self {
        Self {
            messages: 256,
            bytes: 32 * 1024 * 1024,
        }
    }
}

// === impl Window ===

impl Window {
    /// An empty window. A bound of zero messages counts as one: nothing could ever pass otherwise.
    #[must_use]
    pub fn new(limits: WindowLimits, gauges: WindowGauges) -> Self {
        let limits = WindowLimits {
            messages: limits.messages.max(1),
            ..limits
        };
        Self {
            inner: Arc::new(Inner {
                limits,
                usage: Mutex::default(),
                room: Notify::new(),
                gauges,
            }),
        }
    }

    /// Waits until a message of `bytes` fits, or until it would be alone.
    pub async fn enter(&self, bytes: usize) -> Permit {
        loop {
            // Created before the check: a release between the check and the wait is not missed.
            let room = self.inner.room.notified();
            if let Some(permit) = self.try_enter(bytes) {
                return permit;
            }
            room.await;
        }
    }

    fn try_enter(&self, bytes: usize) -> Option<Permit> {
        let limits = self.inner.limits;
        let mut usage = self.inner.lock();
        let alone = usage.messages == 0;
        let fits = usage.messages < limits.messages && usage.bytes.saturating_add(bytes) <= limits.bytes;
        if !alone && !fits {
            return None;
        }
        usage.messages += 1;
        usage.bytes += bytes;
        self.inner.publish(&usage);
        drop(usage);
        Some(Permit {
            inner: Arc::clone(&self.inner),
            bytes,
        })
    }

    /// Messages and bytes under way at this moment.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        let usage = self.inner.lock();
        (usage.messages, usage.bytes)
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> WindowLimits {
        self.inner.limits
    }
}

// === impl Permit ===

impl Permit {
    /// Accounts for a message whose payload changed size on its way. Growing never waits (the
    /// message is already inside, and whatever would have to leave first may be behind it);
    /// instead nothing new enters until the excess is gone.
    pub fn resize(&mut self, bytes: usize) {
        let mut usage = self.inner.lock();
        usage.bytes = usage.bytes.saturating_sub(self.bytes).saturating_add(bytes);
        self.bytes = bytes;
        self.inner.publish(&usage);
        drop(usage);
        self.inner.room.notify_waiters();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut usage = self.inner.lock();
        usage.messages = usage.messages.saturating_sub(1);
        usage.bytes = usage.bytes.saturating_sub(self.bytes);
        self.inner.publish(&usage);
        drop(usage);
        self.inner.room.notify_waiters();
    }
}

// === impl Inner ===

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Usage> {
        // Counters stay valid when a holder panicked: each change is complete in itself.
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, usage: &Usage) {
        let as_gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.gauges.messages.set(as_gauge(usage.messages));
        self.gauges.bytes.set(as_gauge(usage.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn window(messages: usize, bytes: usize) -> Window {
        Window::new(WindowLimits { messages, bytes }, WindowGauges::default())
    }

    #[test]
    fn the_smaller_bound_wins() {
        let by_count = window(2, 1000);
        let _a = by_count.try_enter(1).expect("room");
        let _b = by_count.try_enter(1).expect("room");
        assert!(by_count.try_enter(1).is_none());

        let by_bytes = window(100, 10);
        let _c = by_bytes.try_enter(6).expect("room");
        assert!(by_bytes.try_enter(5).is_none());
        assert!(by_bytes.try_enter(4).is_some());
    }

    #[test]
    fn a_message_larger_than_the_window_passes_alone() {
        let window = window(10, 10);
        let huge = window.try_enter(50).expect("alone");
        assert!(window.try_enter(0).is_none());
        drop(huge);
        let _small = window.try_enter(1).expect("room");
        assert!(window.try_enter(50).is_none());
    }

    #[test]
    fn a_message_that_grew_keeps_new_ones_out_until_it_leaves() {
        let window = window(10, 10);
        let mut grown = window.try_enter(1).expect("room");
        grown.resize(30);
        assert_eq!(window.usage(), (1, 30));
        assert!(window.try_enter(1).is_none());
        drop(grown);
        assert_eq!(window.usage(), (0, 0));
        assert!(window.try_enter(1).is_some());
    }

    #[tokio::test]
    async fn a_waiting_message_enters_as_soon_as_one_leaves() {
        let window = window(1, 10);
        let first = window.enter(1).await;
        let mut second = Box::pin(window.enter(1));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.now_or_never().is_some());
    }
}
