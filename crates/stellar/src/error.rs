//! What can go wrong while reading an archive. Every message names the file or the ledger, and
//! what to do about it; nothing here decides whether to retry.

use std::path::PathBuf;

use crate::archive::LedgerRange;
use crate::name::NameProblem;

/// A failure to list an archive or to read a ledger from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The operating system refused: missing folder, permissions, a failing disk.
    #[error("cannot read {}: {source}; check that the path exists and that this user may read it", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file's name claims a range that cannot be.
    #[error("cannot use ledger file {}: {problem}; rename it or take it out of the folder", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// What is wrong with its name.
        problem: NameProblem,
    },
    /// A file's content is not what a ledger file holds, or not what its name says.
    #[error("cannot read ledger file {} at byte {offset} of its decompressed content: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where, in bytes after decompression; for a damaged frame, how much came out whole.
        offset: u64,
        /// What is wrong there, and what to do.
        problem: String,
    },
    /// Ledgers of the asked range are not in the archive.
    #[error("ledger {first} is missing from {}{}; {}; add the missing files or ask for a range without it",
        dir.display(), missing_count(*count), neighbours(before.as_deref(), after.as_deref()))]
    Missing {
        /// The archive's folder.
        dir: PathBuf,
        /// The first missing ledger.
        first: u32,
        /// How many ledgers in a row are missing, as far as the asked range goes. `None` when the
        /// range has no end and no later file shows one.
        count: Option<u32>,
        /// Name of the nearest file before the gap.
        before: Option<String>,
        /// Name of the nearest file after the gap.
        after: Option<String>,
    },
    /// The asked range has no ledgers in it.
    #[error("cannot read {range}: {problem}")]
    Range {
        /// What was asked for.
        range: LedgerRange,
        /// What is wrong with it.
        problem: &'static str,
    },
}

fn missing_count(count: Option<u32>) -> String {
    match count {
        Some(1) => String::new(),
        Some(count) => format!(" ({count} ledgers in a row are)"),
        None => " (and so is every later one)".to_owned(),
    }
}

fn neighbours(before: Option<&str>, after: Option<&str>) -> String {
    match (before, after) {
        (Some(before), Some(after)) => format!("the files around the gap are {before} and {after}"),
        (Some(before), None) => format!("the last file before it is {before}"),
        (None, Some(after)) => format!("the first file is {after}"),
        (None, None) => "the folder has no ledger files (*.xdr.zst, *.xdr.zstd)".to_owned(),
    }
}
