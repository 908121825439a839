//! The HTTP server for those who run the program: `/livez`, `/readyz`, `/metrics`. It answers from memory, so a probe
//! cannot hang, and it must stay up through a drain, so it ends with its handle and not with the shutdown request.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::{METRICS_CONTENT_TYPE, Metrics, Readiness};

/// Bound and not yet serving: connections wait until [`spawn`](Self::spawn).
#[derive(Debug)]
#[must_use = "nothing is served before spawn"]
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
    routes: Router,
}

/// The running server; dropping it ends the server at once.
#[derive(Debug)]
#[must_use = "dropping the handle ends the server"]
pub struct AdminHandle {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({purpose}): {source}")]
pub struct BindError {
    /// The address that was asked for.
    pub address: SocketAddr,
    /// What it was wanted for.
    pub purpose: String,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

/// Listens on `address`; `purpose` tells in an error what the address was wanted for, and so which setting to change.
/// `[::]` takes IPv4 too; on a machine without IPv6 it means `0.0.0.0`.
///
/// # Errors
///
/// When the address is taken, is not one of this machine's, or its port needs a privilege.
pub async fn bind(address: SocketAddr, purpose: &str) -> Result<TcpListener, BindError> {
    let failed = |source| BindError {
        address,
        purpose: purpose.to_owned(),
        source,
    };
    match TcpListener::bind(address).await {
        Err(error) if lacks_ipv6(&error) && address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))
                .await
                .map_err(failed)
        }
        bound => bound.map_err(failed),
    }
}

/// A kernel without IPv6 has no such family of addresses; one that has it switched off has no such address.
fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable
    ) || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// Linux, "address family not supported by protocol"; the standard library has no kind for it.
const EAFNOSUPPORT: i32 = 97;

// === impl AdminServer ===

impl AdminServer {
    /// Listens on `address` (port 0 for any free port).
    ///
    /// # Errors
    ///
    /// [`BindError`], as [`bind`].
    pub async fn bind(address: SocketAddr, readiness: &Readiness, metrics: &Metrics) -> Result<Self, BindError> {
        const PURPOSE: &str = "health and metrics";
        let listener = bind(address, PURPOSE).await?;
        let bound = listener.local_addr();
        let address = bound.map_err(|source| BindError {
            address,
            purpose: PURPOSE.to_owned(),
            source,
        })?;
        let routes = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz).with_state(readiness.clone()))
            .route("/metrics", get(show_metrics).with_state(metrics.clone()));
        Ok(Self {
            listener,
            address,
            routes,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Adds routes of the program's own; a path that is served here already panics, as axum's `merge` does.
    pub fn merge(mut self, routes: Router) -> Self {
        self.routes = self.routes.merge(routes);
        self
    }

    /// Serves until the handle is dropped. Call inside a tokio runtime.
    pub fn spawn(self) -> AdminHandle {
        let Self {
            listener,
            address,
            routes,
        } = self;
        tracing::debug!(%address, "serving /livez, /readyz and /metrics");
        let task = tokio::spawn(async move {
            // Ends only with its task: axum waits and tries again when accepting fails.
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!(%address, %error, "the health and metrics server ended");
            }
        });
        AdminHandle { address, task }
    }
}

// === impl AdminHandle ===

impl AdminHandle {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    match readiness.state() {
        Ok(()) => "ok\n".into_response(),
        Err(waiting) => (StatusCode::SERVICE_UNAVAILABLE, waiting.to_string()).into_response(),
    }
}

async fn show_metrics(State(metrics): State<Metrics>) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            let body = format!("cannot write metrics: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
        }
    }
}
