//! Sample ledgers, for demos and for tests on machines without real ones. They are made up: a small
//! network of a dozen accounts on which every kind of token movement happens over and over. The
//! same options always give the same bytes. What balances depend on is kept as stellar-core would
//! keep it: entry changes, fees, fee pool, hashes of transactions, sets, results and headers. What
//! they do not depend on is left out: signatures, buckets (their hash is zero), consensus messages,
//! reserves, liabilities, sponsorships and the time to live of contract data.

mod actions;
mod assemble;
mod close;
mod contracts;
mod exchange;
mod state;

use std::fs;
use std::path::{Path, PathBuf};

use stellar_xdr::{LedgerCloseMeta, LedgerCloseMetaBatch, Limits, WriteXdr};

use crate::name::FileName;

/// Passphrase of the network that the sample ledgers say they are from.
pub const NETWORK_PASSPHRASE: &str = "flowctl sample network ; not a real one";

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Number of the first ledger; at least 2.
    pub start: u32,
    /// How many ledgers. The first third has meta version 0, the second 1, the rest 2.
    pub ledgers: u32,
    /// How many transactions in each; at most 1000.
    pub transactions: u32,
    /// How many ledgers in a file; files begin at multiples of it, as Galexie's do.
    pub ledgers_per_file: u32,
    /// Decides amounts and who takes part.
    pub seed: u64,
}

/// Sample ledgers that could not be made or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// Options outside of their range.
    #[error("cannot make sample ledgers: {0}")]
    Options(&'static str),
    /// A file or folder could not be written.
    #[error("cannot write sample ledgers to {}: {source}; check that the folder may be written", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A value does not fit into its XDR type.
    #[error("cannot encode sample ledger: {0}")]
    Xdr(#[from] stellar_xdr::Error),
    /// The scenario asks for something that its own network does not have.
    #[error("cannot continue the sample scenario: {0}; try another seed or fewer ledgers")]
    Scenario(&'static str),
}

/// An endless chain of sample ledgers; the options' count is not looked at.
pub struct Samples {
    chain: close::Chain,
}

/// Makes sample ledgers and writes them to a folder in Galexie's layout, `.config.json` included.
/// Makes the folder when it is missing. Returns the ledger files in the order of their ledgers.
///
/// # Errors
///
/// Fails on options outside of their range and when the folder cannot be written.
pub fn write(dir: &Path, options: &Options) -> Result<Vec<PathBuf>, SampleError> {
    let io = |path: &Path, source| SampleError::Io {
        path: path.to_owned(),
        source,
    };
    let mut samples = Samples::new(options)?;
    fs::create_dir_all(dir).map_err(|error| io(dir, error))?;
    let manifest = serde_json::json!({
        "networkPassphrase": NETWORK_PASSPHRASE,
        "version": "1.0",
        "compression": "zstd",
        "ledgersPerBatch": options.ledgers_per_file,
        "batchesPerPartition": 1,
    });
    let path = dir.join(".config.json");
    fs::write(&path, format!("{manifest:#}\n")).map_err(|error| io(&path, error))?;

    let mut paths = Vec::new();
    let mut left = options.ledgers;
    let mut start = options.start;
    while left > 0 {
        let count = (options.ledgers_per_file - start % options.ledgers_per_file).min(left);
        let metas = (0..count).map(|_| samples.close()).collect::<Result<Vec<_>, _>>()?;
        let end = start + count - 1;
        let batch = LedgerCloseMetaBatch {
            start_sequence: start,
            end_sequence: end,
            ledger_close_metas: metas.try_into()?,
        };
        let path = dir.join(FileName::write(start, end));
        let packed = zstd::encode_all(batch.to_xdr(Limits::none())?.as_slice(), 0).map_err(|error| io(&path, error))?;
        fs::write(&path, packed).map_err(|error| io(&path, error))?;
        paths.push(path);
        left -= count;
        start = end + 1;
    }
    Ok(paths)
}

// === impl Options ===

impl Default for Options {
    /// 64 ledgers of 8 transactions from ledger 1024 on, 4 in a file.
    fn default() -> Self {
        Self {
            start: 1024,
            ledgers: 64,
            transactions: 8,
            ledgers_per_file: 4,
            seed: 1,
        }
    }
}

impl Options {
    fn check(&self) -> Result<(), SampleError> {
        if self.start < 2 {
            return Err(SampleError::Options("the first ledger must be 2 or later"));
        }
        if self.ledgers == 0 || self.start.checked_add(self.ledgers).is_none() {
            return Err(SampleError::Options(
                "there must be at least one ledger, and the last one must fit into 32 bits",
            ));
        }
        if self.transactions > 1000 {
            return Err(SampleError::Options("a ledger has at most 1000 transactions"));
        }
        if self.ledgers_per_file == 0 {
            return Err(SampleError::Options("a file has at least one ledger"));
        }
        Ok(())
    }
}

// === impl Samples ===

impl Samples {
    /// Begins a chain.
    ///
    /// # Errors
    ///
    /// Fails on options outside of their range.
    pub fn new(options: &Options) -> Result<Self, SampleError> {
        options.check()?;
        Ok(Self {
            chain: close::Chain::new(options)?,
        })
    }

    /// Closes the next ledger.
    ///
    /// # Errors
    ///
    /// Fails when a value outgrows its XDR type.
    pub fn close(&mut self) -> Result<LedgerCloseMeta, SampleError> {
        self.chain.close()
    }
}

impl std::fmt::Debug for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Samples").finish_non_exhaustive()
    }
}
