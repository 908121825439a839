//! What every binary of this project needs: logs, `/livez` `/readyz` `/metrics`, and an orderly end. It knows nothing of
//! Kubernetes, gRPC or pipelines, and holds no global state but the log subscriber.
//!
//! A `main` in short:
//!
//! ```no_run
//! use flowctl_runtime::{AdminServer, LogFormat, Logs, Metrics, Readiness, Shutdown};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! Logs::new(LogFormat::Text).init()?;
//! let shutdown = Shutdown::on_signals()?;
//! let metrics = Metrics::new("my-service", env!("CARGO_PKG_VERSION"));
//! let readiness = Readiness::new();
//! let caches = readiness.check("caches", "waiting for the first list");
//!
//! let address = "0.0.0.0:8088".parse()?;
//! let _admin = AdminServer::bind(address, &readiness, &metrics).await?.spawn();
//! caches.ready();
//! shutdown.requested().await;
//! # Ok(())
//! # }
//! ```

mod admin;
mod error;
mod logs;
mod metrics;
mod process;
mod readiness;
mod shutdown;

pub use admin::{AdminHandle, AdminServer, BindError, bind};
pub use error::{in_one_line, with_causes};
pub use logs::{LogArgs, LogError, LogFormat, Logs};
pub use metrics::{METRICS_CONTENT_TYPE, Metrics};
pub use readiness::{Changes, Check, NotReady, Readiness};
pub use shutdown::{Shutdown, ShutdownError};
