//! A processor or consumer as a running service: bind, serve, drain. The order of the drain is here: health first, then
//! no new messages, then wait, then give up.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use flowctl_proto::pipeline::v1::{consumer_service_server, processor_service_server};
use flowctl_runtime::{AdminHandle, AdminServer, Check, Metrics, Readiness, Shutdown};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::health_server::HealthServer;

use crate::drain::Drain;
use crate::engine::Engine;
use crate::error::in_one_line;
use crate::grpc::Served;
use crate::health::{About, ProbeHealth};
use crate::metrics::ServiceMetrics;
use crate::work::{Consuming, Processing};
use crate::{Consumer, Processor, ServeArgs, ServeError};

/// What is served and what it is called.
#[must_use = "nothing is served before run"]
pub struct Service {
    name: &'static str,
    version: &'static str,
    grpc_name: &'static str,
    max_in_flight: Option<NonZeroUsize>,
    readiness: Readiness,
    metrics: Option<Metrics>,
    mount: Mount,
}

/// Makes the gRPC service when everything that it needs is known.
type Mount = Box<dyn FnOnce(Parts) -> Routes + Send>;

struct Parts {
    about: About,
    max_in_flight: usize,
    metrics: ServiceMetrics,
    drain: Drain,
}

/// Both ports are bound; health says "not ready" until [`serve`](Self::serve).
#[must_use = "nothing is served before serve"]
pub struct Bound {
    server: Server,
    routes: Routes,
    listener: TcpListener,
    address: SocketAddr,
    grace: Duration,
    drain: Drain,
    serving: Check,
    readiness: Readiness,
    probes: ProbeHealth,
    admin: AdminHandle,
}

/// Nothing is under way any more, but the last bytes may not be sent yet.
const LAST_BYTES: Duration = Duration::from_secs(1);

// === impl Service ===

impl Service {
    /// Serves `pipeline.v1.ProcessorService`.
    pub fn processor(processor: impl Processor) -> Self {
        Self::new(
            processor_service_server::SERVICE_NAME,
            Box::new(
                move |Parts {
                          about,
                          max_in_flight,
                          metrics,
                          drain,
                      }| {
                    let engine = Engine::new(Processing(processor), max_in_flight, metrics, drain);
                    Routes::new(Served { engine, about }.into_server())
                },
            ),
        )
    }

    /// Serves `pipeline.v1.ConsumerService`.
    pub fn consumer(consumer: impl Consumer) -> Self {
        Self::new(
            consumer_service_server::SERVICE_NAME,
            Box::new(
                move |Parts {
                          about,
                          max_in_flight,
                          metrics,
                          drain,
                      }| {
                    let engine = Engine::new(Consuming(consumer), max_in_flight, metrics, drain);
                    Routes::new(Served { engine, about }.into_server())
                },
            ),
        )
    }

    fn new(grpc_name: &'static str, mount: Mount) -> Self {
        Self {
            name: grpc_name,
            version: "unknown",
            grpc_name,
            max_in_flight: None,
            readiness: Readiness::new(),
            metrics: None,
            mount,
        }
    }

    /// Name and version for `--help`, health answers and `flowctl_build_info`; without it, the gRPC service's name.
    pub fn name(mut self, name: &'static str, version: &'static str) -> Self {
        self.name = name;
        self.version = version;
        self
    }

    /// Never more messages at once than this, whatever the settings say; 1 for code that needs their order.
    pub fn max_in_flight(mut self, most: NonZeroUsize) -> Self {
        self.max_in_flight = Some(most);
        self
    }

    /// Takes checks of your own into account: while one is not ready, `/readyz`, HealthCheck and gRPC probes say so.
    pub fn readiness(mut self, readiness: &Readiness) -> Self {
        self.readiness = readiness.clone();
        self
    }

    /// Serves metrics of your own too.
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    /// The whole program: reads the settings, switches on logs, serves until SIGTERM or SIGINT, and drains. Errors are
    /// printed on stderr.
    pub async fn run(self) -> ExitCode {
        let args = ServeArgs::from_command_line(self.name, self.version);
        let name = self.name;
        match self.run_with(&args).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{name}: {}", in_one_line(&error));
                ExitCode::FAILURE
            }
        }
    }

    /// As [`run`](Self::run), for a program that reads the settings itself.
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    pub async fn run_with(self, args: &ServeArgs) -> Result<(), ServeError> {
        args.log.init()?;
        let shutdown = Shutdown::on_signals()?;
        self.bind(args).await?.serve(shutdown).await
    }

    /// Binds both ports. From here on `/livez` answers.
    ///
    /// # Errors
    ///
    /// When a port cannot be bound, or TLS files cannot be used.
    pub async fn bind(self, args: &ServeArgs) -> Result<Bound, ServeError> {
        let server = server(args)?;
        let metrics = self.metrics.unwrap_or_else(|| Metrics::new(self.name, self.version));
        let serving = self.readiness.check("serving", "starting");
        let admin = AdminServer::bind(args.health_address(), &self.readiness, &metrics)
            .await?
            .spawn();
        let wanted = args.grpc_address();
        let listener = flowctl_runtime::bind(wanted, "gRPC").await?;
        let address = listener.local_addr().unwrap_or(wanted);

        let drain = Drain::default();
        let probes = ProbeHealth::new(self.grpc_name);
        let most = self.max_in_flight.unwrap_or(NonZeroUsize::MAX);
        let routes = (self.mount)(Parts {
            about: About {
                name: self.name,
                version: self.version,
                readiness: self.readiness.clone(),
            },
            max_in_flight: args.max_in_flight.min(most).get(),
            metrics: ServiceMetrics::register(&metrics),
            drain: drain.clone(),
        })
        .add_service(HealthServer::new(probes.service()));
        tracing::info!(service = self.grpc_name, name = self.name, version = self.version, %address, "serving gRPC");
        Ok(Bound {
            server,
            routes,
            listener,
            address,
            grace: args.grace_period(),
            drain,
            serving,
            readiness: self.readiness,
            probes,
            admin,
        })
    }
}

/// The transport: large messages, and connections that live long.
fn server(args: &ServeArgs) -> Result<Server, ServeError> {
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
            mut server,
            drain,
            serving,
            readiness,
            probes,
            grace,
            ..
        } = self;
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let stopping = drain.stopping.clone().cancelled_owned();
        let router = server.add_routes(self.routes);
        // Before the first connection, so that no probe sees the state before the first.
        let changes = readiness.changes();
        serving.ready();
        probes.publish(&readiness).await;
        let following = probes.clone().follow(readiness.clone(), changes);
        let _following = AbortOnDropHandle::new(tokio::spawn(following));
        let mut connections =
            AbortOnDropHandle::new(tokio::spawn(router.serve_with_incoming_shutdown(incoming, stopping)));

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
        }
        tracing::info!("stopped");
        result
    }
}
