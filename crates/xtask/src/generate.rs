//! Committed files that are made from others: how they are made, and the check that they were. Every artefact owns its
//! outputs: a file in one of its folders that it does not make is drift, too.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

/// Something that is generated.
#[derive(Debug)]
pub struct Artefact {
    /// Its name on the command line.
    pub name: &'static str,
    /// Folders (all files directly in them) and single files, relative to the project's root.
    pub outputs: &'static [&'static str],
    /// Makes the outputs below the given root; their folders exist.
    pub generate: fn(root: &Path) -> Result<()>,
}

/// Everything that is generated, in an order in which nothing reads what comes after it.
pub const ALL: &[Artefact] = &[
    crate::proto::ARTEFACT,
    crate::crds::ARTEFACT,
    crate::chart::ARTEFACT,
    crate::mutants::ARTEFACT,
];

/// Arguments of `cargo xtask generate`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What to generate; everything if none is named.
    names: Vec<String>,
    /// Change nothing; fail if a committed file is not what would be generated.
    #[arg(long)]
    check: bool,
}

/// `cargo xtask generate`.
///
/// # Errors
///
/// When a name is unknown, something cannot be generated, or, with `--check`, differs.
pub fn run(arguments: &Arguments) -> Result<()> {
    for name in &arguments.names {
        let known: Vec<_> = ALL.iter().map(|artefact| artefact.name).collect();
        ensure!(
            known.contains(&name.as_str()),
            "unknown artefact {name:?}; there are {}",
            known.join(", ")
        );
    }
    let wanted =
        |artefact: &&Artefact| arguments.names.is_empty() || arguments.names.iter().any(|name| name == artefact.name);
    for artefact in ALL.iter().filter(wanted) {
        if arguments.check {
            artefact.check()?;
        } else {
            artefact.generate_in_place()?;
        }
    }
    Ok(())
}

// === impl Artefact ===

impl Artefact {
    /// Regenerates the committed outputs.
    ///
    /// # Errors
    ///
    /// When a file cannot be removed or made.
    pub fn generate_in_place(&self) -> Result<()> {
        let root = project_root()?;
        for file in self.files(&root)? {
            let path = root.join(file);
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        self.generate_below(&root)
    }

    /// Compares the committed outputs with what would be generated now.
    ///
    /// # Errors
    ///
    /// Names every file that differs, is missing or is too many, and says how to repair it.
    pub fn check(&self) -> Result<()> {
        let fresh = tempfile::tempdir().context("cannot make a temporary folder")?;
        self.generate_below(fresh.path())?;
        let committed = project_root()?;
        let (wanted, found) = (self.files(fresh.path())?, self.files(&committed)?);
        let mut drift = Vec::new();
        for file in wanted.union(&found) {
            match (fs::read(fresh.path().join(file)), fs::read(committed.join(file))) {
                (Ok(wanted), Ok(found)) if wanted == found => {}
                (Ok(_), Ok(_)) => drift.push(format!("{} differs", file.display())),
                (Ok(_), Err(_)) => drift.push(format!("{} is missing", file.display())),
                (Err(_), _) => drift.push(format!("{} is no longer generated", file.display())),
            }
        }
        ensure!(
            drift.is_empty(),
            "{}; run `cargo xtask generate {}` and commit the result",
            drift.join(", "),
            self.name
        );
        Ok(())
    }

    fn generate_below(&self, root: &Path) -> Result<()> {
        for output in self.outputs {
            let path = root.join(output);
            let folder = if path.extension().is_some() {
                path.parent().unwrap_or(root)
            } else {
                &path
            };
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        (self.generate)(root).with_context(|| format!("cannot generate {}", self.name))
    }

    /// The files that stand in the outputs, relative to the root.
    fn files(&self, root: &Path) -> Result<BTreeSet<PathBuf>> {
        let mut files = BTreeSet::new();
        for output in self.outputs {
            let path = root.join(output);
            if path.is_file() {
                files.insert(PathBuf::from(output));
            } else if path.is_dir() {
                let entries = fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))?;
                for entry in entries {
                    let entry = entry?;
                    if entry.path().is_file() {
                        files.insert(Path::new(output).join(entry.file_name()));
                    }
                }
            }
        }
        Ok(files)
    }
}

/// The project's root: this crate is `crates/xtask` in it.
///
/// # Errors
///
/// When the checkout that this program was built from is gone.
pub fn project_root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    match here.ancestors().nth(2) {
        Some(root) if root.join("Cargo.toml").is_file() => Ok(root.to_owned()),
        _ => bail!("cannot find the project above {}", here.display()),
    }
}

#[cfg(test)]
mod tests {
    // What is installed, linked or documented must be what the sources say.
    #[test]
    fn committed_files_are_what_would_be_generated() {
        let drift: Vec<_> = super::ALL
            .iter()
            .filter_map(|artefact| artefact.check().err())
            .collect();
        assert!(drift.is_empty(), "{drift:#?}");
    }
}
