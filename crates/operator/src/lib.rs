//! Watches, applies, publishes: the only crate that writes to the apiserver.
