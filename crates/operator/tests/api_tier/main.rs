//! The operator against a real apiserver with real controllers and garbage collection, counted in the audit log.

mod admission;
mod adoption;
mod answers;
mod backoff;
mod batch;
mod components;
mod converge;
mod everywhere;
mod fencing;
mod heartbeats;
mod kubectl;
mod leaders;
mod namespaces;
mod objects;
mod outages;
mod ownership;
mod planes;
mod probes;
mod process;
mod references;
mod revisions;
mod rollouts;
mod rules;
mod secrecy;
mod steady;
mod support;
mod surface;
mod swarm;
mod tls;
mod upgrades;
mod watches;
mod workloads;
mod world;

/// How the operators here are installed; `tests/cluster_wide` runs the same tests otherwise.
const INSTALL: support::Install = support::Install::Roles;
