//! The directory of a cluster, and the right to have it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use flowctl_supervisor::journal::{self, Journal};
use flowctl_supervisor::unwind::{PATIENCE, unwind};

/// A directory that is ours.
pub(crate) struct Place {
    /// Held as long as this lives; the kernel frees it however we end.
    _lock: Option<File>,
    directory: PathBuf,
}

// === impl Place ===

impl Place {
    /// Takes the lock, if there is one, and clears what a killed supervisor left. None: somebody else has it.
    pub(crate) fn take(directory: &Path, lock: Option<&Path>) -> Result<Option<Self>, String> {
        let held = match lock.map(try_lock).transpose()? {
            Some(None) => return Ok(None),
            Some(held) => held,
            None => None,
        };
        let journal = directory.join(journal::FILE_NAME);
        // Without a lock, a living one may be of another process: nothing of it is ours to clear.
        if journal.exists() && journal::living_supervisor(&journal).is_none() {
            let mut left = Journal::open(&journal).map_err(|error| unusable(&journal, &error))?;
            let failures = unwind(&mut left, PATIENCE);
            if !failures.is_empty() {
                let place = directory.display();
                return Err(format!(
                    "what an earlier cluster left in {place} stays: {}",
                    failures.join("; ")
                ));
            }
        }
        Ok(Some(Self {
            _lock: held,
            directory: directory.to_owned(),
        }))
    }

    /// Makes the directory and opens the journal in it.
    pub(crate) fn open(&self) -> Result<Journal, String> {
        let logs = self.directory.join("logs");
        fs::create_dir_all(&logs).map_err(|error| unusable(&logs, &error))?;
        let journal = self.directory.join(journal::FILE_NAME);
        Journal::open(&journal).map_err(|error| unusable(&journal, &error))
    }
}

/// Unwinds what a killed supervisor left. A living one keeps what it has.
pub(crate) fn clear(directory: &Path, lock: Option<&Path>) -> Result<(), String> {
    Place::take(directory, lock).map(drop)
}

fn try_lock(path: &Path) -> Result<Option<File>, String> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|error| unusable(path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(unusable(path, &error)),
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> String {
    format!("cannot use {}: {error}", path.display())
}
