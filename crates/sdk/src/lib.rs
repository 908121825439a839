//! Write a processor or a consumer for a pipeline in Rust: implement one trait, and [`Service`] does the rest (both
//! gRPC styles of `pipeline.v1`, health, limits, TLS, metrics, an orderly end). It must not know what a message holds.
//!
//! A complete processor:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use flowctl_sdk::{BoxError, Message, Outcome, Processor, Service};
//!
//! struct Shout;
//!
//! impl Processor for Shout {
//!     async fn process(&self, message: Message) -> Result<Outcome, BoxError> {
//!         let text: String = message.json()?;
//!         if text.is_empty() {
//!             return Ok(Outcome::Skip);
//!         }
//!         message.forward(&text.to_uppercase())
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> ExitCode {
//!     Service::processor(Shout).name("shout", env!("CARGO_PKG_VERSION")).run().await
//! }
//! ```
//!
//! It listens on `PORT` (50051), tells its health on `HEALTH_PORT` (8088: `/livez`, `/readyz`, `/metrics`), and lists
//! every other setting with `--help`. Where `ENABLE_FLOWCTL=true` is set it registers with a control plane and sends
//! heartbeats: see [`control_plane`].

mod args;
mod bound;
mod consumer;
pub mod control_plane;
mod drain;
mod engine;
mod error;
mod grpc;
mod health;
mod message;
mod metrics;
mod processor;
mod service;
mod tls;
mod work;

pub use args::ServeArgs;
pub use bound::Bound;
pub use bytes::Bytes;
pub use consumer::{Consumer, Consumption};
pub use error::{BoxError, ServeError};
pub use flowctl_proto::pipeline::v1::ArchiveSourceMetadata;
pub use message::{Message, Metadata, PayloadError};
pub use processor::{Outcome, Processor};
pub use service::Service;
pub use tls::{ClientAuth, TlsArgs, TlsMode};
