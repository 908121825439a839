//! Running other programs: output captured, failures told with what the program said.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::{Error, Result};

/// Runs a command and returns its standard output.
///
/// # Errors
/// When it cannot be started or ends with a failure.
pub async fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, &[]).await
}

/// Runs a command with this standard input and returns its standard output.
///
/// # Errors
/// When it cannot be started or ends with a failure.
pub async fn run_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    let line = describe(command);
    let doing = format!("run `{line}`");
    let stdin = if input.is_empty() {
        Stdio::null()
    } else {
        Stdio::piped()
    };
    command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(Error::io(doing.clone()))?;
    let stdin = child.stdin.take();
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // A program that stops reading says why on standard error.
            let _ = stdin.write_all(input).await;
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    let output = output.map_err(Error::io(doing))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = if output.stderr.is_empty() {
        &output.stdout
    } else {
        &output.stderr
    };
    let said = text(said).trim().to_owned();
    Err(Error::Command {
        command: line,
        status: output.status.to_string(),
        said,
    })
}

/// The first of these directories, then those of `PATH`, that has this program.
pub fn find(program: &str, first: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = first.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    // A user's PATH often lacks the directories where a distribution keeps an administrator's programs.
    let directories = directories.chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    directories
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Finds a program or says that it is missing.
///
/// # Errors
/// When no directory has it.
pub fn require(program: &str, remedy: &str) -> Result<PathBuf> {
    find(program, &[]).ok_or_else(|| Error::impossible(format!("{program} is not installed: {remedy}")))
}

fn describe(command: &Command) -> String {
    let command = command.as_std();
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_else(|| command.get_program());
    std::iter::once(program)
        .chain(command.get_args())
        .map(|part| part.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
