//! The tests of `api_tier` once more, with an operator for all namespaces and a ClusterRole instead of a Role: what is
//! promised must not depend on how it is installed. One test at a time on each of two clusters, or two operators would do the same
//! work. Left out is what has nothing to do with namespaces (the lease, broken watches, outages, what is refused) or has a cluster
//! of its own.

#[path = "../api_tier/adoption.rs"]
mod adoption;
#[path = "../api_tier/answers.rs"]
mod answers;
#[path = "../api_tier/batch.rs"]
mod batch;
#[path = "../api_tier/converge.rs"]
mod converge;
#[path = "../api_tier/kubectl.rs"]
mod kubectl;
#[path = "../api_tier/objects.rs"]
mod objects;
#[path = "../api_tier/ownership.rs"]
mod ownership;
#[path = "../api_tier/probes.rs"]
mod probes;
#[path = "../api_tier/process.rs"]
mod process;
#[path = "../api_tier/references.rs"]
mod references;
#[path = "../api_tier/rollouts.rs"]
mod rollouts;
#[path = "../api_tier/rules.rs"]
mod rules;
#[path = "../api_tier/secrecy.rs"]
mod secrecy;
#[path = "../api_tier/support.rs"]
mod support;
#[path = "../api_tier/surface.rs"]
mod surface;
#[path = "../api_tier/tls.rs"]
mod tls;
#[path = "../api_tier/upgrades.rs"]
mod upgrades;
#[path = "../api_tier/workloads.rs"]
mod workloads;
#[path = "../api_tier/world.rs"]
mod world;

/// How the operators here are installed.
const INSTALL: support::Install = support::Install::ClusterWide;
