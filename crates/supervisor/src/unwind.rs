//! Unwinding: stops processes and undoes steps, the newest first. Nothing here gives up at the first failure: what
//! can be undone is undone, and what cannot is told.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};

use crate::Undo;
use crate::journal::{Entry, Journal};
use crate::process::{Identity, with_argument};

/// How long one step is usually retried: kernel objects (cgroups, mounts, devices) go a moment after their last process.
pub const PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(50);

/// Unwinds everything in the journal; a step that fails is tried again for as long as `patience`. Returns what could
/// not be undone; those steps stay in the journal, and nothing else does: nothing is undone twice.
pub fn unwind(journal: &mut Journal, patience: Duration) -> Vec<String> {
    let mut failures = Vec::new();
    let mut left = Vec::new();
    for entry in journal.take().into_iter().rev() {
        let outcome = match &entry {
            Entry::Supervisor(_) => Ok(()),
            Entry::Process {
                name,
                identity,
                grace_ms,
            } => {
                if identity.stop_group(Duration::from_millis(*grace_ms)) {
                    Ok(())
                } else {
                    Err(format!("{name} (process {}) does not die", identity.pid))
                }
            }
            Entry::Undo(Undo::RemoveDirectory(path)) if !failures.is_empty() => Err(format!(
                "{} is kept: it holds what another attempt needs",
                path.display()
            )),
            Entry::Undo(step) => patiently(patience, || perform(step)),
        };
        if let Err(failure) = outcome {
            failures.push(failure);
            left.push(entry);
        }
    }
    left.reverse();
    let is_done = left.is_empty();
    match journal.rewrite(left) {
        Ok(()) => {}
        // Gone with its directory: that says as much as an empty one.
        Err(error) if is_done && error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => failures.push(format!("cannot keep the journal: {error}")),
    }
    failures
}

/// Tries until it works or patience ends.
fn patiently(patience: Duration, mut attempt: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(failure) if Instant::now() >= deadline => return Err(failure),
            Err(_) => std::thread::sleep(RETRY),
        }
    }
}

fn perform(step: &Undo) -> Result<(), String> {
    match step {
        Undo::Run(arguments) => run(arguments),
        Undo::RemoveCgroups(paths) => paths.iter().try_for_each(|path| remove_cgroup(path)),
        Undo::KillByArgument(argument) => kill_all(with_argument(argument)),
        Undo::RemoveSockets(directory) => remove_sockets(directory),
        Undo::Unmount(directory) => unmount_below(directory),
        Undo::Restore { path, content } => restore(path, content),
        Undo::RemoveEmpty { path, top } => remove_empty(path, top),
        Undo::RemoveDirectory(path) => explain("remove", path, absent_is_fine(fs::remove_dir_all(path))),
    }
}

/// In a container settings are often read-only: one that stands as it stood is no failure there.
fn restore(path: &Path, content: &str) -> Result<(), String> {
    match fs::read_to_string(path) {
        Ok(found) if found.trim_end() == content.trim_end() => Ok(()),
        Ok(_) | Err(_) => explain("write", path, fs::write(path, content)),
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let Some((executable, rest)) = arguments.split_first() else {
        return Ok(());
    };
    let command = arguments.join(" ");
    let output = Command::new(executable)
        .args(rest)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run `{command}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{command}` failed ({}): {}", output.status, said.trim()))
}

/// Kills what is in the cgroup and below it, then removes it from the leaves up.
fn remove_cgroup(path: &Path) -> Result<(), String> {
    let Ok(entries) = fs::read_dir(path) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path())?;
        }
    }
    let members = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    kill_all(
        members
            .lines()
            .filter_map(|line| line.parse().ok())
            .filter_map(Identity::of)
            .collect(),
    )?;
    explain("remove cgroup", path, absent_is_fine(fs::remove_dir(path)))
}

fn kill_all(processes: Vec<Identity>) -> Result<(), String> {
    let survivors: Vec<String> = processes
        .into_iter()
        .filter(|process| !process.kill())
        .map(|process| process.pid.to_string())
        .collect();
    if survivors.is_empty() {
        Ok(())
    } else {
        Err(format!("processes {} do not die", survivors.join(", ")))
    }
}

/// A containerd shim keeps its socket in a directory that all containerds share; only the file `address` in the
/// task's own directory tells which one it is.
fn remove_sockets(directory: &Path) -> Result<(), String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory && entry.file_name() != "rootfs" {
            remove_sockets(&path)?;
        } else if entry.file_name() == "address"
            && let Ok(address) = fs::read_to_string(&path)
        {
            let socket = PathBuf::from(address.trim().trim_start_matches("unix://"));
            if fs::symlink_metadata(&socket).is_ok_and(|metadata| metadata.file_type().is_socket()) {
                explain("remove", &socket, absent_is_fine(fs::remove_file(&socket)))?;
            }
        }
    }
    Ok(())
}

/// Unmounts below a directory, the newest mount first.
fn unmount_below(directory: &Path) -> Result<(), String> {
    for target in mounts_below(directory).into_iter().rev() {
        let detached = umount2(&target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        detached.map_err(|error| format!("cannot unmount {}: {error}", target.display()))?;
    }
    let left = mounts_below(directory).len();
    if left == 0 {
        Ok(())
    } else {
        Err(format!("{left} mounts are left below {}", directory.display()))
    }
}

/// What is mounted below a directory, in the order of mounting (`/proc/self/mountinfo`, field 5; proc(5)).
pub fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|target| PathBuf::from(unescape(target)))
        .filter(|target| target.starts_with(directory))
        .collect()
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

fn remove_empty(path: &Path, top: &Path) -> Result<(), String> {
    for directory in path.ancestors().take_while(|directory| directory.starts_with(top)) {
        match absent_is_fine(fs::remove_dir(directory)) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(()),
            outcome => explain("remove", directory, outcome)?,
        }
    }
    Ok(())
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn explain(verb: &str, path: &Path, outcome: io::Result<()>) -> Result<(), String> {
    outcome.map_err(|error| format!("cannot {verb} {}: {error}", path.display()))
}
