//! Runs a pipeline file: source → processors → consumers, with acknowledgement end to end.
//!
//! A message is finished when every consumer has finished it. Until then it is under way, holds
//! its place in the window, and keeps the checkpoint from moving past it; a message that is
//! dropped on any path is given back, never acknowledged. Delivery to external steps is the
//! bridge's work; this crate must not speak gRPC itself.

mod blueprint;
mod chain;
mod checkpoint;
pub mod cli;
mod config;
mod consume;
mod error;
mod handle;
mod head;
mod ledger_reader;
mod load;
mod metrics;
mod report;
mod run;
mod source;
mod summary;
mod tasks;
mod tracker;

pub use blueprint::{Blueprint, ConsumerSettings, FolderSettings, LedgerReaderSettings, Named, ProcessorSettings};
pub use checkpoint::CheckpointError;
pub use error::RunError;
pub use load::{LoadError, load};
pub use run::{Environment, Options, run};
pub use source::SourceError;
pub use summary::{Ended, Summary};
