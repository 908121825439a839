//! The client's side of the supervisor: finds or builds its program, starts it, asks it things. Dropping this handle
//! closes the pipe, and the supervisor unwinds everything it was told, unless it was detached.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use flowctl_supervisor::process::Identity;
use flowctl_supervisor::{Answer, Program, Report, Request, Undo, journal};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::binaries::project_root;
use crate::{Error, Result};

/// Nothing that the supervisor is asked takes long; unwinding may (every step has its own deadline there).
const ANSWER: Duration = Duration::from_secs(20);
const UNWINDING: Duration = Duration::from_secs(180);

/// A running supervisor.
#[derive(Debug)]
pub(crate) struct Supervisor {
    child: Child,
    requests: Mutex<Option<ChildStdin>>,
    answers: Mutex<Receiver<Answer>>,
    exits: Arc<Mutex<Vec<(String, String)>>>,
    /// What runs now, and how it was started.
    programs: Mutex<Vec<(Program, Identity)>>,
    logs: PathBuf,
    detached: bool,
}

// === impl Supervisor ===

impl Supervisor {
    /// Starts a supervisor whose journal and logs are in this directory. It clears what a killed one left there.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        Self::start_with_lock(directory, None)?.ok_or_else(|| Error::impossible("the supervisor waits for no lock"))
    }

    /// Likewise, if nobody else holds the lock; the supervisor holds it then for as long as it lives.
    pub(crate) fn start_with_lock(directory: &Path, lock: Option<&Path>) -> Result<Option<Self>> {
        let executable = executable()?;
        let mut child = Command::new(&executable)
            .arg("run")
            .arg(directory)
            .args(lock)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::file("start", &executable))?;
        let requests = Mutex::new(child.stdin.take());
        let (sender, answers) = channel();
        let exits = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&exits);
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    match serde_json::from_str(&line) {
                        Ok(Report::Answer(answer)) => drop(sender.send(answer)),
                        Ok(Report::Exited { name, status }) => locked(&seen).push((name, status)),
                        Err(_) => {}
                    }
                }
            });
        }
        let logs = directory.join("logs");
        let mut supervisor = Self {
            child,
            requests,
            answers: Mutex::new(answers),
            exits,
            programs: Mutex::default(),
            logs,
            detached: false,
        };
        // It may have to clear the place first.
        let refused = match supervisor.answer(UNWINDING)? {
            Answer::Failed(why) => Err(Error::impossible(why)),
            Answer::Busy => Ok(None),
            Answer::Done | Answer::Started(_) | Answer::Stopped(_) => return Ok(Some(supervisor)),
        };
        supervisor.hang_up();
        let _ = supervisor.child.wait();
        refused
    }

    /// Where the logs of its processes are.
    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    /// Which process it is.
    pub(crate) fn identity(&self) -> Option<Identity> {
        Identity::of(i32::try_from(self.child.id()).ok()?)
    }

    /// Registers a step of unwinding. Call it before doing what it undoes.
    pub(crate) fn undo(&self, step: Undo) -> Result<()> {
        self.ask(&Request::Undo(step)).map(|_| ())
    }

    /// Starts a process.
    pub(crate) fn run(&self, program: Program) -> Result<()> {
        let answer = self.ask(&Request::Start(program.clone()))?;
        if let Answer::Started(pid) = answer
            && let Some(identity) = Identity::of(pid)
        {
            locked(&self.programs).push((program, identity));
        }
        Ok(())
    }

    /// Sends a signal to a process that was started under this name.
    pub(crate) fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let (_, identity) = self.running(name)?;
        nix::sys::signal::kill(Pid::from_raw(identity.pid), signal)
            .map_err(|error| Error::impossible(format!("cannot send {signal} to {name}: {error}")))
    }

    /// Kills a process; its end is no failure of the cluster. Gives how to start it again.
    pub(crate) fn kill(&self, name: &str) -> Result<Program> {
        let (program, identity) = self.running(name)?;
        locked(&self.programs).retain(|(_, other)| *other != identity);
        if !identity.kill() {
            return Err(Error::impossible(format!("{name} cannot be killed")));
        }
        let deadline = Instant::now() + ANSWER;
        loop {
            let mut exits = locked(&self.exits);
            if let Some(index) = exits.iter().position(|(ended, _)| ended == name) {
                exits.remove(index);
                return Ok(program);
            }
            drop(exits);
            if Instant::now() > deadline {
                return Err(Error::impossible(format!(
                    "the supervisor does not tell that {name} ended"
                )));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn running(&self, name: &str) -> Result<(Program, Identity)> {
        let found = locked(&self.programs)
            .iter()
            .find(|(program, _)| program.name == name)
            .cloned();
        found.ok_or_else(|| Error::impossible(format!("{name} was not started by this cluster")))
    }

    /// Lets it run on when this process ends.
    pub(crate) fn detach(&mut self) -> Result<()> {
        self.ask(&Request::Detach)?;
        self.detached = true;
        Ok(())
    }

    /// An error if one of its processes ended by itself.
    pub(crate) fn check(&self) -> Result<()> {
        let ended = locked(&self.exits).first().cloned();
        let Some((name, status)) = ended else {
            return Ok(());
        };
        let log = last_lines(&self.logs.join(format!("{name}.log")), 15);
        Err(Error::Exited { name, status, log })
    }

    /// Unwinds everything and waits for the end.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let failures = match self.send(&Request::Stop).and_then(|()| self.answer(UNWINDING)) {
            Ok(Answer::Stopped(failures)) => failures,
            Ok(_) => Vec::new(),
            Err(error) => vec![error.to_string()],
        };
        self.hang_up();
        let _ = self.child.wait();
        if failures.is_empty() {
            return Ok(());
        }
        Err(Error::impossible(format!(
            "the cluster could not be cleaned up: {}",
            failures.join("; ")
        )))
    }

    fn ask(&self, request: &Request) -> Result<Answer> {
        self.send(request)?;
        match self.answer(ANSWER)? {
            Answer::Failed(why) => Err(Error::impossible(why)),
            answer => Ok(answer),
        }
    }

    fn hang_up(&self) {
        *locked(&self.requests) = None;
    }

    fn send(&self, request: &Request) -> Result<()> {
        let gone = || Error::io("talk to the supervisor")(std::io::ErrorKind::BrokenPipe.into());
        let mut requests = locked(&self.requests);
        let pipe = requests.as_mut().ok_or_else(gone)?;
        let mut line = serde_json::to_vec(request).map_err(|error| Error::io("write a request")(error.into()))?;
        line.push(b'\n');
        pipe.write_all(&line)
            .and_then(|()| pipe.flush())
            .map_err(Error::io("talk to the supervisor"))
    }

    fn answer(&self, limit: Duration) -> Result<Answer> {
        locked(&self.answers).recv_timeout(limit).map_err(|_| {
            Error::impossible(format!(
                "the supervisor of the cluster in {} does not answer",
                self.logs.display()
            ))
        })
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if !self.detached && locked(&self.requests).is_some() {
            // Waiting keeps the promise that nothing is left; an error has no reader here.
            let _ = self.stop();
        }
    }
}

/// Unwinds what a killed supervisor left in this directory. Nothing happens while its supervisor lives.
pub(crate) fn resume(directory: &Path, lock: Option<&Path>) -> Result<()> {
    if !directory.join(journal::FILE_NAME).exists() {
        return Ok(());
    }
    let executable = executable()?;
    let output = Command::new(&executable)
        .arg("resume")
        .arg(directory)
        .args(lock)
        .current_dir("/")
        .output();
    let output = output.map_err(Error::file("start", &executable))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::impossible(
        String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
    ))
}

/// The last lines of a file, for a message.
pub(crate) fn last_lines(path: &Path, count: usize) -> String {
    let text = fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(count)..)
        .unwrap_or_default()
        .join("\n")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The supervisor's program, built when its sources are newer. A test binary of another crate does not build it, and
/// it has a target directory of its own so that starting a cluster never waits for a build of the workspace.
pub(crate) fn executable() -> Result<PathBuf> {
    let root = project_root();
    let target = root.join("target/supervisor");
    let program = target.join("debug/flowctl-supervisor");
    let sources = root.join("crates/supervisor");
    if modified(&program) > newest(&sources) {
        return Ok(program);
    }
    eprintln!("building flowctl-supervisor ...");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .current_dir(&root)
        .args(["build", "--quiet", "--package", "flowctl-supervisor", "--target-dir"])
        .arg(&target);
    // Under a coverage or lint run these would make it another program.
    build
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET");
    let output = build
        .output()
        .map_err(Error::io("run cargo to build flowctl-supervisor"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::impossible(format!("cannot build flowctl-supervisor: {said}")));
    }
    // Cargo leaves a fresh program as it is; without a newer date we would ask it again each time.
    if let Ok(file) = File::options().append(true).open(&program) {
        let _ = file.set_modified(SystemTime::now());
    }
    Ok(program)
}

fn newest(path: &Path) -> Option<SystemTime> {
    let below = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| newest(&entry.path()));
    below.chain([modified(path).filter(|_| path.is_file())]).flatten().max()
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
