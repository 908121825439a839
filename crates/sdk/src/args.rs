//! The settings of every service, as flags and as variables; see `--help`. Flatten [`ServeArgs`] into a parser of your own
//! to add to them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::{Args as _, Command, FromArgMatches as _};
use flowctl_runtime::LogArgs;

use crate::TlsArgs;

/// Where and how a service serves.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// Port of the gRPC service
    #[arg(long, env = "PORT", default_value_t = 50051)]
    pub port: u16,

    /// Port of /livez, /readyz and /metrics
    #[arg(long, env = "HEALTH_PORT", default_value_t = 8088)]
    pub health_port: u16,

    /// Address to listen on; :: takes IPv4 too
    #[arg(long, env = "FLOWCTL_LISTEN_ADDRESS", default_value_t = IpAddr::V6(Ipv6Addr::UNSPECIFIED))]
    pub listen_address: IpAddr,

    /// Messages that are handled at once; more wait
    #[arg(long, env = "FLOWCTL_MAX_IN_FLIGHT", default_value = "16")]
    pub max_in_flight: NonZeroUsize,

    /// Seconds that messages under way have to finish after SIGTERM
    #[arg(long, env = "FLOWCTL_GRACE_PERIOD_SECONDS", default_value_t = 20)]
    pub grace_period_seconds: u32,

    /// TLS of the gRPC port.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
}

// === impl ServeArgs ===

impl ServeArgs {
    /// Reads the command line and the environment; on a mistake, `--help` or `--version` it prints and exits.
    pub(crate) fn from_command_line(name: &'static str, version: &'static str) -> Self {
        let mut command = Self::augment_args(Command::new(name).version(version));
        let matches = command.get_matches_mut();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
    }

    pub(crate) fn grpc_address(&self) -> SocketAddr {
        SocketAddr::new(self.listen_address, self.port)
    }

    pub(crate) fn health_address(&self) -> SocketAddr {
        SocketAddr::new(self.listen_address, self.health_port)
    }

    pub(crate) fn grace_period(&self) -> Duration {
        Duration::from_secs(self.grace_period_seconds.into())
    }
}

impl Default for ServeArgs {
    /// What no flag and no variable gives.
    fn default() -> Self {
        Self {
            port: 50051,
            health_port: 8088,
            listen_address: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            max_in_flight: NonZeroUsize::MIN.saturating_add(15),
            grace_period_seconds: 20,
            tls: TlsArgs::default(),
            log: LogArgs::default(),
        }
    }
}
