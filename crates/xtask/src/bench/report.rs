//! The numbers: for programs as JSON, for people as a table. Nothing is computed here that is not a sum or a ratio of what
//! was measured.

use std::{fmt::Write as _, time::SystemTime};

use flowctl_bench::{Sent, usage::Usage};
use flowctl_testkit::{Error, Result, audit::Event};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    churn::Churn,
    log::{self, Requests},
    restart::{Relisted, Restarted},
};

/// Everything that was measured in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    /// Pipelines, and as many ExternalProcessors.
    pub(super) objects: usize,
    /// Whether Deployments had pods that became ready.
    pub(super) pods: bool,
    /// The operator's limit; 0: none.
    pub(super) writes_per_second: u32,
    /// The operator's passes at the same time.
    pub(super) concurrency: usize,
    /// The bare loop's requests at the same time.
    pub(super) in_flight: usize,
    /// Cargo's profile of both programs; `None`: they were compiled before.
    pub(super) profile: Option<String>,
    /// The bare loop before and after the operator, with half of the objects each.
    pub(super) bare: [Sent; 2],
    /// An operator with nothing to do.
    pub(super) idle: Usage,
    /// From nothing to everything.
    pub(super) converged: Converged,
    /// While specs change.
    pub(super) churn: Option<Churn>,
    /// After a restart.
    pub(super) restarted: Restarted,
    /// After all watches were lost.
    pub(super) relisted: Relisted,
}

/// The way to convergence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Converged {
    /// From the start of the process until its last write was answered.
    pub(super) seconds: f64,
    /// From its first write on.
    pub(super) seconds_of_writing: f64,
    /// Writes to children and statuses.
    pub(super) writes: Requests,
    /// Events that it published.
    pub(super) events: usize,
    /// Reads of single objects, lists and watches.
    pub(super) reads: Requests,
    /// Requests that were answered with an error, but for objects that are not there yet.
    pub(super) refused: usize,
    /// What it used until it was at rest.
    pub(super) usage: Usage,
}

const MEBI: f64 = 1024.0 * 1024.0;

// === impl Converged ===

impl Converged {
    /// Reads it from the log since `begun`.
    pub(super) fn read(events: &[Event], place: &str, begun: SystemTime, usage: Usage) -> Result<Self> {
        let wrong = |error: &dyn std::fmt::Display| Error::impossible(format!("cannot read the audit log: {error}"));
        let begun = Timestamp::try_from(begun).map_err(|error| wrong(&error))?;
        let ours = || events.iter().filter(|event| log::is_of_operator(event, place));
        let is_event = |event: &&Event| {
            event
                .object_ref
                .as_ref()
                .is_some_and(|object| object.api_group == "events.k8s.io")
        };
        let writes = || ours().filter(|event| event.is_write() && !is_event(event));
        let last = writes().map(|event| event.answered.0).max();
        let first = writes().map(|event| event.received.0).min();
        let (Some(first), Some(last)) = (first, last) else {
            return Err(wrong(&"the operator wrote nothing"));
        };
        let refused = |event: &&Event| {
            let code = event.response_status.as_ref().map_or(0, |status| status.code);
            code >= 400 && !(code == 404 && event.verb == "get")
        };
        Ok(Self {
            seconds: last.duration_since(begun).as_secs_f64(),
            seconds_of_writing: last.duration_since(first).as_secs_f64(),
            writes: Requests::of(writes()),
            events: ours().filter(|event| event.is_write()).filter(is_event).count(),
            reads: Requests::of(ours().filter(|event| !event.is_write())),
            refused: ours().filter(refused).count(),
            usage,
        })
    }
}

// === impl Report ===

impl Report {
    /// Time of the operator by that of the bare loop, both from their start to the last answer.
    pub(super) fn time_ratio(&self) -> f64 {
        self.converged.seconds / self.bare_seconds()
    }

    /// Writes of the operator by those of the bare loop.
    pub(super) fn write_ratio(&self) -> f64 {
        number(self.converged.writes.total()) / number(self.bare_requests())
    }

    fn bare_seconds(&self) -> f64 {
        self.bare.iter().map(|half| half.seconds).sum()
    }

    fn bare_requests(&self) -> usize {
        self.bare.iter().map(|half| half.requests).sum()
    }

    /// Bytes of memory for each of our objects, with all of its children, beyond what an idle operator has.
    pub(super) fn bytes_per_object(&self) -> f64 {
        let more = self.converged.usage.resident.saturating_sub(self.idle.resident);
        bytes(more) / (2.0 * number(self.objects))
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        for (what, value) in self.rows() {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{what:<58} {value}");
        }
        text
    }

    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        let mut row = |what: &str, value: String| rows.push((what.to_owned(), value));
        let (bare, made) = (self.bare_seconds(), &self.converged);
        let rate = |requests: usize, seconds: f64| format!("{:.0}/s", number(requests) / seconds);
        row(
            "Pipelines + ExternalProcessors",
            format!("{0} + {0}{1}", self.objects, if self.pods { ", with pods" } else { "" }),
        );
        row(
            "limit of the operator's writes",
            match self.writes_per_second {
                0 => "none".to_owned(),
                limit => format!("{limit}/s"),
            },
        );
        let halves = self
            .bare
            .each_ref()
            .map(|half| format!("{:.2}", half.seconds))
            .join(" + ");
        row(
            "bare loop: seconds, before + after the operator",
            format!("{bare:.2} ({halves})"),
        );
        row(
            "bare loop: requests, bytes of bodies",
            format!(
                "{}, {} ({})",
                self.bare_requests(),
                self.bare.iter().map(|half| half.bytes).sum::<usize>(),
                rate(self.bare_requests(), bare)
            ),
        );
        row(
            "bare loop: CPU seconds",
            format!(
                "{:.2}",
                self.bare.iter().map(|half| half.usage.cpu_seconds).sum::<f64>()
            ),
        );
        row(
            "operator: seconds from its start, from its first write",
            format!("{:.2}, {:.2}", made.seconds, made.seconds_of_writing),
        );
        row(
            "operator: writes (children and statuses), by object",
            format!(
                "{}, {:.2} ({})",
                made.writes.total(),
                number(made.writes.total()) / (2.0 * number(self.objects)),
                rate(made.writes.total(), made.seconds_of_writing)
            ),
        );
        for (name, count) in &made.writes.0 {
            row(&format!("    {name}"), count.to_string());
        }
        row(
            "operator: events, refused requests",
            format!("{}, {}", made.events, made.refused),
        );
        row(
            "operator: reads",
            made.reads
                .0
                .iter()
                .filter(|(name, _)| name.starts_with("get"))
                .map(|(_, count)| count)
                .sum::<usize>()
                .to_string(),
        );
        row(
            "operator / bare loop: seconds, writes",
            format!("{:.2}, {:.2}", self.time_ratio(), self.write_ratio()),
        );
        row(
            "operator: CPU seconds until at rest",
            format!("{:.2}", made.usage.cpu_seconds),
        );
        row(
            "operator: memory idle, converged, peak, MiB",
            format!(
                "{:.1}, {:.1}, {:.1}",
                bytes(self.idle.resident) / MEBI,
                bytes(made.usage.resident) / MEBI,
                bytes(made.usage.peak) / MEBI
            ),
        );
        row(
            "operator: bytes of memory by object, with its children",
            format!("{:.0}", self.bytes_per_object()),
        );
        if let Some(churn) = &self.churn {
            row(
                "churn: changes, in a second, unanswered",
                format!("{}, {}, {}", churn.changes, churn.rate, churn.unanswered),
            );
            let spread =
                |spread: super::churn::Spread| format!("{:.0}, {:.0}, {:.0}", spread.p50, spread.p99, spread.max);
            row(
                "churn: change to last child write, ms: p50, p99, max",
                spread(churn.children),
            );
            row(
                "churn: change to last status write, ms: p50, p99, max",
                spread(churn.statuses),
            );
            row(
                "churn: writes by change",
                format!("{:.2}", number(churn.writes.total()) / number(churn.changes.max(1))),
            );
        }
        let Restarted {
            seconds,
            usage,
            writes,
            passes,
        } = &self.restarted;
        row(
            "restart: seconds, CPU seconds until all was looked at",
            format!("{seconds:.2}, {:.2}", usage.cpu_seconds),
        );
        row(
            "restart: writes, passes; memory then, peak, MiB",
            format!(
                "{writes}, {passes}; {:.1}, {:.1}",
                bytes(usage.resident) / MEBI,
                bytes(usage.peak) / MEBI
            ),
        );
        let Relisted { before, after, writes } = &self.relisted;
        row(
            "all watches lost: writes; memory before, peak, after, MiB",
            format!(
                "{writes}; {:.1}, {:.1}, {:.1}",
                bytes(before.resident) / MEBI,
                bytes(after.peak) / MEBI,
                bytes(after.resident) / MEBI
            ),
        );
        row(
            "all watches lost: CPU seconds",
            format!("{:.2}", after.cpu_seconds - before.cpu_seconds),
        );
        rows
    }
}

/// A count as a number to divide; all that is counted here is far below 2^32.
fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

fn bytes(count: u64) -> f64 {
    // Whole KiB, so that a u32 holds it up to 4 TiB.
    u32::try_from(count / 1024).map_or(f64::INFINITY, f64::from) * 1024.0
}
