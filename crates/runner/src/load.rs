//! From a file on disk to a blueprint, with everything that is wrong said at once.

use std::path::{Path, PathBuf};

use flowctl_pipeline::{Diagnostic, Diagnostics, check_runnable, expand, read};

use crate::blueprint::Blueprint;

/// Why a pipeline file cannot be run. All of these are exit code 2: trying again cannot help.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read at all.
    #[error("cannot read pipeline file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not a pipeline file, has steps or keys that do not exist, or uses variables
    /// that are not set.
    #[error("{}", diagnostics.render(path.display()))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        diagnostics: Diagnostics,
    },
    /// The file asks for what this runner cannot do.
    #[error("cannot run pipeline file {}: {}", path.display(), list(faults))]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it cannot do.
        faults: Vec<Diagnostic>,
    },
}

/// Reads, checks and understands a pipeline file. `lookup` gives the variables for `${NAME}`.
///
/// # Errors
/// [`LoadError`] with every fault of the stage that found one.
pub fn load(path: &Path, lookup: impl Fn(&str) -> Option<String>) -> Result<Blueprint, LoadError> {
    let text = std::fs::read_to_string(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })?;
    let invalid = |diagnostics| LoadError::Invalid {
        path: path.to_owned(),
        diagnostics,
    };
    let file = read(&text).map_err(invalid)?;
    // Before expansion: a position in the file is worth more than one in a value nobody wrote.
    check_runnable(&file).map_err(invalid)?;
    let expanded = expand(&file, lookup).map_err(invalid)?;
    Blueprint::new(&expanded).map_err(|faults| LoadError::Unsupported {
        path: path.to_owned(),
        faults,
    })
}

fn list(faults: &[Diagnostic]) -> String {
    match faults {
        [fault] => format!("{fault:#}"),
        faults => {
            let lines: Vec<String> = faults.iter().map(|fault| format!("\n  {fault:#}")).collect();
            format!("{} errors{}", faults.len(), lines.concat())
        }
    }
}
