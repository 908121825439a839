//! A processor or consumer with its settings, up to the moment when both its ports are bound; `bound` goes on from there.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Instant;

use flowctl_proto::pipeline::v1::{consumer_service_server, processor_service_server};
use flowctl_runtime::{AdminServer, Metrics, Readiness, Shutdown, in_one_line};
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use crate::bound::{Reporting, transport};
use crate::control_plane::{
    Activation, Provider, Registration, Role, ServiceReport, SessionMetrics, Settings, warn_ignored,
};
use crate::drain::Drain;
use crate::engine::Engine;
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
    control_plane: Option<Settings>,
    registration: Registration,
    provider: Option<Provider>,
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
            Role::Processor,
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
            Role::Sink,
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

    fn new(grpc_name: &'static str, role: Role, mount: Mount) -> Self {
        Self {
            name: grpc_name,
            version: "unknown",
            grpc_name,
            max_in_flight: None,
            readiness: Readiness::new(),
            metrics: None,
            mount,
            control_plane: None,
            registration: Registration::new(role, ""),
            provider: None,
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

    /// Registers with this control plane, instead of what the environment says.
    pub fn control_plane(mut self, settings: Settings) -> Self {
        self.control_plane = Some(settings);
        self
    }

    /// What the service tells the control plane about itself beyond its name: event types, metadata, a description. Role,
    /// and what is left open of name, version, addresses and messages at once, come from the service.
    pub fn registration(mut self, registration: Registration) -> Self {
        self.registration = Registration {
            role: self.registration.role,
            ..registration
        };
        self
    }

    /// Adds numbers of your own to every heartbeat, by key; called in the background, it must be quick.
    pub fn heartbeat_metrics(mut self, provider: impl Fn() -> Vec<(String, f64)> + Send + Sync + 'static) -> Self {
        self.provider = Some(Box::new(provider));
        self
    }

    /// The whole program: reads the settings, switches on logs, serves until SIGTERM or SIGINT, and drains. It registers
    /// with a control plane if the environment says so (see [`Settings::from_env`]).
    pub async fn run(self) -> ExitCode {
        let args = ServeArgs::from_command_line(self.name, self.version);
        self.run_with(&args).await
    }

    /// As [`run`](Self::run), for a program that reads the settings itself. Call it in `main`: it handles signals, and a
    /// second one ends the process.
    pub async fn run_with(mut self, args: &ServeArgs) -> ExitCode {
        let name = self.name;
        if let Err(error) = args.log.init() {
            // There is no log to say it in.
            eprintln!("{name}: {error}");
            return ExitCode::FAILURE;
        }
        if self.control_plane.is_none() {
            let found = Settings::from_env(Activation::Switch, |name| std::env::var(name).ok());
            warn_ignored(&found.ignored);
            self.control_plane = found.settings;
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
        let service_metrics = ServiceMetrics::register(&metrics);
        let max_in_flight = args.max_in_flight.min(self.max_in_flight.unwrap_or(NonZeroUsize::MAX));
        let role = self.registration.role;
        let reporting = self.control_plane.map(|settings| Reporting {
            settings,
            registration: self.registration.completed_by(Registration {
                endpoint: reached_at(address),
                health_endpoint: format!("http://{}/readyz", reached_at(admin.local_addr())),
                max_inflight: u32::try_from(max_in_flight.get()).ok(),
                ..Registration::new(role, self.name).version(self.version)
            }),
            metrics: SessionMetrics::register(&metrics),
            report: ServiceReport {
                started: Instant::now(),
                readiness: self.readiness.clone(),
                metrics: service_metrics.clone(),
                stopping: drain.stopping.clone(),
                provider: self.provider,
            },
        });
        let probes = ProbeHealth::new(self.grpc_name);
        let routes = (self.mount)(Parts {
            about: About {
                name: self.name,
                version: self.version,
                readiness: self.readiness.clone(),
            },
            max_in_flight: max_in_flight.get(),
            metrics: service_metrics,
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
            reporting,
        })
    }
}

/// How others reach a port of this process: at the pod's address, or else at whatever address the control plane sees.
fn reached_at(listening: SocketAddr) -> String {
    if !listening.ip().is_unspecified() {
        return listening.to_string();
    }
    let pod = std::env::var("POD_IP").ok().and_then(|ip| ip.parse().ok());
    match pod {
        Some(ip) => SocketAddr::new(ip, listening.port()).to_string(),
        None => format!(":{}", listening.port()),
    }
}
