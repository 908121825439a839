//! Carries messages from a pipeline to an external processor or consumer and back, over gRPC.
//!
//! A [`Caller`] stands for one external step. It accepts messages in order, holds them while the
//! peer is unhealthy, retries what may be retried, and gives back one result for each message.
//! It keeps nothing: a message that has no result yet still belongs to whoever submitted it, so
//! nothing is acknowledged here. It must not read pipeline files, and it must not decide what
//! happens after a permanent failure.

mod backoff;
mod caller;
mod dialect;
mod endpoint;
mod failure;
mod health;
mod metrics;
mod peer;
mod pending;
mod pool;
mod settings;
mod stream;
mod tls;
mod unary;
mod window;

pub use backoff::Backoff;
pub use caller::{Caller, Identity, Submitted};
pub use dialect::{ArchiveSource, Outcome, Request};
pub use endpoint::{Endpoint, EndpointError, Scheme};
pub use failure::{CallError, Failure};
pub use flowctl_proto::MAX_MESSAGE_BYTES;
pub use health::Gate;
pub use metrics::Metrics;
pub use settings::{CallMode, Role, Settings};
pub use tls::{Material, TlsError, TlsFiles};
pub use window::{Permit, Window, WindowGauges, WindowLimits};
