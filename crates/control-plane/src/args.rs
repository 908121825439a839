//! The settings of the server, as flags and as variables. Flags of the existing flowctl server have its names and defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use flowctl_pipeline::duration::{self, DurationError};

use crate::identity::{DEFAULT_AUDIENCE, IdentityMode};

/// Where and how the control plane serves.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// Port of gRPC and of /api/services
    #[arg(long, env = "FLOWCTL_SERVER_PORT", default_value_t = 8080)]
    pub port: u16,

    /// Address to listen on; :: takes IPv4 too
    #[arg(long, env = "FLOWCTL_SERVER_ADDRESS", default_value = "0.0.0.0", value_parser = address)]
    pub address: IpAddr,

    /// How long a service may be silent before it is expired
    #[arg(long, env = "FLOWCTL_SERVER_HEARTBEAT_TTL", default_value = "30s", value_name = "DURATION", value_parser = ttl)]
    pub heartbeat_ttl: Duration,

    /// How often silent services are looked for, at least; more than 500ms is taken as 500ms
    #[arg(long, env = "FLOWCTL_SERVER_JANITOR_INTERVAL", default_value = "10s", value_name = "DURATION", value_parser = positive)]
    pub janitor_interval: Duration,

    /// File that keeps registrations, runs and alerts; in $HOME/.flowctl unless set
    #[arg(long, env = "FLOWCTL_SERVER_DB_PATH", value_name = "FILE")]
    pub db_path: Option<PathBuf>,

    /// Keep nothing on disk: a restart forgets everything
    #[arg(long, env = "FLOWCTL_SERVER_NO_PERSISTENCE")]
    pub no_persistence: bool,

    /// TLS of the port.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Accepted for the sake of older instructions: boltdb is answered with a note, memory is --no-persistence
    #[arg(long, env = "FLOWCTL_SERVER_STORAGE_TYPE", ignore_case = true)]
    pub storage_type: Option<StorageType>,

    /// Make a service of a heartbeat with an unknown id, for clients that never register again
    #[arg(long, env = "FLOWCTL_SERVER_ADOPT_UNKNOWN")]
    pub adopt_unknown: bool,

    /// How long an expired service is kept
    #[arg(long, env = "FLOWCTL_SERVER_RETENTION", default_value = "24h", value_name = "DURATION", value_parser = positive)]
    pub retention: Duration,

    /// host:port that clients are told to connect to; unless set, the one that they used
    #[arg(long, env = "FLOWCTL_SERVER_ADVERTISE_ADDRESS", value_name = "HOST:PORT")]
    pub advertise_address: Option<String>,

    /// Port of /metrics, /livez and /readyz
    #[arg(long, env = "FLOWCTL_SERVER_ADMIN_PORT", default_value_t = 9090)]
    pub admin_port: u16,

    /// Address of /metrics, /livez and /readyz; that of the port unless set
    #[arg(long, env = "FLOWCTL_SERVER_ADMIN_ADDRESS", value_parser = address)]
    pub admin_address: Option<IpAddr>,

    /// Whether callers must show a Kubernetes service account token; unless set: permissive in a cluster, off elsewhere
    #[arg(long, env = "FLOWCTL_SERVER_IDENTITY", ignore_case = true)]
    pub identity: Option<IdentityMode>,

    /// Audience that tokens must be made for
    #[arg(long, env = "FLOWCTL_SERVER_TOKEN_AUDIENCE", default_value = DEFAULT_AUDIENCE)]
    pub token_audience: String,

    /// File with the secret that signs the calls of alerts that have none of their own
    #[arg(long, env = "FLOWCTL_SERVER_ALERT_SECRET_FILE", value_name = "FILE")]
    pub alert_secret_file: Option<PathBuf>,

    /// Limits.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Files of TLS. They are read again when they change.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// File with the server's certificate chain (PEM); without it the port is plaintext
    #[arg(long, env = "FLOWCTL_SERVER_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// File with the key of the server's certificate (PEM)
    #[arg(long, env = "FLOWCTL_SERVER_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// File with authorities (PEM): only clients that show a certificate of theirs may connect
    #[arg(long, env = "FLOWCTL_SERVER_TLS_CA_CERT", value_name = "FILE")]
    pub tls_ca_cert: Option<PathBuf>,
}

/// What one server takes.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Services that may be registered
    #[arg(long, env = "FLOWCTL_SERVER_MAX_SERVICES", default_value_t = 200_000)]
    pub max_services: usize,

    /// Bytes of the histories of metrics, all together: the largest part of the memory; services that find no room have none
    #[arg(long, env = "FLOWCTL_SERVER_HISTORY_BYTES", default_value_t = 256 * 1024 * 1024, value_name = "BYTES")]
    pub history_bytes: usize,

    /// Connections that may be open; lowered to what the limit of open files allows
    #[arg(long, env = "FLOWCTL_SERVER_MAX_CONNECTIONS", default_value_t = 20_000)]
    pub max_connections: usize,

    /// Calls of one connection at a time
    #[arg(long, env = "FLOWCTL_SERVER_MAX_CONCURRENT_STREAMS", default_value_t = 256)]
    pub max_concurrent_streams: u32,

    /// Bytes of the largest message that is read
    #[arg(long, env = "FLOWCTL_SERVER_MAX_MESSAGE_BYTES", default_value_t = 1024 * 1024)]
    pub max_message_bytes: usize,

    /// How long one call may take, streams excepted
    #[arg(long, env = "FLOWCTL_SERVER_CALL_TIMEOUT", default_value = "20s", value_name = "DURATION", value_parser = positive)]
    pub call_timeout: Duration,

    /// How long calls under way have to end after SIGTERM
    #[arg(long, env = "FLOWCTL_SERVER_GRACE_PERIOD", default_value = "10s", value_name = "DURATION", value_parser = duration::parse)]
    pub grace_period: Duration,
}

/// Names of stores that older instructions use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StorageType {
    /// A file.
    Boltdb,
    /// Nothing on disk.
    Memory,
}

// === impl ServerArgs ===

impl ServerArgs {
    pub(crate) fn listen_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        SocketAddr::new(self.admin_address.unwrap_or(self.address), self.admin_port)
    }

    pub(crate) fn is_persistent(&self) -> bool {
        !self.no_persistence && self.storage_type != Some(StorageType::Memory)
    }
}

impl Default for ServerArgs {
    /// What no flag and no variable gives, except that nothing is kept on disk.
    fn default() -> Self {
        Self {
            port: 8080,
            address: Ipv4Addr::UNSPECIFIED.into(),
            heartbeat_ttl: Duration::from_secs(30),
            janitor_interval: Duration::from_secs(10),
            db_path: None,
            no_persistence: true,
            tls: TlsArgs::default(),
            storage_type: None,
            adopt_unknown: false,
            retention: Duration::from_secs(24 * 3600),
            advertise_address: None,
            admin_port: 9090,
            admin_address: None,
            identity: None,
            token_audience: DEFAULT_AUDIENCE.to_owned(),
            alert_secret_file: None,
            limits: LimitArgs::default(),
        }
    }
}

impl Default for LimitArgs {
    fn default() -> Self {
        Self {
            max_services: 200_000,
            history_bytes: 256 * 1024 * 1024,
            max_connections: 20_000,
            max_concurrent_streams: 256,
            max_message_bytes: 1024 * 1024,
            call_timeout: Duration::from_secs(20),
            grace_period: Duration::from_secs(10),
        }
    }
}

/// An IP address; `localhost` is one for most people.
fn address(text: &str) -> Result<IpAddr, String> {
    match text {
        "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
        _ => text
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .map_err(|_| "an IP address is needed, for example 0.0.0.0 or 127.0.0.1".to_owned()),
    }
}

fn positive(text: &str) -> Result<Duration, String> {
    let duration = duration::parse(text).map_err(|error: DurationError| error.to_string())?;
    if duration.is_zero() {
        return Err("it must be longer than 0".to_owned());
    }
    Ok(duration)
}

/// Below a second, two beats that the network held up would be a death.
fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = positive(text)?;
    if ttl < Duration::from_secs(1) {
        return Err("it must be at least 1s".to_owned());
    }
    Ok(ttl)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        server: ServerArgs,
    }

    fn parse(line: &str) -> Result<ServerArgs, String> {
        Command::try_parse_from(line.split(' '))
            .map(|command| command.server)
            .map_err(|error| error.to_string())
    }

    // The command lines of the existing server and of published instructions must go on working.
    #[test]
    fn flags_of_the_existing_server_are_taken() {
        let line = "flowctl --port 9000 --address 127.0.0.1 --tls-cert c --tls-key k --tls-ca-cert a --heartbeat-ttl 1m30s \
                    --janitor-interval 500ms --db-path /data/db --no-persistence --storage-type boltdb";
        let args = parse(line).expect("the flags of the existing server");
        assert_eq!(args.listen_address(), "127.0.0.1:9000".parse().expect("an address"));
        assert_eq!(args.heartbeat_ttl, Duration::from_secs(90));
        assert_eq!(args.storage_type, Some(StorageType::Boltdb));
        assert!(!args.is_persistent());
    }

    /// A value for each flag that is not its default.
    const VALUES: [(&str, &str); 25] = [
        ("port", "1"),
        ("address", "127.0.0.1"),
        ("heartbeat-ttl", "31s"),
        ("janitor-interval", "1s"),
        ("db-path", "/data/db"),
        ("no-persistence", "true"),
        ("tls-cert", "c"),
        ("tls-key", "k"),
        ("tls-ca-cert", "a"),
        ("storage-type", "memory"),
        ("adopt-unknown", "true"),
        ("retention", "1h"),
        ("advertise-address", "flowctl.x:1"),
        ("admin-port", "2"),
        ("admin-address", "127.0.0.2"),
        ("identity", "required"),
        ("token-audience", "x"),
        ("alert-secret-file", "s"),
        ("max-services", "3"),
        ("history-bytes", "4"),
        ("max-connections", "5"),
        ("max-concurrent-streams", "6"),
        ("max-message-bytes", "7"),
        ("call-timeout", "8s"),
        ("grace-period", "9s"),
    ];

    fn variable(flag: &str) -> String {
        format!("FLOWCTL_SERVER_{}", flag.to_ascii_uppercase().replace('-', "_"))
    }

    // Containers are set up by variables: one that is misspelled here would be passed over in silence. They are read in a child,
    // which is this program again, because a process cannot change its own safely.
    #[test]
    fn each_flag_has_its_variable() {
        let command = Command::command();
        let flags: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        assert_eq!(flags, VALUES.map(|(flag, _)| flag));
        let line = VALUES.map(|(flag, value)| match value {
            "true" => format!("--{flag}"),
            value => format!("--{flag} {value}"),
        });
        let by_flags = parse(&format!("flowctl {}", line.join(" "))).expect("good values");
        let child = std::process::Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "args::tests::child_that_tells_its_settings",
                "--ignored",
                "--nocapture",
            ])
            .envs(VALUES.map(|(flag, value)| (variable(flag), value)))
            .output()
            .expect("this program runs");
        let told = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(told.contains(&format!("{by_flags:?}")), "{told}");
        assert_ne!(format!("{by_flags:?}"), format!("{:?}", ServerArgs::default()));
    }

    #[test]
    #[ignore = "the child of the test above"]
    fn child_that_tells_its_settings() {
        println!("{:?}", parse("flowctl").expect("good values"));
    }

    // The two lists of defaults would drift apart unseen.
    #[test]
    fn defaults_are_those_of_the_flags() {
        let parsed = parse("flowctl").expect("no flag is required");
        let default = ServerArgs {
            no_persistence: false,
            ..ServerArgs::default()
        };
        assert_eq!(format!("{parsed:?}"), format!("{default:?}"));
        assert!(parsed.is_persistent());
    }

    // A mistake must be told at the start, in words.
    #[test]
    fn mistakes_are_told() {
        for (line, why) in [
            ("flowctl --heartbeat-ttl 30", "has no unit"),
            ("flowctl --heartbeat-ttl 500ms", "at least 1s"),
            ("flowctl --janitor-interval 0", "longer than 0"),
            ("flowctl --address here", "IP address"),
            ("flowctl --identity maybe", "permissive"),
            ("flowctl --storage-type postgres", "boltdb"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
