//! What a run did, in numbers, and how it ended when nothing failed.

use tracing::info;

/// How a run ended without a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The source came to its end and everything was acknowledged.
    Complete,
    /// It was asked to stop, as a pipeline that follows its source always is at some time.
    Stopped,
    /// It was asked to stop before the last ledger of its range: the work is not done.
    Interrupted,
}

/// What a run did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How it ended.
    pub ended: Ended,
    /// Ledgers that entered the pipeline.
    pub read: u64,
    /// Those that every consumer finished.
    pub acknowledged: u64,
    /// Those that ended because a processor skipped them; not counted as acknowledged.
    pub skipped: u64,
    /// Those that were given back; the next run reads them again.
    pub given_back: u64,
    /// The first and last ledger that entered.
    pub range: Option<(u32, u32)>,
    /// Last ledger up to which everything is done, this run's or an earlier one's.
    pub checkpoint: Option<u32>,
}

// === impl Summary ===

impl Summary {
    /// Nothing was read.
    pub(crate) fn nothing(ended: Ended, checkpoint: Option<u32>) -> Self {
        Self {
            ended,
            read: 0,
            acknowledged: 0,
            skipped: 0,
            given_back: 0,
            range: None,
            checkpoint,
        }
    }

    /// The last line of a run's log.
    pub(crate) fn log(&self, pipeline: &str) {
        info!(
            pipeline,
            read = self.read,
            acknowledged = self.acknowledged,
            skipped = self.skipped,
            given_back = self.given_back,
            first_ledger = self.range.map(|(first, _)| first),
            last_ledger = self.range.map(|(_, last)| last),
            done_up_to = self.checkpoint,
            "the pipeline ended"
        );
    }
}
