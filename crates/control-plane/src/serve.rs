//! The server: what it is made of, from its settings to bound ports to its end. The order of the drain is here: health first,
//! then no new connections and no more streams, then wait, then cut.

mod connection;
mod disk;
mod error;
mod files;
mod health;
mod listen;
mod metered;
pub(crate) mod metrics;
mod parts;
mod reload;
pub(crate) mod streams;
mod tls;
mod watched;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flowctl_runtime::{AdminHandle, AdminServer, Check, Metrics, Readiness, Shutdown};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use tonic::transport;

pub use error::ServeError;
pub use tls::TlsError;

use crate::alerts::{Alerts, Caller, Retry, Watcher};
use crate::args::ServerArgs;
use crate::grpc::{self, Lists, Shared};
use crate::identity::Reviewer;
use crate::metrics::BeatMetrics;
use crate::registry::Registry;
use health::ProbeHealth;
use listen::Listen;
use metered::Meter;
use metrics::{ConnectionMetrics, RpcMetrics, TlsMetrics};
use parts::{
    DESCRIPTORS, KeepAlive, alert_secret, guard, identity_mode, note_storage_type, registry_options, routes, transport,
};
use tls::{Tls, TlsFiles};
use watched::Watch;

/// Nothing is under way any more, but the last bytes may not be sent yet.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// A control plane that is not bound yet.
#[must_use = "nothing is served before bind"]
pub struct Server {
    args: ServerArgs,
    reviewer: Option<Arc<dyn Reviewer>>,
    retry: Retry,
    keep_alive: KeepAlive,
}

/// Both ports are bound; `/readyz` says "not ready" until [`serve`](Self::serve).
#[must_use = "nothing is served before serve"]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    transport: transport::Server,
    routes: Routes,
    calls: RpcMetrics,
    connections: ConnectionMetrics,
    tls: Option<(Tls, TlsMetrics)>,
    most_connections: usize,
    grace: Duration,
    stopping: CancellationToken,
    serving: Check,
    readiness: Readiness,
    probes: ProbeHealth,
    admin: AdminHandle,
    registry: Arc<Registry>,
    tasks: Vec<AbortOnDropHandle<()>>,
}

/// Serves until `shutdown` is requested.
///
/// # Errors
///
/// As [`Server::bind`] and [`Bound::serve`].
pub async fn serve(args: ServerArgs, shutdown: Shutdown) -> Result<(), ServeError> {
    Server::new(args).bind().await?.serve(shutdown).await
}

// === impl Server ===

impl Server {
    /// A server with these settings.
    pub fn new(args: ServerArgs) -> Self {
        Self {
            args,
            reviewer: None,
            retry: Retry::default(),
            keep_alive: KeepAlive::default(),
        }
    }

    /// Asks this one about tokens, instead of the apiserver of the cluster that the program runs in.
    pub fn reviewer(mut self, reviewer: Arc<dyn Reviewer>) -> Self {
        self.reviewer = Some(reviewer);
        self
    }

    /// Calls a webhook that fails again after `first`, then after twice as long, and so on, `attempts` times in all.
    pub fn alert_retry(mut self, first: Duration, attempts: u32) -> Self {
        self.retry = Retry {
            first,
            attempts,
            ..Retry::default()
        };
        self
    }

    /// Pings each client after so much silence, and cuts it when it does not answer `within` so long; 30 s and 20 s otherwise.
    pub fn keep_alive(mut self, after: Duration, within: Duration) -> Self {
        self.keep_alive = KeepAlive { after, within };
        self
    }

    /// Opens the registry and binds both ports. From here on `/livez` answers.
    ///
    /// # Errors
    ///
    /// When a port cannot be bound, or files cannot be used.
    pub async fn bind(self) -> Result<Bound, ServeError> {
        let args = self.args;
        note_storage_type(&args);
        let tls = &args.tls;
        let files = TlsFiles::from_flags(
            tls.tls_cert.as_deref(),
            tls.tls_key.as_deref(),
            tls.tls_ca_cert.as_deref(),
        )?;
        let tls = files.map(Tls::open).transpose()?;
        let fallback = args.alert_secret_file.as_deref().map(alert_secret).transpose()?;
        let guard = guard(&args, self.reviewer)?;
        let registry = Registry::open(registry_options(&args)?)?;

        let metrics = Metrics::new("control-plane", env!("CARGO_PKG_VERSION"));
        let readiness = Readiness::new();
        let serving = readiness.check("serving", "starting");
        let admin = AdminServer::bind(args.admin_address(), &readiness, &metrics)
            .await?
            .spawn();
        let wanted = args.listen_address();
        let listener = flowctl_runtime::bind(wanted, "gRPC and /api/services").await?;
        let address = listener.local_addr().unwrap_or(wanted);

        let stopping = CancellationToken::new();
        let alerts = Alerts::load(Arc::clone(&registry), fallback);
        let caller = Caller::new().map_err(|error| ServeError::Webhooks(error.to_string()))?;
        let watcher = Watcher::new(alerts.clone(), caller, self.retry, &metrics);
        guard.register(&metrics);
        let shared = Shared {
            registry: Arc::clone(&registry),
            alerts,
            beats: BeatMetrics::register(&metrics, &registry),
            advertised: args.advertise_address.clone(),
            stopping: stopping.clone(),
            lists: Lists::default(),
            watches: Arc::new(Semaphore::new(grpc::WATCHES)),
            guard,
        };
        let probes = ProbeHealth::default();
        let routes = routes(shared, &probes, args.limits.max_message_bytes)?;
        let tls_metrics = TlsMetrics::register(&metrics);
        tracing::info!(
            %address,
            admin = %admin.local_addr(),
            tls = tls.is_some(),
            mutual_tls = args.tls.tls_ca_cert.is_some(),
            identity = ?identity_mode(&args),
            services = registry.len(),
            "starting"
        );
        let tasks = vec![
            spawn({
                let (registry, every) = (Arc::clone(&registry), args.janitor_interval);
                async move { registry.maintain(every).await }
            }),
            spawn(watcher.run()),
            spawn(disk::follow(Arc::clone(&registry), disk::register(&metrics))),
        ];
        Ok(Bound {
            listener,
            address,
            transport: transport(&args.limits, self.keep_alive),
            routes,
            calls: RpcMetrics::register(&metrics, DESCRIPTORS),
            connections: ConnectionMetrics::register(&metrics),
            tls: tls.map(|tls| (tls, tls_metrics)),
            most_connections: files::connections(args.limits.max_connections),
            grace: args.limits.grace_period,
            stopping,
            serving,
            readiness,
            probes,
            admin,
            registry,
            tasks,
        })
    }
}

// === impl Bound ===

impl Bound {
    /// Where gRPC and `/api/services` are served.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where `/livez`, `/readyz` and `/metrics` are served.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// Serves until `shutdown` is requested, then drains: calls under way have the grace period to end, and what is open
    /// after it is cut.
    ///
    /// # Errors
    ///
    /// When the server ends unasked.
    pub async fn serve(self, shutdown: Shutdown) -> Result<(), ServeError> {
        let Self {
            stopping,
            serving,
            readiness,
            probes,
            grace,
            registry,
            mut tasks,
            ..
        } = self;
        let cut = CancellationToken::new();
        let listen = Listen {
            tcp: self.listener,
            tls: self.tls.as_ref().map(|(tls, _)| tls.current()),
            most: self.most_connections,
            metrics: self.connections,
            cut: cut.clone(),
        };
        if let Some((tls, metrics)) = self.tls {
            tasks.push(spawn(reload::follow(tls, metrics)));
        }
        let connections = listen.spawn(stopping.clone());
        // Before the first connection, so that no probe sees the state before the first.
        let changes = readiness.changes();
        serving.ready();
        probes.publish(&readiness).await;
        tasks.push(spawn(probes.clone().follow(readiness.clone(), changes)));
        let server = self
            .transport
            .layer(Watch(self.calls))
            .layer(Meter::default())
            .add_routes(self.routes)
            .serve_with_incoming_shutdown(connections, stopping.clone().cancelled_owned());
        let mut server = AbortOnDropHandle::new(tokio::spawn(server));

        tokio::select! {
            ended = &mut server => return Err(ServeError::Transport(match ended {
                Ok(Ok(())) => "no reason given".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            })),
            () = shutdown.requested() => {}
        }

        serving.not_ready("shutting down");
        probes.publish(&readiness).await;
        stopping.cancel();
        let drained = timeout(grace, async {
            probes.end().await;
            let _ = (&mut server).await;
        });
        if drained.await.is_err() {
            tracing::warn!(
                seconds = grace.as_secs_f64(),
                "calls were still under way after the grace period; they are cut"
            );
            cut.cancel();
            let _ = timeout(LAST_BYTES, server).await;
        }
        drop(tasks);
        registry.close().await?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// A task that ends with its handle.
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}
