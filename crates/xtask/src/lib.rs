//! `cargo xtask <verb>`: regenerates everything that is generated, runs the demo, the tests and a local Kubernetes.
//! One module a verb; the same code that generates a file checks it for drift.

pub mod generate;
pub mod proto;
