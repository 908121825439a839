//! Write a source, processor or consumer in Rust.
