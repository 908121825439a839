//! The command line, and what the process says when it ends: exit codes and the termination
//! message that Kubernetes shows for a pod.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use flowctl_bridge::WindowLimits;
use flowctl_pipeline::{duration, size};
use flowctl_runtime::{AdminServer, LogArgs, Metrics, Readiness, Shutdown};
use flowctl_sdk::control_plane::{
    Activation, PipelineMetadata, Registration, Role, Session, SessionMetrics, Settings, Statistics, warn_ignored,
};
use tracing::error;

use crate::blueprint::Blueprint;
use crate::load::load;
use crate::run::{Environment, Options, run};
use crate::summary::Ended;

/// The run failed.
const FAILED: u8 = 1;
/// The file is bad; trying again cannot help.
const BAD_FILE: u8 = 2;
/// Ended by SIGTERM with work left, as a shell would report it.
const INTERRUPTED: u8 = 128 + 15;
/// What Kubernetes keeps of a termination message, in bytes.
const TERMINATION_MESSAGE_LIMIT: usize = 4096;

/// Runs a pipeline file: source, processors, consumers
#[derive(Debug, Parser)]
#[command(name = "flowctl-runner", version, about, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "`flowctl-runner -config FILE` is the same as `flowctl-runner run FILE`.

Exit codes: 0 the source ended and everything was acknowledged, or a pipeline without an end was
asked to stop; 1 failed; 2 the file is bad; 143 a range with an end was stopped before it was done.

With FLOWCTL_ENDPOINT=host:port it registers with that control plane and reports its progress there.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pipeline file
    Run(RunArgs),
    /// Say what is wrong with a pipeline file, without running it
    Check {
        /// The pipeline file
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The pipeline file
    file: PathBuf,
    /// Where /livez, /readyz and /metrics are served
    #[arg(long, env = "FLOWCTL_ADMIN_ADDRESS", default_value = "[::]:8089")]
    admin_address: SocketAddr,
    /// Folder for the checkpoint; without it every run begins at the start
    #[arg(long, env = "FLOWCTL_CHECKPOINT_DIR")]
    checkpoint_dir: Option<PathBuf>,
    /// How long messages under way may take to finish after SIGTERM
    #[arg(long, env = "FLOWCTL_GRACE", default_value = "25s", value_parser = duration::parse)]
    grace: Duration,
    /// Messages between the source and the last acknowledgement
    #[arg(long, env = "FLOWCTL_WINDOW_MESSAGES", default_value = "256")]
    window_messages: usize,
    /// Their payloads together
    #[arg(long, env = "FLOWCTL_WINDOW_BYTES", default_value = "32MiB", value_parser = size::parse)]
    window_bytes: u64,
    /// Where the reason of a failure is written for Kubernetes, if the file exists
    #[arg(long, env = "FLOWCTL_TERMINATION_LOG", default_value = "/dev/termination-log")]
    termination_log: PathBuf,
    #[command(flatten)]
    logs: LogArgs,
}

/// The whole program.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(like_the_go_binary(arguments)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way, too; clap knows their exit codes.
            let code = u8::try_from(error.exit_code()).unwrap_or(BAD_FILE);
            let _ = error.print();
            return code.into();
        }
    };
    match cli.command {
        Command::Check { file } => check(&file),
        Command::Run(arguments) => execute(&arguments),
    }
}

/// `-config FILE` and `-config=FILE`, the Go binary's spelling, become `run FILE`.
fn like_the_go_binary(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let Some(first) = arguments.get(1).and_then(|first| first.to_str()) else {
        return arguments;
    };
    let (flag, value) = match first.split_once('=') {
        Some((flag, value)) => (flag, Some(OsString::from(value))),
        None => (first, None),
    };
    if !matches!(flag, "-config" | "--config") {
        return arguments;
    }
    let replacement = std::iter::once(OsString::from("run")).chain(value);
    arguments.splice(1..2, replacement.collect::<Vec<_>>());
    arguments
}

fn check(file: &Path) -> ExitCode {
    match load(file, |name| std::env::var(name).ok()) {
        Ok(blueprint) => {
            println!("{}", describe(file, &blueprint));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            BAD_FILE.into()
        }
    }
}

fn describe(file: &Path, blueprint: &Blueprint) -> String {
    let names = |names: Vec<&str>| match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    };
    let processors = blueprint.processors.iter().map(|step| step.name.as_str());
    let consumers = blueprint.consumers.iter().map(|step| step.name.as_str());
    format!(
        "{}: pipeline {} is good: source {}; processors {}; consumers {}",
        file.display(),
        blueprint.key,
        blueprint.source.name,
        names(processors.collect()),
        names(consumers.collect()),
    )
}

fn execute(arguments: &RunArgs) -> ExitCode {
    if let Err(error) = arguments.logs.init() {
        eprintln!("{error}");
        return BAD_FILE.into();
    }
    let fail = |code: u8, error: &dyn std::fmt::Display| {
        error!("{error}");
        leave_message(&arguments.termination_log, &error.to_string());
        ExitCode::from(code)
    };
    let blueprint = match load(&arguments.file, |name| std::env::var(name).ok()) {
        Ok(blueprint) => blueprint,
        Err(error) => return fail(BAD_FILE, &error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAILED, &error),
    };
    let ended = runtime.block_on(serve(arguments, &blueprint));
    // Nothing is left to wait for; a blocking write that hangs must not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(Ended::Complete | Ended::Stopped) => ExitCode::SUCCESS,
        Ok(Ended::Interrupted) => fail(
            INTERRUPTED,
            &"stopped before the last ledger of the range; a new run goes on after the checkpoint",
        ),
        Err(error) => fail(FAILED, &format!("{error:#}")),
    }
}

async fn serve(arguments: &RunArgs, blueprint: &Blueprint) -> anyhow::Result<Ended> {
    let shutdown = Shutdown::on_signals()?;
    let metrics = Metrics::new("flowctl-runner", env!("CARGO_PKG_VERSION"));
    let readiness = Readiness::new();
    let starting = readiness.check("pipeline", "starting");
    let environment = Environment {
        stop: shutdown.token(),
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        statistics: Statistics::new(),
    };
    let session = register(arguments, blueprint, &environment);
    let admin = AdminServer::bind(arguments.admin_address, &readiness, &metrics).await?;
    let _admin = admin.spawn();
    let options = Options {
        checkpoint_dir: arguments.checkpoint_dir.clone(),
        grace: arguments.grace,
        window: WindowLimits {
            messages: arguments.window_messages,
            bytes: usize::try_from(arguments.window_bytes).unwrap_or(usize::MAX),
        },
    };
    starting.ready();
    let summary = run(blueprint, &options, &environment).await?;
    // Not after a failure: a pipeline that died is missed, and expires.
    if let Some(session) = session {
        session.end().await;
    }
    Ok(summary.ended)
}

/// Registers with a control plane if the environment names one (seed 001, section "Configuration").
fn register(arguments: &RunArgs, blueprint: &Blueprint, environment: &Environment) -> Option<Session> {
    let variable = |name: &str| std::env::var(name).ok();
    let found = Settings::from_env(Activation::Endpoint, variable);
    warn_ignored(&found.ignored);
    let settings = found.settings?;
    let own_name = variable("CDP_PIPELINE_NAME").filter(|name| !name.is_empty());
    let name = own_name.unwrap_or_else(|| blueprint.key.clone());
    let registration = Registration::new(Role::Pipeline, name.as_str())
        .default_id(format!("cdp-{name}"))
        .version(env!("CARGO_PKG_VERSION"))
        .metadata(PipelineMetadata {
            config_file: arguments.file.display().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: blueprint.network().unwrap_or_default().to_owned(),
        });
    let metrics = SessionMetrics::register(&environment.metrics);
    let statistics = environment.statistics.clone();
    Some(Session::spawn_measured(settings, registration, statistics, metrics))
}

/// Tells Kubernetes why the container ended. The file exists only there.
fn leave_message(path: &Path, message: &str) {
    if !path.exists() {
        return;
    }
    let mut end = message.len().min(TERMINATION_MESSAGE_LIMIT);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    if let Err(error) = std::fs::write(path, &message[..end]) {
        error!(path = %path.display(), %error, "cannot write the termination message");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_go_binarys_spelling_is_a_run() {
        for (given, expected) in [
            (&["r", "-config", "f.yaml"][..], &["r", "run", "f.yaml"][..]),
            (&["r", "-config=f.yaml"], &["r", "run", "f.yaml"]),
            (&["r", "--config", "f.yaml"], &["r", "run", "f.yaml"]),
            (&["r", "check", "f.yaml"], &["r", "check", "f.yaml"]),
            (&["r"], &["r"]),
        ] {
            let given = given.iter().map(OsString::from);
            let expected: Vec<_> = expected.iter().map(OsString::from).collect();
            assert_eq!(like_the_go_binary(given), expected);
        }
    }
}
