//! The loop of a running supervisor: requests, signals, ended processes.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use flowctl_supervisor::journal::{Entry, Journal};
use flowctl_supervisor::process::Identity;
use flowctl_supervisor::unwind::{PATIENCE, unwind};
use flowctl_supervisor::{Answer, Program, Report, Request};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::place::Place;

/// Debian's util-linux; with it, processes die with a supervisor that is killed.
const SETPRIV: &str = "/usr/bin/setpriv";

/// What happens to a supervisor.
enum Event {
    Request(Request),
    Malformed(String),
    EndOfStream,
    Exited {
        name: String,
        status: String,
    },
    /// SIGTERM or SIGINT.
    Signalled,
}

/// Serves until it is told to stop, then unwinds.
///
/// # Errors
/// When the place cannot be used, or not everything could be undone.
pub(crate) fn serve(directory: &Path, lock: Option<&Path>) -> Result<(), String> {
    // A session of its own: Ctrl-C in the terminal reaches the client, whose end of the pipe then tells us.
    // It fails for a process group leader, which has left the terminal's group already.
    let _ = nix::unistd::setsid();
    let (place, mut journal) = match begin(directory, lock) {
        Ok(Some(begun)) => begun,
        Ok(None) => {
            report(&Report::Answer(Answer::Busy));
            return Ok(());
        }
        Err(failure) => {
            report(&Report::Answer(Answer::Failed(failure.clone())));
            return Err(failure);
        }
    };
    let (sender, events) = mpsc::channel();
    read_signals(sender.clone()).map_err(|error| format!("cannot take signals: {error}"))?;
    report(&Report::Answer(Answer::Done));
    read_requests(sender.clone());
    let mut detached = false;
    for event in events {
        let answer = match event {
            Event::EndOfStream if detached => continue,
            Event::EndOfStream | Event::Signalled | Event::Request(Request::Stop) => break,
            Event::Exited { name, status } => {
                report(&Report::Exited { name, status });
                continue;
            }
            Event::Malformed(line) => Answer::Failed(format!("not a request: {line}")),
            // Here and not on another thread: the kernel's "parent" that SETPRIV watches is a thread.
            Event::Request(Request::Start(program)) => start(program, &mut journal, &sender),
            Event::Request(Request::Undo(step)) => done(journal.push(Entry::Undo(step))),
            Event::Request(Request::Detach) => {
                detached = true;
                Answer::Done
            }
        };
        report(&Report::Answer(answer));
    }
    let failures = unwind(&mut journal, PATIENCE);
    report(&Report::Answer(Answer::Stopped(failures.clone())));
    drop(place);
    if failures.is_empty() {
        return Ok(());
    }
    // Nobody may be listening any more; who looks for the reason looks among the logs.
    let _ = fs::write(directory.join("logs/supervisor.log"), failures.join("\n"));
    Err(failures.join("; "))
}

fn begin(directory: &Path, lock: Option<&Path>) -> Result<Option<(Place, Journal)>, String> {
    let Some(place) = Place::take(directory, lock)? else {
        return Ok(None);
    };
    let mut journal = place.open()?;
    let own = Identity::own().ok_or("cannot read /proc: a supervisor needs it")?;
    journal
        .push(Entry::Supervisor(own))
        .map_err(|error| format!("cannot write the journal: {error}"))?;
    Ok(Some((place, journal)))
}

/// SIGHUP is taken and ignored: a closed terminal is no reason to stop.
fn read_signals(events: mpsc::Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    std::thread::spawn(move || {
        for signal in signals.forever().filter(|signal| *signal != SIGHUP) {
            let _ = signal;
            if events.send(Event::Signalled).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn read_requests(events: mpsc::Sender<Event>) {
    // A thread that blocks in read(2) and dies with the process: nothing to join.
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let event = match serde_json::from_str(&line) {
                Ok(request) => Event::Request(request),
                Err(_) => Event::Malformed(line),
            };
            if events.send(event).is_err() {
                return;
            }
        }
        let _ = events.send(Event::EndOfStream);
    });
}

fn start(program: Program, journal: &mut Journal, events: &mpsc::Sender<Event>) -> Answer {
    let executable = program.executable.display().to_string();
    match spawn(&program) {
        Err(error) => Answer::Failed(format!("cannot start {executable}: {error}")),
        Ok((mut child, identity)) => {
            let name = program.name.clone();
            let events = events.clone();
            std::thread::spawn(move || {
                let status = match child.wait() {
                    Ok(status) => status.to_string(),
                    Err(error) => error.to_string(),
                };
                let _ = events.send(Event::Exited { name, status });
            });
            let entry = Entry::Process {
                name: program.name,
                identity,
                grace_ms: program.grace_ms,
            };
            match journal.push(entry) {
                Ok(()) => Answer::Started(identity.pid),
                Err(error) => {
                    identity.stop_group(std::time::Duration::ZERO);
                    Answer::Failed(format!("cannot write the journal: {error}"))
                }
            }
        }
    }
}

fn spawn(program: &Program) -> io::Result<(Child, Identity)> {
    let log = OpenOptions::new().create(true).append(true).open(&program.log)?;
    // Without its journal entry nothing may run on, so the kernel is asked to end it with us.
    let mut command = if Path::new(SETPRIV).exists() {
        let mut command = Command::new(SETPRIV);
        command.args(["--pdeathsig", "KILL", "--"]).arg(&program.executable);
        command
    } else {
        Command::new(&program.executable)
    };
    command
        .args(&program.arguments)
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok();
    let identity = pid
        .and_then(Identity::of)
        .ok_or_else(|| io::Error::other("it ended at once"))?;
    Ok((child, identity))
}

fn done(outcome: io::Result<()>) -> Answer {
    match outcome {
        Ok(()) => Answer::Done,
        Err(error) => Answer::Failed(format!("cannot write the journal: {error}")),
    }
}

/// A client that is gone hears nothing; that is no reason to stop early.
fn report(report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let mut output = io::stdout().lock();
        let _ = output.write_all(&line).and_then(|()| output.flush());
    }
}
