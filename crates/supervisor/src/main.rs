//! The supervisor of one local cluster: reads requests from standard input, runs processes, and unwinds everything
//! when the stream ends or a signal comes. Two ways to call it:
//!
//! - `flowctl-supervisor run JOURNAL` serves requests;
//! - `flowctl-supervisor resume JOURNAL` unwinds what a killed supervisor left.

mod serve;

use std::path::Path;
use std::process::ExitCode;

use flowctl_supervisor::journal::Journal;
use flowctl_supervisor::unwind::unwind;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["run", journal] => serve::serve(Path::new(journal)),
        ["resume", journal] => {
            Journal::open(Path::new(journal)).map(|mut journal| unwind(&mut journal))
        }
        _ => {
            eprintln!("usage: flowctl-supervisor run|resume JOURNAL");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(failures) if failures.is_empty() => ExitCode::SUCCESS,
        Ok(failures) => {
            failures.iter().for_each(|failure| eprintln!("{failure}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("supervisor: {error}");
            ExitCode::FAILURE
        }
    }
}
