//! The flowctl-compatible registry: register, heartbeat, expire, discover, report. The state machine stands in `registry`
//! and knows no protocol; gRPC, HTTP, the disk and the clock stand around it.

pub mod clock;
pub mod limits;
pub mod registry;
pub mod store;

mod alerts;
mod args;
mod grpc;
mod http;
mod identity;
mod metrics;
mod names;
mod serve;

pub use alerts::{
    Condition, ConditionError, DELIVERY_HEADER, SIGNATURE_HEADER, Secret, State, TIMESTAMP_HEADER, Webhook,
    WebhookError,
};
pub use args::{LimitArgs, ServerArgs, StorageType, TlsArgs};
pub use identity::{DEFAULT_AUDIENCE, IdentityMode, KubeReviewer, ReviewError, Reviewer};
pub use registry::Identity;
pub use serve::{Bound, ServeError, Server, TlsError, serve};
