//! The pipeline file: model, YAML in and out, validation with positions, step catalogue. It turns text into a
//! [`PipelineFile`] and back, and says everything that is wrong with a file in one go. It must stay pure: no I/O, no
//! clock, no environment (callers hand in the text and the variables).
//!
//! ```
//! let file = flowctl_pipeline::read(
//!     "pipelines:
//!   stellar.payments:
//!     source: {type: BufferedStorageSourceAdapter, config: {storage_type: FS, path: /ledgers}}
//!     consumers: [{type: StdoutConsumer}]
//! ")?;
//! assert_eq!(file.key, "stellar.payments");
//! assert_eq!(flowctl_pipeline::read(&flowctl_pipeline::write(&file))?, file);
//! # Ok::<(), flowctl_pipeline::Diagnostics>(())
//! ```

pub mod catalogue;
mod check;
mod diagnostic;
pub mod duration;
pub mod limits;
mod model;
mod node;
mod placeholder;
mod read;
pub mod size;
mod suggest;
mod write;
mod yaml;

pub use check::check_runnable;
pub use diagnostic::{Diagnostic, Diagnostics};
pub use model::{Origin, PipelineFile, Place, Position, Step};
pub use placeholder::{expand, placeholders};
pub use read::read;
pub use suggest::nearest;
pub use write::write;
