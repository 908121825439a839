//! Example processor: Stellar token transfer events from ledgers. [`Extractor`] turns a closed
//! ledger (meta version 0 to 2, as XDR types or XDR-JSON) into [`LedgerEvents`]: who paid whom how
//! much of what, from payments, exchanges, pools, claimable balances, contracts and fees. It keeps
//! nothing between ledgers and knows nothing about how they arrive.
//!
//! ```json
//! {"ledger": 30822016, "closed_at": "2020-07-29T18:29:37Z", "events": [
//!   {"kind": "fee", "from": "GA…", "asset": "native", "amount": "100", "ledger": 30822016,
//!    "closed_at": "2020-07-29T18:29:37Z", "tx_hash": "3f…", "tx_index": 1, "contract_id": "CA…"},
//!   {"kind": "transfer", "from": "GA…", "to": "GB…", "asset": "USD:GC…", "amount": "25000000",
//!    "ledger": 30822016, "closed_at": "2020-07-29T18:29:37Z", "tx_hash": "3f…", "tx_index": 1,
//!    "op_index": 1, "contract_id": "CB…"}]}
//! ```

mod contract;
mod entries;
mod error;
mod event;
mod extract;
mod network;
mod operations;
mod party;
mod view;

pub use error::{ExtractError, Problem};
pub use event::{Amount, Kind, LedgerEvents, TokenEvent};
pub use extract::Extractor;
pub use network::{KNOWN_PASSPHRASES, Network};
