//! Why events could not be taken from a ledger. All of these mean that the input is not a whole
//! ledger of the expected network; none goes away by trying again.

/// A ledger that events cannot be taken from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// The input is not a ledger in XDR-JSON.
    #[error(transparent)]
    Json(#[from] flowctl_stellar::json::JsonError),
    /// No known network's passphrase gives the hashes that the ledger has.
    #[error(
        "cannot tell which network ledger {ledger} is from: no known passphrase gives its transactions' hashes; set the network passphrase"
    )]
    UnknownNetwork {
        /// The ledger.
        ledger: u32,
    },
    /// A result whose transaction is not in the ledger's transaction set.
    #[error(
        "cannot find transaction {tx_hash} in the transaction set of ledger {ledger}; is the network passphrase right?"
    )]
    NoEnvelope {
        /// The ledger.
        ledger: u32,
        /// The transaction's hash in hexadecimal.
        tx_hash: String,
    },
    /// The close time is outside of what a timestamp can say.
    #[error("cannot read the close time of ledger {ledger}: {seconds} seconds since 1970 is out of range")]
    CloseTime {
        /// The ledger.
        ledger: u32,
        /// The header's close time.
        seconds: u64,
    },
    /// Parts of a transaction contradict each other.
    #[error(
        "cannot take events from transaction {tx_hash} of ledger {ledger}: {problem}; the ledger's meta is damaged or incomplete"
    )]
    Transaction {
        /// The ledger.
        ledger: u32,
        /// The transaction's hash in hexadecimal.
        tx_hash: String,
        /// What is wrong.
        problem: Problem,
    },
}

/// What is wrong with a transaction's meta.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A list that must have one entry for each operation has another length.
    #[error("it has {operations} operations, but {results} results and the changes of {changes}")]
    Counts {
        /// Operations in the envelope.
        operations: usize,
        /// Operation results.
        results: usize,
        /// Operations in the meta.
        changes: usize,
    },
    /// An operation's result is of another kind, or not a success, in a successful transaction.
    #[error("the result of operation {0} is no success of its kind")]
    Result(u32),
    /// The entry that tells an amount is not in an operation's changes.
    #[error("the changes of operation {operation} do not show {entry}")]
    Entry {
        /// Which operation, from 1.
        operation: u32,
        /// The entry.
        entry: String,
    },
    /// A value that cannot be encoded for hashing.
    #[error("cannot encode: {0}")]
    Xdr(#[from] stellar_xdr::Error),
}
