//! A message and the duty to finish it. A [`Handle`] is the only thing that can acknowledge a
//! ledger; it is not cloneable, and dropping it gives the ledger back. Fan-out splits the duty
//! into [`Share`]s, and the last one to finish finishes the handle.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flowctl_bridge::{ArchiveSource, Permit};

use crate::tracker::Tracker;

/// What goes through a pipeline.
#[derive(Debug)]
pub(crate) struct Message {
    /// JSON.
    pub(crate) payload: Bytes,
    /// Properties, as the last processor left them.
    pub(crate) metadata: BTreeMap<String, String>,
    /// The duty to finish it.
    pub(crate) handle: Handle,
}

/// Where a message came from; the same for its whole way.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The ledger.
    pub(crate) ledger: u32,
    /// Correlation id: `<pipeline>/<ledger>/<n>`, the same in every run.
    pub(crate) trace_id: String,
    /// Properties that the source gave; no processor can lose them.
    pub(crate) metadata: BTreeMap<String, String>,
    /// The file it was read from.
    pub(crate) archive: ArchiveSource,
}

/// The duty to finish one ledger, and its place in the window.
#[derive(Debug)]
pub(crate) struct Handle {
    origin: Arc<Origin>,
    tracker: Tracker,
    permit: Permit,
    finished: bool,
}

/// One consumer's part of a handle.
#[derive(Debug)]
pub(crate) struct Share {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    origin: Arc<Origin>,
    left: AtomicUsize,
    handle: Mutex<Option<Handle>>,
}

// === impl Handle ===

impl Handle {
    /// A ledger enters the pipeline.
    pub(crate) fn start(origin: Origin, permit: Permit, tracker: &Tracker) -> Self {
        tracker.start(origin.ledger);
        Self {
            origin: Arc::new(origin),
            tracker: tracker.clone(),
            permit,
            finished: false,
        }
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The payload has another size now.
    pub(crate) fn resize(&mut self, bytes: usize) {
        self.permit.resize(bytes);
    }

    /// Acknowledges the ledger.
    pub(crate) fn finish(mut self) {
        self.finished = true;
        self.tracker.finish(self.origin.ledger);
    }

    /// Splits the duty among `count` consumers.
    pub(crate) fn share(self, count: usize) -> Vec<Share> {
        let shared = Arc::new(Shared {
            origin: Arc::clone(&self.origin),
            left: AtomicUsize::new(count),
            handle: Mutex::new(Some(self)),
        });
        (0..count)
            .map(|_| Share {
                shared: Arc::clone(&shared),
            })
            .collect()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.finished {
            self.tracker.give_back(self.origin.ledger);
        }
    }
}

// === impl Share ===

impl Share {
    pub(crate) fn origin(&self) -> &Origin {
        &self.shared.origin
    }

    /// This consumer has the message. A share that is dropped instead keeps the handle from ever
    /// being finished.
    pub(crate) fn finish(self) {
        if self.shared.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let handle = self.shared.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle {
            handle.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowctl_bridge::{Window, WindowGauges, WindowLimits};

    async fn handle(tracker: &Tracker, window: &Window, ledger: u32) -> Handle {
        let origin = Origin {
            ledger,
            trace_id: String::new(),
            metadata: BTreeMap::new(),
            archive: ArchiveSource::default(),
        };
        Handle::start(origin, window.enter(1).await, tracker)
    }

    #[tokio::test]
    async fn a_ledger_is_acknowledged_only_when_every_consumer_has_it() {
        let tracker = Tracker::default();
        let window = Window::new(WindowLimits::default(), WindowGauges::default());
        let mut shares = handle(&tracker, &window, 7).await.share(3);
        shares.pop().expect("three").finish();
        shares.pop().expect("two").finish();
        assert_eq!(tracker.progress().finished, 0);
        assert_eq!(window.usage(), (1, 1), "the place is kept until the end");
        shares.pop().expect("one").finish();
        assert_eq!(tracker.progress().finished, 1);
        assert_eq!(window.usage(), (0, 0));
    }

    #[tokio::test]
    async fn dropping_is_giving_back() {
        let tracker = Tracker::default();
        let window = Window::new(WindowLimits::default(), WindowGauges::default());
        drop(handle(&tracker, &window, 7).await);
        let mut shares = handle(&tracker, &window, 8).await.share(2);
        shares.pop().expect("two").finish();
        drop(shares);
        let progress = tracker.progress();
        assert_eq!((progress.finished, progress.given_back), (0, 2));
        assert_eq!(tracker.committed(), None);
        assert_eq!(window.usage(), (0, 0));
    }
}
