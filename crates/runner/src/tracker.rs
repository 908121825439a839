//! Which ledgers are under way, and so how far everything is acknowledged: the smallest unfinished
//! one minus one, never the newest seen. A ledger that was given back stays unfinished for ever.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts the ledgers of one run. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracker {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    unfinished: BTreeSet<u32>,
    first: Option<u32>,
    newest: Option<u32>,
    progress: Progress,
}

/// What became of the ledgers of a run so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Ledgers that entered the pipeline.
    pub(crate) started: u64,
    /// Those that every consumer finished, or that a processor skipped.
    pub(crate) finished: u64,
    /// Those that were dropped on the way; they are read again by the next run.
    pub(crate) given_back: u64,
    /// The smallest and largest ledger that entered.
    pub(crate) range: Option<(u32, u32)>,
}

// === impl Tracker ===

impl Tracker {
    /// A ledger enters the pipeline. Ledgers enter in order.
    pub(crate) fn start(&self, ledger: u32) {
        let mut state = self.lock();
        state.unfinished.insert(ledger);
        state.first.get_or_insert(ledger);
        state.newest = state.newest.max(Some(ledger));
        state.progress.started += 1;
    }

    /// Every consumer has finished the ledger.
    pub(crate) fn finish(&self, ledger: u32) {
        let mut state = self.lock();
        if state.unfinished.remove(&ledger) {
            state.progress.finished += 1;
        }
    }

    /// The ledger was dropped before it was finished.
    pub(crate) fn give_back(&self, ledger: u32) {
        let mut state = self.lock();
        if state.unfinished.contains(&ledger) {
            state.progress.given_back += 1;
        }
    }

    /// The last ledger up to which everything is finished; `None` while nothing is.
    pub(crate) fn committed(&self) -> Option<u32> {
        let state = self.lock();
        match state.unfinished.first() {
            None => state.newest,
            Some(oldest) if Some(*oldest) == state.first => None,
            Some(oldest) => oldest.checked_sub(1),
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        let state = self.lock();
        Progress {
            range: state.first.zip(state.newest),
            ..state.progress
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete in itself, so a panicking holder leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkpoint_never_passes_an_unfinished_ledger() {
        let tracker = Tracker::default();
        for ledger in 10..15 {
            tracker.start(ledger);
        }
        assert_eq!(tracker.committed(), None);
        tracker.finish(11);
        tracker.finish(14);
        assert_eq!(tracker.committed(), None, "10 is not finished");
        tracker.finish(10);
        assert_eq!(tracker.committed(), Some(11));
        tracker.finish(13);
        tracker.finish(12);
        assert_eq!(tracker.committed(), Some(14));
    }

    #[test]
    fn a_ledger_that_was_given_back_holds_the_checkpoint_for_ever() {
        let tracker = Tracker::default();
        tracker.start(10);
        tracker.start(11);
        tracker.start(12);
        tracker.finish(10);
        tracker.give_back(11);
        tracker.finish(12);
        assert_eq!(tracker.committed(), Some(10));
        let progress = tracker.progress();
        assert_eq!((progress.finished, progress.given_back), (2, 1));
        assert_eq!(progress.range, Some((10, 12)));
    }
}
