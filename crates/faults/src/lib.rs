//! Breaks what an operator says to its apiserver and hears from it, at points that have names. [`proxy::Proxy`] stands
//! between the two and counts requests by [`signature::Signature`]; [`rule::Rule`]s name those that are to go wrong, so
//! that a failing case is a short file that replays. Never shipped.

pub mod proxy;
pub mod rule;
pub mod signature;

pub use proxy::{Gate, Hit, Proxy, Seen, Stage};
pub use rule::{Action, Answer, Rewrite, Rule, WatchFault};
pub use signature::{Pattern, PatternError, Signature, Verb};
