//! The two kinds of `flowctl.dev/v1alpha1` as Rust types, and the words that everything else uses for them: condition
//! types, reasons, label keys. It holds no logic beyond the schema; decisions belong to `flowctl-plan`.

#![allow(unreachable_pub, reason = "KubeSchema derives a private twin of every type")]

pub mod common;
pub mod condition;
pub mod crd;
pub mod external_processor;
pub mod labels;
pub mod pipeline;
pub mod quantity;
mod schema;
pub mod status;
#[cfg(test)]
mod tests;

pub use common::*;
pub use condition::{ConditionType, Reason};
pub use external_processor::{ExternalProcessor, ExternalProcessorSpec};
pub use pipeline::{Pipeline, PipelineSpec};
pub use status::Status;

/// API group of both kinds. flowctl's own file format says `flowctl/v1`: not the same thing.
pub const GROUP: &str = "flowctl.dev";
/// The one version that is served.
pub const VERSION: &str = "v1alpha1";
/// Longest name of an object, in bytes: Services are named after it, with suffixes, in 63.
pub const MAX_NAME: usize = 48;
