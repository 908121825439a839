//! Example consumer: counts and sums token transfer events by asset and serves the totals over HTTP. The totals live in
//! memory and begin when the process does; what was consumed before is not known to it.

mod consumer;
mod ledgers;
mod sum;
mod table;
mod totals;
mod web;

pub use consumer::{LedgerEvents, Sink, TokenEvent};
pub use ledgers::{Ledgers, Seen};
pub use sum::Sum;
pub use totals::{AssetTotals, Kind, KindTotals, Report, Totals};
pub use web::routes;
