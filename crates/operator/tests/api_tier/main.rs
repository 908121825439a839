//! The operator against a real apiserver with real controllers and garbage collection, counted in the audit log.

mod converge;
mod everywhere;
mod leaders;
mod namespaces;
mod objects;
mod ownership;
mod process;
mod rollouts;
mod support;
mod workloads;
mod world;
