//! The operator as it is shipped: a process, started again whenever it ends, as a kubelet would.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use flowctl_testkit::{Error, Result, binaries::project_root};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{process::Command, task::JoinHandle};
use tokio_util::task::AbortOnDropHandle;

/// Names another program than this checkout's operator.
pub const PROGRAM: &str = "FLOWCTL_OPERATOR_PROGRAM";

/// How to start it.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) program: PathBuf,
    pub(crate) namespace: String,
    pub(crate) arguments: Vec<String>,
    /// Its kubeconfig and its logs.
    pub(crate) directory: PathBuf,
}

/// A running operator; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Operator {
    process: Process,
    starts: Arc<AtomicU32>,
    _running: AbortOnDropHandle<()>,
}

/// The process that runs now, if one does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Process(Arc<Mutex<Option<Pid>>>);

// === impl Operator ===

impl Operator {
    /// Starts it. Each process has a lease of its own: the one before is dead for certain, and waiting until its lease runs
    /// out would only cost time.
    pub(crate) fn start(settings: Settings) -> Self {
        let (process, starts) = (Process::default(), Arc::new(AtomicU32::new(0)));
        let running: JoinHandle<()> = tokio::spawn(run(settings, process.clone(), Arc::clone(&starts)));
        Self {
            process,
            starts,
            _running: AbortOnDropHandle::new(running),
        }
    }

    /// What a proxy kills.
    pub(crate) fn process(&self) -> Process {
        self.process.clone()
    }

    /// How often it was started.
    pub(crate) fn starts(&self) -> u32 {
        self.starts.load(Ordering::Acquire)
    }
}

async fn run(settings: Settings, process: Process, starts: Arc<AtomicU32>) {
    loop {
        let number = starts.fetch_add(1, Ordering::AcqRel) + 1;
        if let Ok(mut child) = command(&settings, number).spawn() {
            process.set(child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw));
            // Fails only for a process that was waited for.
            let _ = child.wait().await;
            process.set(None);
        }
        // One that cannot start must not be started a thousand times.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn command(settings: &Settings, number: u32) -> Command {
    let Settings {
        program,
        namespace,
        arguments,
        directory,
    } = settings;
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(directory.join("operator.log"));
    let output = || {
        log.as_ref()
            .ok()
            .and_then(|log| log.try_clone().ok())
            .map_or_else(Stdio::null, Stdio::from)
    };
    // Dies with us, however we end; it becomes the operator and keeps its pid.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("KUBECONFIG", directory.join("kubeconfig"))
        .args(["--namespaces", namespace, "--lease-namespace", namespace])
        .args(["--lease-name", &format!("operator-{number}")])
        .args(["--admin-address", "127.0.0.1:0", "--log-level", "info"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output())
        .kill_on_drop(true);
    command
}

// === impl Process ===

impl Process {
    fn set(&self, pid: Option<Pid>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pid;
    }

    /// Ends it, and returns when it runs no further.
    pub(crate) fn kill(&self) {
        let Some(pid) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else {
            return;
        };
        if kill(pid, Signal::SIGKILL).is_err() {
            return;
        }
        let begun = Instant::now();
        while is_running(pid) && begun.elapsed() < Duration::from_secs(5) {
            std::thread::yield_now();
        }
    }
}

/// Whether the process can still do something; a zombie cannot.
fn is_running(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which stands in parentheses and may hold some itself: proc(5).
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The operator's program: the one that was named, the one that was built with this program, or one built now.
///
/// # Errors
///
/// When it cannot be built.
pub fn program() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(PROGRAM) {
        return Ok(named.into());
    }
    let here = std::env::current_exe().map_err(Error::io("find this program"))?;
    // Tests are one folder deeper.
    let folder = here.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    let program = folder.unwrap_or(&here).join("flowctl-operator");
    let root = project_root();
    let sources = ["operator", "plan", "pipeline", "api", "runtime"].map(|name| root.join("crates").join(name));
    if modified(&program) > sources.iter().filter_map(|folder| newest(folder)).max() {
        return Ok(program);
    }
    eprintln!("building flowctl-operator ...");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = std::process::Command::new(cargo);
    let build = build
        .current_dir(&root)
        .args(["build", "--quiet", "--package", "flowctl-operator", "--bins"]);
    let output = build
        .output()
        .map_err(Error::io("run cargo to build flowctl-operator"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::impossible(format!("cannot build flowctl-operator: {said}")));
    }
    // Cargo leaves a fresh program as it is; without a newer date we would ask it again each time.
    if let Ok(file) = std::fs::File::options().append(true).open(&program) {
        let _ = file.set_modified(SystemTime::now());
    }
    Ok(program)
}

fn newest(path: &Path) -> Option<SystemTime> {
    let below = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| newest(&entry.path()));
    below.chain([modified(path).filter(|_| path.is_file())]).flatten().max()
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
