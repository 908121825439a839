//! `flowctl-runner`: runs a pipeline file.

use std::process::ExitCode;

fn main() -> ExitCode {
    flowctl_runner::cli::main(std::env::args_os())
}
