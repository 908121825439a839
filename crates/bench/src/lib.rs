//! What the benchmarks (`cargo xtask bench`) have in common with the programs that they start: of the operator the requests that
//! are recorded in a file and what came of sending them, of the control plane the beats, and what a process used of the machine.

pub mod beats;
pub mod usage;

use serde::{Deserialize, Serialize};

/// A request to an apiserver, one line of JSON in the file that the bare loop reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// `POST`, `PATCH`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Media type of the body.
    pub content_type: String,
    /// The body.
    pub body: String,
}

/// What came of sending all requests of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Requests that were answered with success.
    pub requests: usize,
    /// Bytes of their bodies.
    pub bytes: usize,
    /// From the first request to the last answer, in seconds.
    pub seconds: f64,
    /// What the apiserver refused, at most ten of them, in words.
    pub refused: Vec<String>,
    /// What the process used until then.
    pub usage: usage::Usage,
}
