//! Registers a service or a whole pipeline with a flowctl control plane and reports its health and numbers there. It must
//! never hinder its host: everything happens in a task of its own, every call has a deadline, and a control plane that is
//! not there, hangs or talks nonsense is tried again for as long as the host lives.
//!
//! [`Service::run`](crate::Service::run) does all of it by itself when the environment asks for it. For another program:
//!
//! ```no_run
//! use flowctl_sdk::control_plane::{Activation, Registration, Role, Session, Settings, Statistics, warn_ignored};
//!
//! # async fn run() {
//! let found = Settings::from_env(Activation::Endpoint, |name| std::env::var(name).ok());
//! warn_ignored(&found.ignored);
//! let statistics = Statistics::new();
//! let session = found.settings.map(|settings| {
//!     let registration = Registration::new(Role::Pipeline, "payments").version("1.0");
//!     Session::spawn(settings, registration, statistics.clone())
//! });
//! statistics.component("source", "Ledgers").report([("processed_ledgers", 125_000.0)]);
//! // … the work …
//! if let Some(session) = session {
//!     session.end().await;
//! }
//! # }
//! ```

mod dialect;
mod link;
mod metadata;
mod metrics;
mod registration;
mod service;
mod session;
mod settings;
mod snapshot;
mod statistics;

pub use metadata::{
    PipelineMetadata, ProcessorMetadata, STELLAR_LEDGER_EVENT, SinkMetadata, SourceMetadata, TTP_EVENT,
};
pub use metrics::SessionMetrics;
pub use registration::{Registration, Role};
pub use session::{Session, State};
pub use settings::{Activation, Found, Settings, warn_ignored};
pub use snapshot::{Health, Report, Snapshot};
pub use statistics::{Component, STALE_AFTER, Statistics};

pub(crate) use service::{Provider, ServiceReport};
pub(crate) use statistics::count;
