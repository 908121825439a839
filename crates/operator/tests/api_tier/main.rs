//! The operator against a real apiserver with real controllers and garbage collection, counted in the audit log.

mod converge;
mod everywhere;
mod leaders;
mod namespaces;
mod objects;
mod ownership;
mod process;
mod rollouts;
mod rules;
mod support;
mod workloads;
mod world;

/// How the operators here are installed; `tests/cluster_wide` runs the same tests otherwise.
const INSTALL: support::Install = support::Install::Roles;
