//! The supervisor of one local cluster: reads requests from standard input, runs processes, and unwinds everything
//! when the stream ends or a signal comes. Two ways to call it:
//!
//! - `flowctl-supervisor run DIRECTORY [LOCK]` serves requests, with its journal and the logs in that directory;
//! - `flowctl-supervisor resume DIRECTORY [LOCK]` only unwinds what a killed supervisor left there.
//!
//! With a lock file, only one of them at a time touches the directory.

mod place;
mod serve;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["run", directory] => serve::serve(Path::new(directory), None),
        ["run", directory, lock] => serve::serve(Path::new(directory), Some(Path::new(lock))),
        ["resume", directory] => place::clear(Path::new(directory), None),
        ["resume", directory, lock] => place::clear(Path::new(directory), Some(Path::new(lock))),
        _ => {
            eprintln!("usage: flowctl-supervisor run|resume DIRECTORY [LOCK]");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
