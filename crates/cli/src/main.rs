//! `flowctl`: runs a control plane, and shows what one knows. Called as `kubectl-flowctl` it is a plugin of kubectl, and talks
//! to the cluster's control plane unless it is told otherwise. Answers go to standard output, everything else to standard
//! error.

mod alert;
mod args;
mod connect;
mod dial;
mod failure;
mod forward;
mod health;
mod metrics;
mod output;
mod pipelines;
mod server;
mod services;
mod source;
mod status;
mod table;
mod time;
mod view;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::args::{Cli, Command};
use crate::connect::Caller;
use crate::failure::Failure;
use crate::output::Output;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let caller = Caller::from_program_name(arguments.first().map_or(Path::new("flowctl"), Path::new));
    let mut command = Cli::command().bin_name(caller.name());
    let parsed = command.clone().try_get_matches_from(&arguments);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way, too; clap knows their exit codes.
            let code = error.exit_code();
            let _ = error.format(&mut command).print();
            return u8::try_from(code).unwrap_or(failure::USAGE).into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return failure::FAILED.into();
        }
    };
    let ended = runtime.block_on(run(cli, caller));
    // A blocking name look-up that hangs must not keep the process.
    runtime.shutdown_background();
    ended.unwrap_or_else(|failure| {
        eprintln!("error: {failure}");
        failure.code().into()
    })
}

async fn run(cli: Cli, caller: Caller) -> Result<ExitCode, Failure> {
    let output = Output::new(cli.global.output);
    match cli.command {
        Command::Server(arguments) => return server::run(*arguments).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "flowctl", &mut std::io::stdout());
            return Ok(ExitCode::SUCCESS);
        }
        Command::Version => return output.version(),
        _ => {}
    }
    let server = cli.global.connect(caller).await?;
    match cli.command {
        Command::Status(arguments) => status::run(&server, &output, &arguments).await,
        Command::Health(arguments) => health::run(&server, &output, &arguments).await,
        Command::Metrics(arguments) => metrics::run(&server, &output, &arguments).await,
        Command::Alert(command) => alert::run(&server, &output, command).await,
        Command::Pipelines(command) => pipelines::run(&server, &output, command).await,
        Command::Services(arguments) => services::run(&server, &output, &arguments).await,
        Command::Server(_) | Command::Completions { .. } | Command::Version => Ok(ExitCode::SUCCESS),
    }
}
