//! How large a pipeline file may be. A file that is larger is refused with a message that names the limit: readers run
//! with little memory, and a few lines of YAML can describe gigabytes.

/// Bytes of text: what a ConfigMap can carry.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Scalars, lists and maps, counted after aliases are expanded.
pub const MAX_NODES: usize = 100_000;

/// Lists and maps inside one another, the document's own map included.
pub const MAX_DEPTH: usize = 64;

/// Aliases (`*name`) in one file.
pub const MAX_ALIASES: usize = 1_000;
