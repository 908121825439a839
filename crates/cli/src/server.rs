//! `flowctl server`, which seed 002 calls `flowctl start`.

use std::process::ExitCode;

use flowctl_runtime::{Shutdown, in_one_line};

use crate::args::ServerCommand;
use crate::failure::Failure;

/// Serves until SIGTERM or SIGINT, and drains.
pub(crate) async fn run(arguments: ServerCommand) -> Result<ExitCode, Failure> {
    let other = |error: &dyn std::error::Error| Failure::Other(in_one_line(error));
    arguments.logs.init().map_err(|error| other(&error))?;
    let shutdown = Shutdown::on_signals().map_err(|error| other(&error))?;
    let served = flowctl_control_plane::serve(arguments.server, shutdown).await;
    served.map_err(|error| other(&error))?;
    Ok(ExitCode::SUCCESS)
}
