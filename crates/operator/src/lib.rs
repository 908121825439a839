//! Watches, applies, publishes: the only crate that writes to the apiserver. Kubernetes is already a feedback loop, so
//! there is none in here: a change wakes an object, and one pass over it observes, plans, applies and publishes, once
//! each (`reconcile`). What is wanted is decided in `flowctl-plan`.

mod apply;
mod args;
mod backoff;
mod budget;
mod caches;
mod census;
mod child;
mod client;
mod crds;
mod events;
mod fence;
mod fights;
mod health;
mod heartbeats;
mod kept;
mod lane;
mod leader;
mod lease;
mod life;
mod line;
mod mends;
mod metrics;
mod observe;
mod outdated;
mod ownership;
mod pace;
mod places;
mod publish;
mod queue;
pub mod rbac;
mod reconcile;
mod references;
mod refusals;
mod run;
mod store;
mod subject;
mod undecodable;
mod unmoved;
mod watch;
mod work;
mod write;

pub use args::{Args, ArgsError};
pub use heartbeats::{ClientFiles, HeartbeatOptions, Keys};
pub use leader::{Election, Lost};
pub use run::{Options, RunError, run};
