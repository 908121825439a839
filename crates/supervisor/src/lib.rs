//! What the supervisor of a local cluster and its client say to each other, one JSON value a line, and the journal
//! that outlives both. The supervisor is its own small process because a test that is killed with SIGKILL can clean
//! up nothing: its end of the pipe closes, and the supervisor undoes everything. It must not know Kubernetes: it
//! knows processes and a stack of undo steps, no more, so that unwinding has one order and one place.

pub mod journal;
pub mod process;
pub mod unwind;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a client asks. Before the first request there is one [`Answer`]: whether this supervisor has the place to
/// itself. Then every request has exactly one; the end of the stream means [`Request::Stop`], unless
/// [`Request::Detach`] came before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Run a process until everything is unwound.
    Start(Program),
    /// Do this while unwinding, before everything that was started or registered earlier.
    /// Register a step *before* doing what it undoes.
    Undo(Undo),
    /// From now on the end of the stream means nothing; SIGTERM still stops.
    Detach,
    /// Unwind everything and exit.
    Stop,
}

/// A process to run, in a process group of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    /// How reports call it.
    pub name: String,
    /// The executable, as an absolute path.
    pub executable: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Added to the supervisor's environment.
    pub environment: Vec<(String, String)>,
    /// Where its output goes, both streams, appended.
    pub log: PathBuf,
    /// Milliseconds between SIGTERM and SIGKILL; 0 sends SIGKILL at once.
    pub grace_ms: u64,
}

/// One step of unwinding. Every step succeeds when there is nothing left to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Undo {
    /// Run a command; a non-zero exit is a failure unless the next attempt succeeds.
    Run(Vec<String>),
    /// Kill every process in these cgroups and below, then remove the cgroups.
    RemoveCgroups(Vec<PathBuf>),
    /// Kill every process that has exactly this string among its arguments.
    KillByArgument(String),
    /// Remove the sockets whose addresses (`unix://PATH`) stand in files called `address` below this directory.
    RemoveSockets(PathBuf),
    /// Unmount everything that is mounted below this directory.
    Unmount(PathBuf),
    /// Put this content back into a file of the kernel (a sysctl).
    Restore {
        /// The file.
        path: PathBuf,
        /// What stood in it.
        content: String,
    },
    /// Remove a directory if it is empty, and its parents up to and including `top` as long as they are.
    RemoveEmpty {
        /// The directory to begin with.
        path: PathBuf,
        /// The last parent that may be removed.
        top: PathBuf,
    },
    /// Remove a directory with everything in it. Skipped when an earlier step failed: the journal may be in it,
    /// and another attempt needs that.
    RemoveDirectory(PathBuf),
}

/// The answer to one request, and the greeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Done.
    Done,
    /// Done; the process runs under this id.
    Started(i32),
    /// Somebody else holds the lock. Only as a greeting; the stream ends with it.
    Busy,
    /// Not done, and why.
    Failed(String),
    /// Everything is unwound; what could not be undone, if anything. The last line of the stream.
    Stopped(Vec<String>),
}

/// A line from the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Report {
    /// The answer to the oldest request that has none yet.
    Answer(Answer),
    /// A process ended by itself. Nothing is restarted: the client decides what that means.
    Exited {
        /// Its name.
        name: String,
        /// How it ended, in words.
        status: String,
    },
}
