//! What can be wrong with the file, and the way out.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Storage;

/// The registry's file cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else has it.
    #[error(
        "cannot open the registry file {}: another process has it open; stop that one, or give another file with --db-path",
        .0.display()
    )]
    Locked(PathBuf),
    /// It is no file of ours.
    #[error(
        "cannot open the registry file {}: it is not a file of this program ({found}); move it away, or give another file with --db-path",
        .path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        found: &'static str,
    },
    /// It is damaged.
    #[error(
        "cannot read the registry file {}: it is damaged ({why}); restore a copy, or move it away to start empty: services register again by themselves",
        .path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What redb or a decoder says.
        why: String,
    },
    /// A later version wrote it.
    #[error(
        "cannot read the registry file {}: it has format {found}, and this version knows up to {known}; use the newer version, or move the file away to start empty",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format it has.
        found: u64,
        /// The newest format that is known here.
        known: u64,
    },
    /// The operating system refuses.
    #[error("cannot {action} the registry file {}: {why}; check the folder's owner and room, or run with --no-persistence", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: Arc<str>,
    },
    /// The store was closed before the write was done.
    #[error("the registry is shutting down and has not kept the change; try again")]
    Closed,
}

// === impl StoreError ===

impl StoreError {
    /// What was read from the store makes no sense.
    pub(crate) fn corrupt(storage: &Storage, why: String) -> Self {
        let path = match storage {
            Storage::Memory => PathBuf::new(),
            Storage::File(path) => path.clone(),
        };
        Self::Corrupt { path, why }
    }

    pub(super) fn io(action: &'static str, path: &Path, why: &dyn std::fmt::Display) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            why: why.to_string().into(),
        }
    }

    pub(super) fn of(action: &'static str, path: &Path, error: redb::Error) -> Self {
        let corrupt = |why: String| Self::Corrupt {
            path: path.to_owned(),
            why,
        };
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::Locked(path.to_owned()),
            redb::Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
                corrupt("its end is missing".to_owned())
            }
            error @ (redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::DatabaseClosed) => {
                Self::io(action, path, &error)
            }
            // Tables of other types, formats that never were ours: no file of ours, or one that lost its sense.
            other => corrupt(other.to_string()),
        }
    }
}
