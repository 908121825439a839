//! What a process used of processor and memory, as Linux tells it in `/proc` (proc(5)).

use std::{fs, io, time::Duration};

use serde::{Deserialize, Serialize};

/// The unit of times in `/proc/PID/stat`, a constant of the kernel's interface on all architectures that we know.
const TICKS_PER_SECOND: f64 = 100.0;
/// Place of `utime` in `/proc/PID/stat`, counted after the name in parentheses; `stime` follows.
const UTIME: usize = 11;

/// What a process used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in user and kernel mode, in seconds, to a hundredth.
    pub cpu_seconds: f64,
    /// Memory that is resident now, in bytes.
    pub resident: u64,
    /// The most that was, since the start or since [`forget_peak`].
    pub peak: u64,
}

// === impl Usage ===

impl Usage {
    /// Of a process.
    ///
    /// # Errors
    ///
    /// When there is no such process, or its files do not look as proc(5) says.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Self::parse(&stat, &status).ok_or_else(|| io::Error::other(format!("cannot read /proc/{pid}: {stat}")))
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The name may hold spaces and parentheses.
        let (_, after_name) = stat.rsplit_once(')')?;
        let mut times = after_name.split_whitespace().skip(UTIME);
        let user: u32 = times.next()?.parse().ok()?;
        let kernel: u32 = times.next()?.parse().ok()?;
        let kibibytes = |key: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            cpu_seconds: (f64::from(user) + f64::from(kernel)) / TICKS_PER_SECOND,
            resident: kibibytes("VmRSS:")? * 1024,
            peak: kibibytes("VmHWM:")? * 1024,
        })
    }

    /// Processor time as a duration.
    pub fn cpu(&self) -> Duration {
        Duration::from_secs_f64(self.cpu_seconds)
    }
}

/// Lets the peak of a process begin anew at what is resident now.
///
/// # Errors
///
/// When there is no such process, or it is somebody else's.
pub fn forget_peak(pid: u32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

#[cfg(test)]
mod tests {
    use super::*;

    // A number from the wrong column would be published as a measurement.
    #[test]
    fn the_right_columns_are_read() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 25 13 14 15";
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let usage = Usage::parse(stat, status).expect("as proc(5) says");
        assert_eq!((usage.resident, usage.peak), (1 << 20, 2 << 20));
        assert!((usage.cpu_seconds - 1.75).abs() < 1e-9, "{usage:?}");
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = Usage::of(std::process::id()).expect("this process exists");
        assert!(
            usage.resident > 100_000 && usage.peak >= usage.resident / 2,
            "{usage:?}"
        );
    }
}
