//! Ledgers: archives on disk, XDR, and what can be read from them. [`Archive`] reads a folder of
//! ledger files as Galexie writes them, [`json`] turns a ledger to JSON and back, and [`sample`]
//! makes ledgers for demos and tests. This crate does not interpret what happened in a ledger and
//! never waits for one: who follows a growing archive decides when to look again.

mod archive;
mod error;
pub mod json;
mod name;
mod reader;
pub mod sample;

pub use archive::{Archive, Ledger, LedgerFile, LedgerRange, Ledgers};
pub use error::ArchiveError;
pub use name::{FileName, NameProblem};
pub use stellar_xdr;

use stellar_xdr::{LedgerCloseMeta, LedgerHeaderHistoryEntry};

/// The header of a closed ledger, whichever version its meta has.
#[must_use]
pub fn header(meta: &LedgerCloseMeta) -> &LedgerHeaderHistoryEntry {
    match meta {
        LedgerCloseMeta::V0(v0) => &v0.ledger_header,
        LedgerCloseMeta::V1(v1) => &v1.ledger_header,
        LedgerCloseMeta::V2(v2) => &v2.ledger_header,
    }
}

/// The number of a closed ledger, from its header.
#[must_use]
pub fn sequence(meta: &LedgerCloseMeta) -> u32 {
    header(meta).header.ledger_seq
}

/// When a ledger closed, in seconds since 1970-01-01 00:00:00 UTC.
#[must_use]
pub fn closed_at(meta: &LedgerCloseMeta) -> u64 {
    header(meta).header.scp_value.close_time.0
}
