//! What the process itself uses, under the names that Prometheus' own clients give it, read at each scrape. Where there is
//! no `/proc` (not Linux), or it cannot be read, nothing is told.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Ticks in a second of `/proc`: the kernel shows times to programs with this rate on every machine that we build for,
/// whatever its own is (proc_pid_stat(5), `sysconf(_SC_CLK_TCK)`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc` when it is asked.
#[derive(Debug)]
pub(crate) struct Process {
    /// Seconds since 1970.
    started: Option<f64>,
}

// === impl Process ===

impl Process {
    pub(crate) fn new() -> Self {
        Self { started: started() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(seconds) = cpu_seconds() {
            let (help, metric) = (
                "Processor time, of the program and of the kernel for it",
                ConstCounter::new(seconds),
            );
            let of = encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), metric.metric_type())?;
            metric.encode(of)?;
        }
        if let Some(bytes) = resident_bytes() {
            let (help, metric) = ("Memory that is held", ConstGauge::new(bytes));
            let unit = Some(&Unit::Bytes);
            let of = encoder.encode_descriptor("process_resident_memory", help, unit, metric.metric_type())?;
            metric.encode(of)?;
        }
        if let Some(open) = open_files() {
            let (help, metric) = ("Open files and connections", ConstGauge::new(open));
            let of = encoder.encode_descriptor("process_open_fds", help, None, metric.metric_type())?;
            metric.encode(of)?;
        }
        if let Some(most) = most_files() {
            let (help, metric) = ("How many files and connections may be open", ConstGauge::new(most));
            let of = encoder.encode_descriptor("process_max_fds", help, None, metric.metric_type())?;
            metric.encode(of)?;
        }
        if let Some(seconds) = self.started {
            let (help, metric) = ("When it began, in seconds since 1970", ConstGauge::new(seconds));
            let unit = Some(&Unit::Seconds);
            let of = encoder.encode_descriptor("process_start_time", help, unit, metric.metric_type())?;
            metric.encode(of)?;
        }
        Ok(())
    }
}

/// Field `number` of `/proc/self/stat`, counted as in proc_pid_stat(5). The name before them may hold anything.
fn stat(number: usize) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    fields.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat(14)? + stat(15)?) / TICKS_PER_SECOND)
}

fn started() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    Some(boot + stat(22)? / TICKS_PER_SECOND)
}

fn resident_bytes() -> Option<i64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn open_files() -> Option<i64> {
    i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}

fn most_files() -> Option<i64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    // Whoever looks for a leak or a busy loop would look at numbers of something else.
    #[test]
    fn what_is_told_is_this_process() {
        let held = resident_bytes().expect("resident memory");
        let ballast = vec![1_u8; 64 << 20];
        let more = resident_bytes().expect("resident memory") - held;
        assert!(more > 48 << 20, "{} bytes held, {more} more", ballast.len());

        let before = open_files().expect("open files");
        let file = fs::File::open("/proc/self/stat").expect("a file");
        assert_eq!(open_files(), Some(before + 1), "with {file:?}");
        assert!(most_files().expect("a limit") > before);

        let used = cpu_seconds().expect("processor time");
        let mut sum = 0_u64;
        while cpu_seconds().expect("processor time") < used + 0.05 {
            sum = (0..1_000_000_u64).fold(sum, u64::wrapping_add);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let age = now.as_secs_f64() - started().expect("a start");
        assert!((-2.0..3600.0).contains(&age), "began {age} s ago");
    }
}
