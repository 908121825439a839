//! What outlives the process: registrations, lives, runs and alerts, in one redb file. A thread of its own writes; it takes all
//! that is waiting into one transaction, so that a thousand registrations at once cost few fsyncs. The registry never reads
//! from here but when it opens.

mod error;
mod file;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

pub use error::StoreError;
pub(crate) use file::Contents;
use file::StoreFile;
use writer::Writer;

use crate::registry::{KeptLife, RunNumber};

/// Where the registry is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Nowhere: a restart forgets everything.
    Memory,
    /// In this file, which is made if it is not there, with mode 0600.
    File(PathBuf),
}

/// Something to write.
#[derive(Debug)]
pub(crate) enum Write {
    PutService { id: String, kept: Vec<u8> },
    RemoveServices(Vec<String>),
    Lives(Vec<(String, KeptLife)>),
    PutRun { number: RunNumber, kept: Vec<u8> },
    RemoveRuns(Vec<RunNumber>),
    PutAlert { id: String, kept: Vec<u8> },
    RemoveAlert(String),
}

/// The way to the disk, or to nowhere.
#[derive(Debug)]
pub(crate) enum Store {
    Memory,
    File(Writer),
}

/// Room for a write among those that wait for the disk. Whoever can wait takes some before it changes anything: callers that
/// send and give up faster than the disk writes would otherwise fill the memory.
#[derive(Debug, Default)]
#[expect(dead_code, reason = "it is held, not read")]
pub(crate) struct Room(Option<OwnedSemaphorePermit>);

/// A write that was handed over.
#[derive(Debug)]
#[must_use = "what is not awaited may never be on disk"]
pub(crate) enum Written {
    Nowhere,
    Soon(oneshot::Receiver<Result<(), StoreError>>),
}

// === impl Store ===

impl Store {
    /// Opens or makes the file and reads it whole.
    pub(crate) fn open(storage: &Storage) -> Result<(Self, Contents), StoreError> {
        match storage {
            Storage::Memory => Ok((Self::Memory, Contents::default())),
            Storage::File(path) => {
                let file = StoreFile::open(path)?;
                let contents = file.read()?;
                Ok((Self::File(Writer::start(file)?), contents))
            }
        }
    }

    /// A disk that hangs.
    #[cfg(test)]
    pub(crate) fn hung() -> Self {
        Self::File(Writer::hung())
    }

    /// Waits for room for so many bytes.
    pub(crate) async fn room(&self, bytes: usize) -> Room {
        match self {
            Self::Memory => Room(None),
            Self::File(writer) => Room(writer.room(bytes).await),
        }
    }

    /// Hands writes over. They reach the disk together, and in the order in which they were handed over. Those that cannot wait
    /// for room, and are bounded otherwise, come with `Room::default()`.
    pub(crate) fn write(&self, writes: Vec<Write>, room: Room) -> Written {
        match self {
            Self::Memory => Written::Nowhere,
            Self::File(writer) => Written::Soon(writer.send(writes, room)),
        }
    }

    /// Waits until everything that was handed over is on disk, and releases the file.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        match self {
            Self::Memory => Ok(()),
            Self::File(writer) => writer.close().await,
        }
    }

    /// Why the disk does not take writes at present.
    pub(crate) fn failure(&self) -> Option<StoreError> {
        match self {
            Self::Memory => None,
            Self::File(writer) => writer.failure(),
        }
    }
}

// === impl Written ===

impl Written {
    pub(crate) async fn wait(self) -> Result<(), StoreError> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Soon(answer) => answer.await.unwrap_or(Err(StoreError::Closed)),
        }
    }
}
