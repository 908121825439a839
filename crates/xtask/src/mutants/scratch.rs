//! The copy of the project in which mistakes are made: below `target`, with a target folder of its own that begins with
//! what is compiled already, and that is kept, so that only what a mistake touches is compiled anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use flowctl_testkit::tier::{self, Tier};
use tokio::process::Command;

use super::{
    by_target,
    mutant::{Catcher, LIB, Mutant},
};

/// A program's tests take no longer; what they wait for has its own, shorter deadlines.
const LIMIT: Duration = Duration::from_secs(900);

/// The copy.
pub(super) struct Scratch {
    project: PathBuf,
    tree: PathBuf,
}

/// What became of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
}

// === impl Outcome ===

impl Outcome {
    /// What that means for a mistake.
    pub(super) const fn as_verdict(self) -> &'static str {
        match self {
            Self::Passed => "SURVIVED",
            Self::Failed => "caught",
        }
    }
}

// === impl Scratch ===

impl Scratch {
    /// Makes it, or finds it.
    pub(super) fn open(project: &Path) -> Result<Self> {
        let tree = project.join("target/mutants");
        let compiled = tree.join("target/debug");
        if !compiled.exists() {
            fs::create_dir_all(&compiled).with_context(|| format!("cannot make {}", compiled.display()))?;
            seed(&project.join("target/debug"), &compiled).context("cannot take over what is compiled")?;
        }
        Ok(Self {
            project: project.to_owned(),
            tree,
        })
    }

    /// Makes the copy equal to the project's tracked files, as they are in the working tree. What is equal keeps its date,
    /// so that it is not compiled again.
    pub(super) fn sync(&self) -> Result<()> {
        let tracked = tracked(&self.project)?;
        for file in &tracked {
            let (from, to) = (self.project.join(file), self.tree.join(file));
            let Some(wanted) =
                unless_missing(fs::read(&from)).with_context(|| format!("cannot read {}", from.display()))?
            else {
                continue;
            };
            if fs::read(&to).ok().as_ref() != Some(&wanted) {
                let folder = to.parent().unwrap_or(&self.tree);
                fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
                fs::write(&to, wanted).with_context(|| format!("cannot write {}", to.display()))?;
            }
        }
        self.remove_others(&self.tree, &tracked)
    }

    fn remove_others(&self, folder: &Path, tracked: &BTreeSet<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            let relative = path.strip_prefix(&self.tree).unwrap_or(&path);
            if relative == Path::new("target") {
                continue;
            }
            if path.is_dir() {
                self.remove_others(&path, tracked)?;
            } else if !tracked.contains(relative) || !self.project.join(relative).exists() {
                fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Makes a mistake.
    pub(super) async fn apply(&self, mutant: &Mutant) -> Result<()> {
        mutant.apply(&self.tree)
    }

    /// Compiles and runs these tests; those of other tiers are left out.
    pub(super) async fn run<'a>(
        &self,
        catchers: &BTreeSet<&'a Catcher>,
        tiers: &[Tier],
    ) -> Result<BTreeMap<&'a Catcher, Outcome>> {
        let mut outcomes = BTreeMap::new();
        for ((package, target), tests) in by_target(catchers) {
            let selection = match target {
                LIB => vec!["-p", package, "--lib"],
                test => vec!["-p", package, "--test", test],
            };
            let built = self
                .cargo(&selection, &["--no-run"])
                .output()
                .await
                .context("cannot run cargo")?;
            ensure!(
                built.status.success(),
                "{package} {target} does not compile:\n{}",
                String::from_utf8_lossy(&built.stderr)
            );
            let names = tests.iter().map(|catcher| catcher.test.as_str());
            let arguments: Vec<&str> = ["--", "--exact", "--test-threads=2"].into_iter().chain(names).collect();
            let mut command = self.cargo(&selection, &arguments);
            let tiers: Vec<&str> = tiers.iter().map(|tier| tier.name()).collect();
            // CI: a tier that cannot run is an error, not a test that passed.
            command.env(tier::VARIABLE, tiers.join(",")).env("CI", "true");
            let output = tokio::time::timeout(LIMIT, command.output());
            let output = output
                .await
                .with_context(|| format!("{package} {target} does not end"))?;
            let output = output.context("cannot run cargo")?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            for catcher in tests {
                let Some(outcome) = outcome(&said, &catcher.test) else {
                    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
                    bail!("{catcher} was not run:\n{said}\n{errors}");
                };
                outcomes.insert(catcher, outcome);
            }
        }
        Ok(outcomes)
    }

    fn cargo(&self, selection: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .current_dir(&self.tree)
            .args(["test", "--locked"])
            .args(selection)
            .args(arguments);
        // Another target folder would be the project's own.
        command.env_remove("CARGO_TARGET_DIR").kill_on_drop(true);
        command
    }
}

/// What became of a test, from what its program said: `test NAME ... ok`.
fn outcome(said: &str, test: &str) -> Option<Outcome> {
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("test ")?.strip_prefix(test)?.strip_prefix(" ... "))?;
    match line.trim() {
        "ok" => Some(Outcome::Passed),
        failed if failed.starts_with("FAILED") => Some(Outcome::Failed),
        _ => None,
    }
}

/// The project's tracked files.
fn tracked(project: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = std::process::Command::new("git")
        .current_dir(project)
        .args(["ls-files", "-z"])
        .output();
    let output = output.context("cannot run git")?;
    ensure!(
        output.status.success(),
        "cannot list the project's files: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect())
}

fn unless_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Begins with what is compiled: libraries are never written twice and can be linked; what cargo notes about them is.
fn seed(from: &Path, to: &Path) -> io::Result<()> {
    for (folder, linked) in [("deps", true), ("build", false), (".fingerprint", false)] {
        if from.join(folder).is_dir() {
            copy(&from.join(folder), &to.join(folder), linked)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, linked: bool) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target, linked)?;
        } else if linked {
            fs::hard_link(entry.path(), target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            let dates = entry.metadata()?;
            let file = fs::File::options().append(true).open(&target)?;
            file.set_times(fs::FileTimes::new().set_modified(dates.modified()?))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // A test whose name only begins alike, or that was not run at all, says nothing about a mistake.
    #[test]
    fn only_the_named_test_counts() {
        let said = "running 2 tests\ntest a::b_and_more ... ok\ntest a::b ... FAILED\ntest a::c ... ignored\n";
        assert_eq!(outcome(said, "a::b"), Some(Outcome::Failed));
        assert_eq!(outcome(said, "a::b_and_more"), Some(Outcome::Passed));
        assert_eq!(outcome(said, "a::c"), None);
        assert_eq!(outcome(said, "a"), None);
    }
}
