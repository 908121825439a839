//! A processor or consumer with its settings, up to the moment when both its ports are bound; `bound` goes on from there.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use flowctl_proto::pipeline::v1::{consumer_service_server, processor_service_server};
use flowctl_runtime::{AdminServer, Metrics, Readiness, Shutdown};
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use crate::bound::transport;
use crate::drain::Drain;
use crate::engine::Engine;
use crate::error::in_one_line;
use crate::grpc::Served;
use crate::health::{About, ProbeHealth};
use crate::metrics::ServiceMetrics;
use crate::work::{Consuming, Processing};
use crate::{Bound, Consumer, Processor, ServeArgs, ServeError};

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

    /// The whole program: reads the settings, switches on logs, serves until SIGTERM or SIGINT, and drains.
    pub async fn run(self) -> ExitCode {
        let args = ServeArgs::from_command_line(self.name, self.version);
        self.run_with(&args).await
    }

    /// As [`run`](Self::run), for a program that reads the settings itself. Call it in `main`: it handles signals, and a
    /// second one ends the process.
    pub async fn run_with(self, args: &ServeArgs) -> ExitCode {
        let name = self.name;
        if let Err(error) = args.log.init() {
            // There is no log to say it in.
            eprintln!("{name}: {error}");
            return ExitCode::FAILURE;
        }
        match self.until_signalled(args).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(name, error = in_one_line(&error), "cannot serve");
                ExitCode::FAILURE
            }
        }
    }

    async fn until_signalled(self, args: &ServeArgs) -> Result<(), ServeError> {
        let shutdown = Shutdown::on_signals()?;
        self.bind(args).await?.serve(shutdown).await
    }

    /// Binds both ports. From here on `/livez` answers.
    ///
    /// # Errors
    ///
    /// When a port cannot be bound, or TLS files cannot be used.
    pub async fn bind(self, args: &ServeArgs) -> Result<Bound, ServeError> {
        let transport = transport(args)?;
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
        tracing::info!(
            service = self.grpc_name,
            name = self.name,
            version = self.version,
            grpc = %address,
            tls = ?args.tls.mode(),
            health = %admin.local_addr(),
            "starting"
        );
        Ok(Bound {
            transport,
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
