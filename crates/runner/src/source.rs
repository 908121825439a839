//! Ledgers of a folder, in order, each once. With an end it stops there; without one it follows
//! the folder as it grows. Nothing is ever skipped: a ledger that is missing while later ones are
//! there ends the run with its number. Blocking, on a thread of its own: whoever takes the ledgers
//! sets the pace.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use flowctl_stellar::{Archive, ArchiveError, Ledger, LedgerRange};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::blueprint::FolderSettings;

/// How reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// The last ledger of the range was given.
    Complete,
    /// Somebody asked to stop.
    Stopped,
}

/// Why reading failed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The archive cannot give the next ledger.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A followed folder stayed broken for too long.
    #[error("{source}; it was waited for {waited:?} (gap_timeout)")]
    WaitedFor {
        /// What the folder said last.
        source: ArchiveError,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A bounded range without a start, in a folder without ledgers.
    #[error("the folder {0} has no ledgers; set start_ledger or check the path")]
    Empty(std::path::PathBuf),
    /// The ledger cannot be turned to JSON.
    #[error("ledger {ledger}: {reason}")]
    Encode {
        /// The ledger.
        ledger: u32,
        /// Why not.
        reason: String,
    },
    /// Whoever takes the ledgers is gone; the reason is told there.
    #[error("the pipeline ended while ledgers were being read")]
    Abandoned,
}

/// Reads a folder from a ledger on.
pub(crate) struct FolderReader<'a> {
    settings: &'a FolderSettings,
    /// The ledger to give next; `None` for the first one there is.
    next: Option<u32>,
    stop: &'a CancellationToken,
    runtime: Handle,
    /// Since when the folder has been broken in a way that may heal.
    trouble: Option<Instant>,
    /// Whether reaching the head was logged; later heads are seen in the metrics.
    at_head_before: bool,
}

/// What to do about an error of the archive.
enum Patience {
    /// The next ledger is simply not written yet.
    NotYet,
    /// May heal: another writer is at work.
    Grace,
    /// Cannot heal.
    None,
}

// === impl FolderReader ===

impl<'a> FolderReader<'a> {
    /// Must be called on a thread of `runtime` that may block.
    pub(crate) fn new(
        settings: &'a FolderSettings,
        next: Option<u32>,
        stop: &'a CancellationToken,
        runtime: Handle,
    ) -> Self {
        Self {
            settings,
            next,
            stop,
            runtime,
            trouble: None,
            at_head_before: false,
        }
    }

    /// Gives ledgers to `emit` until the range ends, somebody asks to stop, or something is wrong.
    pub(crate) fn read(
        mut self,
        mut emit: impl FnMut(Ledger) -> Result<ControlFlow<()>, SourceError>,
    ) -> Result<Reading, SourceError> {
        loop {
            if self.stop.is_cancelled() {
                return Ok(Reading::Stopped);
            }
            match self.pass(&mut emit) {
                Ok(Some(reading)) => return Ok(reading),
                Ok(None) => self.trouble = None,
                Err(SourceError::Archive(error)) => self.bear(error)?,
                Err(error) => return Err(error),
            }
            self.wait();
        }
    }

    /// Gives what is there now. `None`: there may be more later.
    fn pass(
        &mut self,
        emit: &mut impl FnMut(Ledger) -> Result<ControlFlow<()>, SourceError>,
    ) -> Result<Option<Reading>, SourceError> {
        let archive = Archive::open(&self.settings.path)?;
        let Some(start) = self.next.or(archive.span().map(|(first, _)| first)) else {
            return match self.settings.end_ledger {
                Some(_) => Err(SourceError::Empty(self.settings.path.clone())),
                None => Ok(None),
            };
        };
        let range = LedgerRange {
            start,
            end: self.settings.end_ledger,
        };
        for ledger in archive.ledgers(range) {
            let ledger = ledger?;
            if self.stop.is_cancelled() {
                return Ok(Some(Reading::Stopped));
            }
            let sequence = ledger.sequence;
            self.trouble = None;
            if emit(ledger)?.is_break() {
                return Ok(Some(Reading::Stopped));
            }
            self.next = sequence.checked_add(1);
        }
        Ok(self.settings.end_ledger.map(|_| Reading::Complete))
    }

    /// Decides whether an error is waited out.
    fn bear(&mut self, error: ArchiveError) -> Result<(), SourceError> {
        match self.patience(&error) {
            Patience::NotYet => {
                self.trouble = None;
                Ok(())
            }
            Patience::None => Err(error.into()),
            Patience::Grace => {
                let now = Instant::now();
                if self.trouble.is_none() {
                    warn!(%error, gap_timeout = ?self.settings.gap_timeout, "waiting for the folder to heal");
                }
                let since = *self.trouble.get_or_insert(now);
                let waited = now - since;
                if waited < self.settings.gap_timeout {
                    return Ok(());
                }
                Err(SourceError::WaitedFor { source: error, waited })
            }
        }
    }

    fn patience(&self, error: &ArchiveError) -> Patience {
        if self.settings.end_ledger.is_some() {
            return Patience::None;
        }
        match error {
            ArchiveError::Missing { after: None, .. } => Patience::NotYet,
            // A later file first, or half a file: its writer may still be at work.
            ArchiveError::Missing { .. } | ArchiveError::Content { .. } => Patience::Grace,
            ArchiveError::Io { .. } if self.next != self.settings.start_ledger => Patience::Grace,
            _ => Patience::None,
        }
    }

    fn wait(&mut self) {
        if self.trouble.is_none() && !std::mem::replace(&mut self.at_head_before, true) {
            info!(next = self.next, poll_interval = ?self.settings.poll_interval, "at the head of the folder");
        }
        // Trouble is looked at more often: its grace may be shorter than the poll interval.
        let pause = match self.trouble {
            Some(_) => self.settings.poll_interval.min(Duration::from_secs(1)),
            None => self.settings.poll_interval,
        };
        self.runtime.block_on(async {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        });
    }
}
