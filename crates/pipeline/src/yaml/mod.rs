//! YAML in and out. This folder is the only place that names serde-saphyr and its parser. Reading means what Go's yaml.v3
//! means, stays within the [`crate::limits`], and keeps positions; writing quotes whatever any YAML reader could take for
//! something else. Nothing here knows what a pipeline is.

mod emit;
mod parse;
mod scalar;
mod syntax;

pub(crate) use emit::emit;
pub(crate) use parse::{Document, parse};
