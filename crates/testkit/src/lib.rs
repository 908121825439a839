//! Local Kubernetes and fixtures for tests and the demo; never shipped. Four things:
//!
//! - [`cluster::Cluster`]: a real Kubernetes on a bare machine, in two sizes ([`Tier`]), that lives and dies with the
//!   process that started it;
//! - [`fake_kubelet::FakeKubelet`]: plays the node on the API tier, by script;
//! - [`fake_control_plane::FakeControlPlane`]: plays a flowctl control plane and its components, by script;
//! - [`image`] and [`images`]: container images without a builder or a registry.
//!
//! It must not hold anything that the project's programs need when they run.

pub mod audit;
pub mod binaries;
mod certificates;
pub mod cluster;
pub mod command;
mod error;
pub mod fake_control_plane;
pub mod fake_kubelet;
pub mod image;
pub mod images;
mod packages;
mod ports;
pub mod preflight;
mod prepare;
pub mod python;
mod supervisor;
pub mod tier;
pub mod wait;

pub use error::{Error, Result};
pub use prepare::prepare;
pub use tier::Tier;
