//! The numbers: for programs as JSON, for people as a table beside what they were to be.

use std::fmt::Write as _;

use flowctl_bench::beats::Beaten;
use serde::Serialize;
use serde_json::Value;

use super::instructions::Instructions;

/// Everything that was measured in one run.
#[derive(Clone, Debug, Serialize)]
pub(in super::super) struct Report {
    /// Cargo's profile; `None`: the programs were compiled before.
    pub(super) profile: Option<String>,
    pub(super) rounds: Rounds,
    pub(super) instructions: Option<Instructions>,
    /// What `registry_scale` printed.
    pub(super) memory: Value,
    pub(super) lateness: Value,
}

/// What each server took, in the order of the turns.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Rounds {
    pub(super) ours: Vec<Rate>,
    pub(super) bare: Vec<Rate>,
    pub(super) echo: Vec<Rate>,
    pub(super) go: Vec<Rate>,
    pub(super) ours_streamed: Vec<Rate>,
    pub(super) bare_streamed: Vec<Rate>,
}

/// One turn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Rate {
    pub(super) beaten: Beaten,
    /// Of the server.
    pub(super) cpu_seconds: f64,
}

// === impl Rate ===

impl Rate {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn per_cpu_second(&self) -> f64 {
        self.beaten.beats as f64 / self.cpu_seconds
    }
}

// === impl Report ===

impl Report {
    /// For people.
    pub(in super::super) fn table(&self) -> String {
        let mut text = String::new();
        for (what, value, goal) in self.rows() {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{what:<64} {value:>12}  {goal}");
        }
        text
    }

    fn rows(&self) -> Vec<(&'static str, String, &'static str)> {
        let rounds = &self.rounds;
        let rate = |rates: &[Rate]| format!("{:.0}", median(rates.iter().map(Rate::per_cpu_second).collect()));
        let ratio = |ours: &[Rate], theirs: &[Rate]| format!("{:.2}", ratio(ours, theirs));
        let number = |value: &Value, path: &str| value.pointer(path).map_or_else(|| "?".to_owned(), round);
        let mut rows = vec![
            (
                "unary heartbeats by second of the server's processor: ours",
                rate(&rounds.ours),
                "",
            ),
            ("    a bare tonic echo of the message", rate(&rounds.echo), ""),
            ("    bare tonic with our answer, which is empty", rate(&rounds.bare), ""),
            ("    grpc-go with a mutex and a map", rate(&rounds.go), ""),
            ("ours / the echo", ratio(&rounds.ours, &rounds.echo), "at least 0.9"),
            ("ours / bare tonic", ratio(&rounds.ours, &rounds.bare), ""),
            ("ours / grpc-go", ratio(&rounds.ours, &rounds.go), "at least 1.8"),
            (
                "streamed heartbeats by second of the server's processor: ours",
                rate(&rounds.ours_streamed),
                "",
            ),
            ("    bare tonic", rate(&rounds.bare_streamed), ""),
            (
                "ours / bare tonic",
                ratio(&rounds.ours_streamed, &rounds.bare_streamed),
                "",
            ),
        ];
        if let Some(instructions) = self.instructions {
            let count = |count: f64| format!("{count:.0}");
            rows.push((
                "instructions of a streamed beat, many in one read",
                count(instructions.flood),
                "at most 10000",
            ));
            rows.push((
                "    each in a read of its own",
                count(instructions.single),
                "at most 10000",
            ));
        }
        rows.push((
            "bytes of memory by service with 8 metrics",
            number(&self.memory, "/bytes_per_service"),
            "at most 500",
        ));
        rows.push((
            "expiry told late, all at once, ms: median",
            number(&self.lateness, "/late_ms/p50"),
            "",
        ));
        rows.push(("    the latest", number(&self.lateness, "/late_ms/max"), "at most 1000"));
        rows.push(("services in these", number(&self.memory, "/services"), ""));
        rows
    }
}

fn round(value: &Value) -> String {
    value
        .as_f64()
        .map_or_else(|| value.to_string(), |number| format!("{number:.0}"))
}

/// The median of the ratios of the turns: each compares what ran side by side.
fn ratio(ours: &[Rate], theirs: &[Rate]) -> f64 {
    let each = ours
        .iter()
        .zip(theirs)
        .map(|(ours, theirs)| ours.per_cpu_second() / theirs.per_cpu_second());
    median(each.collect())
}

/// The middle one, and of an even number the lower of the two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values
        .get(values.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(beats: u64, cpu_seconds: f64) -> Rate {
        let beaten = Beaten { beats, seconds: 9.0 };
        Rate { beaten, cpu_seconds }
    }

    // A slow turn of the machine must not pass for a slow server: turns are compared, not their sums.
    #[test]
    fn ratios_are_of_turns() {
        let ours = [rate(100, 1.0), rate(100, 10.0), rate(100, 2.0)];
        let theirs = [rate(100, 2.0), rate(100, 20.0), rate(100, 1.0)];
        assert!((ratio(&ours, &theirs) - 2.0).abs() < 1e-9);
    }
}
