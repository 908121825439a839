//! One mutant: a patch, and above it what the mistake is and which tests must notice it.
//!
//! ```text
//! Mistake: the name of the owner is compared, not its uid
//! Caught-by: plain flowctl-operator lib ownership::tests::only_the_very_object_counts_as_ours
//! Caught-by: api flowctl-operator api_tier ownership::…
//!
//! diff --git …
//! ```

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use flowctl_testkit::tier::Tier;

const FOLDER: &str = "tests/mutants";
/// The target of a package's unit tests, as headers call it.
pub(super) const LIB: &str = "lib";

/// A mistake, as a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// The file's name without `.patch`.
    pub name: String,
    /// The mistake, in a line.
    pub mistake: String,
    /// Tests that must fail; each of them.
    pub caught_by: Vec<Catcher>,
    path: PathBuf,
}

/// A test.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Catcher {
    /// What it needs.
    pub tier: Tier,
    /// Its package.
    pub package: String,
    /// `lib`, or the name of an integration test.
    pub target: String,
    /// Its path within that.
    pub test: String,
}

// === impl Mutant ===

impl Mutant {
    /// All of them, by name.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or its header is not complete.
    pub fn all(root: &Path) -> Result<Vec<Self>> {
        let folder = root.join(FOLDER);
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        let mut all = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "patch") {
                let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                all.push(Self::parse(&path, &text).with_context(|| format!("cannot read {}", path.display()))?);
            }
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let (header, _) = text.split_once("\ndiff --git ").context("there is no diff in it")?;
        let mut mutant = Self {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            mistake: String::new(),
            caught_by: Vec::new(),
            path: path.to_owned(),
        };
        for line in header.lines().filter(|line| !line.trim().is_empty()) {
            match line.split_once(": ") {
                Some(("Mistake", mistake)) if mutant.mistake.is_empty() => mistake.clone_into(&mut mutant.mistake),
                Some(("Caught-by", catcher)) => mutant.caught_by.push(Catcher::parse(catcher)?),
                _ => bail!("{line:?} is neither the only `Mistake: …` nor a `Caught-by: …`"),
            }
        }
        ensure!(!mutant.mistake.is_empty(), "there is no `Mistake: …` above the diff");
        ensure!(
            !mutant.caught_by.is_empty(),
            "there is no `Caught-by: …` above the diff"
        );
        Ok(mutant)
    }

    /// Applies it to the project below `tree`.
    ///
    /// # Errors
    ///
    /// When it does not apply any more.
    pub fn apply(&self, tree: &Path) -> Result<()> {
        self.git_apply(tree, &[])
    }

    /// Whether it would apply.
    ///
    /// # Errors
    ///
    /// When it would not, with git's words.
    pub fn check(&self, tree: &Path) -> Result<()> {
        self.git_apply(tree, &["--check"])
    }

    fn git_apply(&self, tree: &Path, more: &[&str]) -> Result<()> {
        // Outside of a repository, as it were: within one git leaves out, in silence, what is not below it.
        let above = tree.parent().unwrap_or(tree);
        let output = Command::new("git")
            .current_dir(tree)
            .env("GIT_CEILING_DIRECTORIES", above)
            .env("GIT_DIR", tree.join("no-repository"))
            .args(["apply", "--whitespace=nowarn"])
            .args(more)
            .arg(&self.path)
            .output()
            .context("cannot run git")?;
        ensure!(
            output.status.success(),
            "the patch does not apply any more, make it anew: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }
}

// === impl Catcher ===

impl Catcher {
    fn parse(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [tier, package, target, test] = words.as_slice() else {
            bail!("{text:?} is not `TIER PACKAGE TARGET TEST`");
        };
        let tiers = Tier::parse_list(tier)?;
        let [tier] = tiers.as_slice() else {
            bail!("{text:?} does not name one tier")
        };
        Ok(Self {
            tier: *tier,
            package: (*package).to_owned(),
            target: (*target).to_owned(),
            test: (*test).to_owned(),
        })
    }

    /// Whether a function of its name is in its package.
    ///
    /// # Errors
    ///
    /// When the package cannot be read.
    pub fn exists(&self, root: &Path) -> Result<bool> {
        let crate_folder = self.package.strip_prefix("flowctl-").unwrap_or(&self.package);
        let folder = root.join("crates").join(crate_folder);
        let part = if self.target == LIB { "src" } else { "tests" };
        let function = self.test.rsplit("::").next().unwrap_or_default();
        contains(&folder.join(part), &format!("fn {function}("))
    }

    /// As the table shows it.
    pub(super) fn in_table(&self) -> String {
        let tier = if self.tier == Tier::Plain {
            String::new()
        } else {
            format!(" ({})", self.tier)
        };
        let place = if self.target == LIB {
            self.package.clone()
        } else {
            format!("{} {}", self.package, self.target)
        };
        format!("{place}: `{}`{tier}", self.test)
    }
}

impl fmt::Display for Catcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ({})", self.package, self.target, self.test, self.tier)
    }
}

fn contains(folder: &Path, text: &str) -> Result<bool> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let found = if path.is_dir() {
            contains(&path, text)?
        } else {
            path.extension().is_some_and(|extension| extension == "rs") && fs::read_to_string(&path)?.contains(text)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Mutant> {
        Mutant::parse(Path::new("tests/mutants/a-name.patch"), text)
    }

    // A misspelt header must not become a mutant that nothing has to catch.
    #[test]
    fn headers_are_complete_or_refused() {
        let whole = "Mistake: it is wrong\nCaught-by: api p t a::b\n\ndiff --git a/x b/x\n";
        let mutant = parse(whole).expect("complete");
        assert_eq!(
            (mutant.name.as_str(), mutant.mistake.as_str()),
            ("a-name", "it is wrong")
        );
        assert_eq!(mutant.caught_by[0].to_string(), "p t a::b (api)");
        for wrong in [
            "Mistake: it is wrong\n\ndiff --git a/x b/x\n",
            "Caught-by: api p t a::b\n\ndiff --git a/x b/x\n",
            "Mistake: it is wrong\nCaught-by: api p t\n\ndiff --git a/x b/x\n",
            "Mistake: it is wrong\nCaught by: api p t a::b\n\ndiff --git a/x b/x\n",
            "Mistake: it is wrong\nCaught-by: api p t a::b\n",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
