//! Breaks what an operator says to its apiserver and hears from it, at points that have names. [`proxy::Proxy`] stands
//! between the two and counts requests by [`signature::Signature`]; [`rule::Rule`]s name those that are to go wrong, so
//! that a failing case is a short file that replays; [`run::Runner`] runs such cases and judges them, and [`campaign`]
//! makes them from what the operator writes when nothing goes wrong. Never shipped.

pub mod campaign;
pub mod case;
pub mod history;
pub mod lab;
pub mod picture;
pub mod process;
pub mod proxy;
pub mod report;
pub mod rule;
pub mod run;
pub mod signature;

pub use case::{Case, Expect, Step};
pub use proxy::{Gate, Hit, Proxy, Seen, Stage};
pub use rule::{Action, Answer, Rewrite, Rule, WatchFault};
pub use run::{Outcome, Runner};
pub use signature::{Pattern, PatternError, Signature, Verb};
