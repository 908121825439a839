//! Processes of other parents, told apart by id *and* start time, so that a process that happens to get a recycled
//! id is never signalled.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How often a dying process is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long SIGKILL may take before we call it a failure (a process in uninterruptible sleep).
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// One process, for as long as it exists and no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The process id.
    pub pid: i32,
    /// Clock ticks between boot and its start: field 22 of `/proc/PID/stat` (proc(5)).
    pub started: u64,
}

// === impl Identity ===

impl Identity {
    /// The process that has this id now, if there is one and it is not a zombie.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name is in parentheses and may hold anything, spaces and parentheses included.
        let after_name = stat.get(stat.rfind(')')? + 2..)?;
        let mut fields = after_name.split(' ');
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (state != "Z").then_some(Self { pid, started })
    }

    /// This process.
    pub fn own() -> Option<Self> {
        Self::of(Pid::this().as_raw())
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Asks it alone to end (SIGTERM).
    pub fn terminate(self) {
        if self.is_alive() {
            // An error means that it ended in between.
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGTERM);
        }
    }

    /// Stops its whole process group: SIGTERM, `grace`, SIGKILL. Returns whether it is gone.
    pub fn stop_group(self, grace: Duration) -> bool {
        if !self.is_alive() {
            return true;
        }
        let group = Pid::from_raw(self.pid);
        if !grace.is_zero() {
            let _ = killpg(group, Signal::SIGTERM);
            if self.is_gone_within(grace) {
                return true;
            }
        }
        let _ = killpg(group, Signal::SIGKILL);
        self.is_gone_within(KILL_DEADLINE)
    }

    /// Kills it at once. Returns whether it is gone.
    pub fn kill(self) -> bool {
        if self.is_alive() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
        self.is_gone_within(KILL_DEADLINE)
    }

    /// Waits for its end.
    pub fn is_gone_within(self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if !self.is_alive() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Every process that has exactly `argument` among its arguments.
pub fn with_argument(argument: &str) -> Vec<Identity> {
    let own = Pid::this().as_raw();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|byte| *byte == 0).any(|part| part == argument.as_bytes()))
        })
        .filter_map(Identity::of)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_id_is_not_the_same_process() {
        let own = Identity::own().expect("this process exists");
        assert!(own.is_alive());
        let other = Identity {
            started: own.started + 1,
            ..own
        };
        assert!(!other.is_alive());
        assert!(
            other.stop_group(Duration::ZERO),
            "nothing to stop, and this test still runs"
        );
    }
}
