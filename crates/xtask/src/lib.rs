//! `cargo xtask <verb>`: regenerates everything that is generated, runs the demo, the tests and a local Kubernetes.
//! One module a verb; the same code that generates a file checks it for drift.

pub mod bench;
pub mod chart;
pub mod cluster;
pub mod crds;
pub mod demo;
pub mod faults;
pub mod generate;
pub mod image;
pub mod install;
pub mod mutants;
pub mod proto;
pub mod test;
