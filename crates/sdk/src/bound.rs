//! A service from its bound ports to its end. The order of the drain is here: health first, then no new messages, then
//! wait, then give up.

use std::net::SocketAddr;
use std::time::Duration;

use flowctl_runtime::{AdminHandle, Check, Readiness, Shutdown, in_one_line};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::control_plane::{Registration, ServiceReport, Session, SessionMetrics, Settings};
use crate::drain::Drain;
use crate::health::ProbeHealth;
use crate::{ServeArgs, ServeError};

/// Both ports are bound; health says "not ready" until [`serve`](Self::serve).
#[must_use = "nothing is served before serve"]
pub struct Bound {
    pub(crate) transport: Server,
    pub(crate) routes: Routes,
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
    pub(crate) grace: Duration,
    pub(crate) drain: Drain,
    pub(crate) serving: Check,
    pub(crate) readiness: Readiness,
    pub(crate) probes: ProbeHealth,
    pub(crate) admin: AdminHandle,
    pub(crate) reporting: Option<Reporting>,
}

/// What is told to a control plane while the service serves.
pub(crate) struct Reporting {
    pub(crate) settings: Settings,
    pub(crate) registration: Registration,
    pub(crate) metrics: SessionMetrics,
    pub(crate) report: ServiceReport,
}

/// Nothing is under way any more, but the last bytes may not be sent yet.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// The transport: large messages, and connections that live long.
pub(crate) fn transport(args: &ServeArgs) -> Result<Server, ServeError> {
    let server = Server::builder()
        // A ledger is up to tens of megabytes: the usual 64 KiB would cost a round trip for each piece.
        .initial_stream_window_size(4 * 1024 * 1024)
        .initial_connection_window_size(8 * 1024 * 1024)
        // Bounds what one peer can make us hold; a pipeline uses a handful.
        .max_concurrent_streams(256)
        // Finds peers that went without a word. Pings of peers are always answered and never punished.
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)));
    let Some(tls) = args.tls.load()? else {
        return Ok(server);
    };
    // Another library of the program may have chosen already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    server
        .tls_config(tls.timeout(Duration::from_secs(10)))
        .map_err(|error| ServeError::TlsContent(in_one_line(&error)))
}

// === impl Bound ===

impl Bound {
    /// Where gRPC is served.
    #[must_use]
    pub fn grpc_address(&self) -> SocketAddr {
        self.address
    }

    /// Where `/livez`, `/readyz` and `/metrics` are served.
    #[must_use]
    pub fn health_address(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// Serves until `shutdown` is requested, then drains: health says "not ready", no new messages are taken, and
    /// messages under way have the grace period to finish.
    ///
    /// # Errors
    ///
    /// When the server ends unasked, or the grace period was not enough.
    pub async fn serve(self, shutdown: Shutdown) -> Result<(), ServeError> {
        let Self {
            mut transport,
            drain,
            serving,
            readiness,
            probes,
            grace,
            reporting,
            ..
        } = self;
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let stopping = drain.stopping.clone().cancelled_owned();
        let router = transport.add_routes(self.routes);
        // Before the first connection, so that no probe sees the state before the first.
        let changes = readiness.changes();
        serving.ready();
        probes.publish(&readiness).await;
        let following = probes.clone().follow(readiness.clone(), changes);
        let _following = AbortOnDropHandle::new(tokio::spawn(following));
        let mut connections =
            AbortOnDropHandle::new(tokio::spawn(router.serve_with_incoming_shutdown(incoming, stopping)));
        let session = reporting.map(Reporting::begin);

        tokio::select! {
            ended = &mut connections => return Err(ServeError::Transport(match ended {
                Ok(Ok(())) => "the server ended without being asked".to_owned(),
                Ok(Err(error)) => in_one_line(&error),
                Err(error) => error.to_string(),
            })),
            () = shutdown.requested() => {}
        }

        serving.not_ready("shutting down");
        probes.publish(&readiness).await;
        drain.stopping.cancel();
        drain.calls.close();
        let drained = timeout(grace, async {
            drain.calls.wait().await;
            probes.end().await;
            // Only callers that do not read their last answers keep this waiting.
            (&mut connections).await
        });
        let result = match drained.await {
            Ok(_) => Ok(()),
            Err(_) if drain.calls.is_empty() => Ok(()),
            Err(_) => Err(ServeError::GracePeriodOver {
                calls: drain.calls.len(),
            }),
        };
        drain.given_up.cancel();
        if result.is_err() {
            let _ = timeout(LAST_BYTES, connections).await;
        } else if let Some(session) = session {
            session.end().await;
        }
        tracing::info!("stopped");
        result
    }
}

// === impl Reporting ===

impl Reporting {
    fn begin(self) -> Session {
        Session::spawn_measured(self.settings, self.registration, self.report, self.metrics)
    }
}
