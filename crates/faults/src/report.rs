//! What came of a campaign: told to a person, and kept as files that replay.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use flowctl_testkit::{Error, binaries::project_root};

use crate::{case::Case, run::Outcome};

/// What came of many cases.
#[derive(Debug, Default)]
pub struct Report {
    /// The outcomes, by the names of the cases.
    pub outcomes: BTreeMap<String, Outcome>,
    /// Cases that could not be run, and why.
    pub errors: BTreeMap<String, String>,
    /// From the first to the last.
    pub took: Duration,
    /// Where the failing ones were written.
    pub written: Vec<PathBuf>,
}

// === impl Report ===

impl Report {
    /// Whether every case ran and passed.
    pub fn is_good(&self) -> bool {
        self.errors.is_empty() && self.outcomes.values().all(|outcome| outcome.violations.is_empty())
    }

    /// Keeps a case that failed as a file, with what happened beside it.
    pub(crate) fn failed(&mut self, name: &str, mut case: Case, outcome: &Outcome) {
        let folder = folder();
        let file: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let path = folder.join(format!("{file}.yaml"));
        case.about = format!("{} {name} fails.", case.about).trim().to_owned();
        let written = std::fs::create_dir_all(&folder)
            .map_err(Error::file("make", &folder))
            .and_then(|()| std::fs::write(&path, case.write()?).map_err(Error::file("write", &path)))
            .and_then(|()| {
                let log = path.with_extension("log");
                std::fs::write(&log, outcome.told()).map_err(Error::file("write", &log))
            });
        match written {
            Ok(()) => self.written.push(path),
            Err(error) => drop(self.errors.insert(name.to_owned(), error.to_string())),
        }
    }

    /// For a person: what failed, and how long what took.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, outcome) in self
            .outcomes
            .iter()
            .filter(|(_, outcome)| !outcome.violations.is_empty())
        {
            let _ = writeln!(text, "FAILED {name}");
            for violation in outcome.violations.iter().take(12) {
                let _ = writeln!(text, "    {violation}");
            }
        }
        for (name, error) in &self.errors {
            let _ = writeln!(text, "COULD NOT RUN {name}: {error}");
        }
        let mut groups: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
        for (name, outcome) in &self.outcomes {
            let fault = name.rsplit('/').next().unwrap_or(name);
            groups
                .entry(if name.contains(" and ") { "pairs" } else { fault })
                .or_default()
                .push(outcome);
        }
        let _ = writeln!(
            text,
            "{:<18} {:>5} {:>6} {:>7} {:>9} {:>9}",
            "fault", "cases", "struck", "failed", "median s", "longest s"
        );
        for (fault, outcomes) in groups {
            let struck = outcomes
                .iter()
                .filter(|outcome| outcome.struck.iter().any(|times| *times > 0))
                .count();
            let failed = outcomes.iter().filter(|outcome| !outcome.violations.is_empty()).count();
            let mut recoveries: Vec<f64> = outcomes.iter().map(|outcome| outcome.recovery.as_secs_f64()).collect();
            recoveries.sort_by(f64::total_cmp);
            let (median, longest) = (recoveries.get(recoveries.len() / 2), recoveries.last());
            let _ = writeln!(
                text,
                "{fault:<18} {:>5} {struck:>6} {failed:>7} {:>9.1} {:>9.1}",
                outcomes.len(),
                median.unwrap_or(&0.0),
                longest.unwrap_or(&0.0)
            );
        }
        let failed = self
            .outcomes
            .values()
            .filter(|outcome| !outcome.violations.is_empty())
            .count();
        let _ = writeln!(
            text,
            "{} cases in {} s: {failed} failed, {} could not be run",
            self.outcomes.len() + self.errors.len(),
            self.took.as_secs(),
            self.errors.len()
        );
        for path in &self.written {
            let _ = writeln!(text, "again: cargo xtask faults replay {}", shown(path).display());
        }
        text
    }
}

fn shown(path: &Path) -> &Path {
    path.strip_prefix(project_root()).unwrap_or(path)
}

/// Where failing cases are written.
fn folder() -> PathBuf {
    project_root().join("target/faults")
}
