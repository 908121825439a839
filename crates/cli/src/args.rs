//! The command line. The lines of seeds 001 and 002 are taken word by word: see the tests.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use flowctl_control_plane::ServerArgs;
use flowctl_pipeline::duration;
use flowctl_runtime::LogArgs;

/// Runs a flowctl control plane, and shows what one knows
#[derive(Debug, Parser)]
#[command(name = "flowctl", version, about, after_help = AFTER_HELP, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str =
    "Which control plane: --endpoint or FLOWCTL_ENDPOINT; else, as a kubectl plugin or with --context, --kubeconfig
or --namespace, the cluster's, through a port-forward of its own; else localhost:8080 if it listens there.

Exit codes: 0 done, or healthy; 1 failed, or unhealthy; 2 wrong command line; 3 neither healthy nor
unhealthy (starting, degraded, stopping); 4 no such service, run or alert; 5 no control plane reached.";

/// Where the control plane is, and how answers are written.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// How answers are written
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// Where the control plane is.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Control plane")]
pub(crate) struct Target {
    /// host:port, or https://host:port
    #[arg(long, global = true, env = "FLOWCTL_ENDPOINT", value_name = "HOST:PORT")]
    pub(crate) endpoint: Option<String>,
    /// Use TLS, with the system's authorities unless --ca is given
    #[arg(long, global = true)]
    pub(crate) tls: bool,
    /// File with the authorities that sign the server's certificate (PEM)
    #[arg(long, global = true, env = "FLOWCTL_TLS_CA", value_name = "FILE")]
    pub(crate) ca: Option<OsString>,
    /// File with the client's certificate (PEM)
    #[arg(long, global = true, env = "FLOWCTL_TLS_CERT", value_name = "FILE")]
    pub(crate) cert: Option<OsString>,
    /// File with the key of the client's certificate (PEM)
    #[arg(long, global = true, env = "FLOWCTL_TLS_KEY", value_name = "FILE")]
    pub(crate) key: Option<OsString>,
    /// Name in the server's certificate, when it is not the endpoint's host
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) server_name: Option<String>,
    /// File with a service account token to show
    #[arg(long, global = true, env = "FLOWCTL_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<OsString>,
    /// Longest that one call may take
    #[arg(long, global = true, value_parser = duration::parse, default_value = "10s", value_name = "DURATION")]
    pub(crate) timeout: Duration,
    /// kubeconfig for a port-forward
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig for a port-forward
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,
    /// Namespace of the control plane for a port-forward; looked for everywhere unless given
    #[arg(short, long, global = true)]
    pub(crate) namespace: Option<String>,
}

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For machines
    Json,
    /// For machines, and people
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the control plane
    #[command(alias = "start")]
    Server(Box<ServerCommand>),
    /// Show every service, or one in detail
    Status(StatusArgs),
    /// Say whether a service, or the control plane itself, is healthy; the exit code says it too
    Health(HealthArgs),
    /// Show what a service measured over time
    Metrics(MetricsArgs),
    /// Webhooks that are called when a condition begins or ceases to hold
    #[command(subcommand)]
    Alert(AlertCommand),
    /// Pipelines and their runs
    #[command(subcommand)]
    Pipelines(PipelinesCommand),
    /// List services with their addresses and last heartbeats
    Services(ServicesArgs),
    /// Print a completion script
    Completions {
        /// For which shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct ServerCommand {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) logs: LogArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Service to show in detail
    pub(crate) id: Option<String>,
    /// The same as --output json
    #[arg(long)]
    pub(crate) json: bool,
    /// Everything that is known
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Show it again and again
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Time between two looks with --watch
    #[arg(long, value_parser = duration::parse, default_value = "2s", value_name = "DURATION", requires = "watch")]
    pub(crate) interval: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Service; the control plane itself unless given
    pub(crate) id: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    /// Service
    pub(crate) id: String,
    /// How far back; an hour is kept
    #[arg(long, value_parser = duration::parse, default_value = "1h", value_name = "DURATION")]
    pub(crate) duration: Duration,
    /// Only these metrics; may be repeated
    #[arg(long = "metric", value_name = "NAME")]
    pub(crate) metrics: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlertCommand {
    /// Make an alert
    Create(AlertCreateArgs),
    /// List alerts
    List {
        /// Only those about this service
        #[arg(long)]
        service: Option<String>,
    },
    /// Delete alerts
    Delete {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AlertCreateArgs {
    /// Service that it is about; each of them unless given
    #[arg(long)]
    pub(crate) service: Option<String>,
    /// For example "status != healthy", "status == expired" or "metric.errors > 5 for 1m"
    #[arg(long)]
    pub(crate) condition: String,
    /// URL that is called
    #[arg(long)]
    pub(crate) webhook: String,
    /// Secret that signs calls (HMAC-SHA256); the server keeps it and never tells it
    #[arg(
        long,
        env = "FLOWCTL_ALERT_SECRET",
        hide_env_values = true,
        conflicts_with = "secret_file"
    )]
    pub(crate) secret: Option<String>,
    /// File with that secret; a line break at its end does not count
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PipelinesCommand {
    /// List pipelines that have runs
    List,
    /// List runs, the newest first
    Runs {
        /// Only of this pipeline
        pipeline: Option<String>,
        /// Only in this state
        #[arg(long, value_enum)]
        status: Option<RunState>,
        /// At most so many
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i32).range(1..))]
        limit: i32,
    },
    /// Show one run
    RunInfo {
        /// Its id
        run: String,
    },
    /// Stop a run, or every run of a pipeline
    Stop {
        /// Id of a run, or name of a pipeline
        target: String,
    },
}

/// State of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunState {
    Starting,
    Running,
    Completed,
    Failed,
    Stopped,
}

#[derive(Debug, Args)]
pub(crate) struct ServicesArgs {
    /// Only of this type
    #[arg(long = "type", value_enum)]
    pub(crate) kind: Option<Kind>,
    /// Only ids that begin so
    #[arg(long, default_value = "")]
    pub(crate) prefix: String,
}

/// Type of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Source,
    Processor,
    #[value(alias = "consumer")]
    Sink,
    #[value(alias = "cdp-pipeline")]
    Pipeline,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line of seeds 001 and 002 that calls flowctl, without prompts and what the shell does with the output.
    const SEEDS: &[&str] = &[
        // 001, Docker Compose: command ["server", "--storage-type", "boltdb"]
        "flowctl server --storage-type boltdb",
        // 001, integration tests
        "flowctl status",
        "flowctl status test-pipeline --json",
        // 001, Status Commands
        "flowctl status cdp-contract-events-123",
        "flowctl status cdp-contract-events-123 --json",
        // 001, Health Checks
        "flowctl health cdp-contract-events-123",
        "flowctl alert create --service cdp-contract-events-123 --condition 'status != healthy' --webhook https://alerts.example.com/webhook",
        // 001, Operational Runbook
        "flowctl health",
        "flowctl status PIPELINE-ID --verbose",
        "flowctl health PIPELINE-ID",
        "flowctl metrics PIPELINE-ID --duration 1h",
        // 002, End-to-End Testing Scenario
        "flowctl start",
    ];

    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (at, quoted) in line.split('\'').enumerate() {
            match at % 2 {
                0 => words.extend(quoted.split_whitespace().map(str::to_owned)),
                _ => words.push(quoted.to_owned()),
            }
        }
        words
    }

    // Whoever follows the published instructions types these.
    #[test]
    fn every_line_of_the_seeds_is_taken() {
        for line in SEEDS {
            let parsed = Cli::try_parse_from(words(line));
            assert!(parsed.is_ok(), "{line}: {}", parsed.expect_err("an error"));
        }
        let alert = Cli::try_parse_from(words(SEEDS[6]))
            .expect("a line of the seeds")
            .command;
        let Command::Alert(AlertCommand::Create(alert)) = alert else {
            panic!("{alert:?}");
        };
        assert_eq!(alert.condition, "status != healthy");
        assert_eq!(alert.service.as_deref(), Some("cdp-contract-events-123"));
        let start = Cli::try_parse_from(["flowctl", "start"])
            .expect("a line of the seeds")
            .command;
        assert!(matches!(start, Command::Server(_)));
    }

    // clap finds contradictions of the definitions only when it is asked.
    #[test]
    fn the_definitions_are_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
