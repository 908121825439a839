//! Cases as files: what is there, what changes, what goes wrong meanwhile, and what must come of it. The format is
//! described in `docs/faults.md`; a case without rules is a workload, from which the campaign makes its cases.

use std::{collections::BTreeMap, path::Path};

use flowctl_testkit::{Error, Result, binaries::project_root};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    rule::{Rule, WatchFault},
    signature::Pattern,
};

/// A case, or a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// What it is about, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// What happens before, without faults; after each step everything settles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given: Vec<Step>,
    /// What happens with the rules armed, at once.
    pub when: Vec<Step>,
    /// Arguments of the operator, beside those that it needs here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operator: Vec<String>,
    /// What goes wrong with requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// What happens to open watches when the rules are armed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watches: Vec<Disturbance>,
    /// What must come of it.
    #[serde(default, skip_serializing_if = "Expect::is_same")]
    pub expect: Expect,
}

/// What happens to open watches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Disturbance {
    /// Which watches.
    pub on: Pattern,
    /// What happens.
    #[serde(rename = "do")]
    pub fault: WatchFault,
}

/// One thing that a user does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Creates a sample: a file of `crates/faults/samples`.
    Create(String),
    /// Merges into samples that were created.
    Change(BTreeMap<String, Value>),
    /// Deletes a sample, in the background.
    Delete(String),
}

/// What must come of a case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// Every rule struck, and all is as in an undisturbed run: the objects, how often each was created and deleted, and
    /// the silence afterwards.
    #[default]
    Same,
    /// Likewise, but a rule may have found nothing to strike: what it waits for is not sent in every run.
    SameEvenIfMissed,
}

/// What of a case decides how an undisturbed run ends.
pub(crate) type Workload = (Vec<Step>, Vec<Step>, Vec<String>);

// === impl Case ===

impl Case {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// When it is no case; with the place.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
        Self::parse(&text)
            .map_err(|error| Error::impossible(format!("cannot read the case {}: {error}", path.display())))
    }

    /// Reads a text.
    ///
    /// # Errors
    ///
    /// When it is no case; with the place.
    pub fn parse(text: &str) -> Result<Self> {
        let case: Self = serde_saphyr::from_str(text).map_err(|error| Error::impossible(error.to_string()))?;
        for step in case.given.iter().chain(&case.when) {
            step.samples().try_for_each(|name| sample(name).map(drop))?;
        }
        Ok(case)
    }

    /// As a text that [`Case::parse`] reads.
    ///
    /// # Errors
    ///
    /// When a rule cannot be written down ([`crate::Rewrite`]).
    pub fn write(&self) -> Result<String> {
        serde_saphyr::to_string(self).map_err(|error| Error::impossible(format!("cannot write the case: {error}")))
    }

    /// The cases in a folder of this crate, by their names without `.yaml`.
    ///
    /// # Errors
    ///
    /// When the folder or a case in it cannot be read.
    pub fn all_in(folder: &str) -> Result<BTreeMap<String, Self>> {
        let folder = home().join(folder);
        let entries = std::fs::read_dir(&folder).map_err(Error::file("read", &folder))?;
        let paths = entries.flatten().map(|entry| entry.path());
        let cases = paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        cases
            .map(|path| {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                Ok((name, Self::read(&path)?))
            })
            .collect()
    }

    /// Whether nothing goes wrong in it.
    pub fn is_workload(&self) -> bool {
        self.rules.is_empty() && self.watches.is_empty()
    }

    pub(crate) fn workload(&self) -> Workload {
        (self.given.clone(), self.when.clone(), self.operator.clone())
    }
}

// === impl Step ===

impl Step {
    pub(crate) fn samples(&self) -> impl Iterator<Item = &String> {
        let (one, many) = match self {
            Self::Create(name) | Self::Delete(name) => (Some(name), None),
            Self::Change(changes) => (None, Some(changes.keys())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

// === impl Expect ===

impl Expect {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_same(&self) -> bool {
        *self == Self::Same
    }
}

/// An object of `crates/faults/samples`.
pub(crate) fn sample(name: &str) -> Result<Value> {
    let path = home().join("samples").join(format!("{name}.yaml"));
    let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    serde_saphyr::from_str(&text)
        .map_err(|error| Error::impossible(format!("cannot read the sample {}: {error}", path.display())))
}

/// This crate's folder.
fn home() -> std::path::PathBuf {
    project_root().join("crates/faults")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Action, Answer, WatchRule};

    const CASE: &str = r#"
about: An example of everything.
given:
  - create: ttp
when:
  - change: {ttp: {spec: {port: 50052}}}
  - delete: ttp
operator: [--resync=1m]
rules:
  - on: create controllerrevisions.apps ttp-*
    do: kill-after-apply
  - on: apply services ttp-processor
    nth: 2
    times: 0
    do: {answer: {code: 429, retryAfter: 1}}
  - on: watch pods
    do: {watch: {fault: gone, after: 3}}
  - on: watch services
    do: {watch: {fault: {hold: 500}}}
  - on: write *
    do: {delay: 20}
watches:
  - on: watch externalprocessors.flowctl.dev
    do: {hold: 3000}
expect: same-even-if-missed
"#;

    // A file that is read otherwise than it was written would replay another case.
    #[test]
    fn a_case_is_what_its_file_says_and_can_be_written_again() {
        let case = Case::parse(CASE).expect("a case");
        let actions: Vec<Action> = case.rules.iter().map(|rule| rule.action.clone()).collect();
        let (gone, hold) = (WatchFault::Gone, WatchFault::Hold(500));
        assert_eq!(
            actions,
            [
                Action::KillAfterApply,
                Action::Answer(Answer::code(429).retry_after(1)),
                Action::Watch(WatchRule { fault: gone, after: 3 }),
                Action::Watch(WatchRule { fault: hold, after: 0 }),
                Action::Delay(20),
            ]
        );
        assert_eq!((case.rules[0].nth, case.rules[0].times), (1, 1));
        assert_eq!((case.rules[1].nth, case.rules[1].times), (2, 0));
        assert_eq!(case.expect, Expect::SameEvenIfMissed);
        assert_eq!(case.watches[0].fault, WatchFault::Hold(3000));
        let written = case.write().expect("written");
        assert_eq!(Case::parse(&written).expect(&written), case);
    }

    // A misspelt key would be a case that tests nothing.
    #[test]
    fn what_cannot_be_meant_is_refused() {
        for bad in [
            "when: [{create: nobody}]",
            "when: [{make: ttp}]",
            "rules: []",
            "{when: [], ruls: []}",
            "{when: [], rules: [{on: kill pods, do: hang}]}",
            "{when: [], rules: [{on: get pods, do: hangs}]}",
        ] {
            assert!(Case::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_committed_file_is_a_case() {
        for (name, workload) in Case::all_in("workloads").expect("workloads") {
            assert!(workload.is_workload() && !workload.about.is_empty(), "{name}");
        }
        for (name, case) in Case::all_in("cases").expect("cases") {
            assert!(!case.is_workload() && !case.about.is_empty(), "{name}");
        }
    }
}
