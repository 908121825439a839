//! What is wrong with a pipeline file: one [`Diagnostic`] for each fault, all faults of a file together as
//! [`Diagnostics`]. The sentences are made where the fault is found; here they only get their order and their frame.

use std::fmt;

use crate::model::Position;

/// One fault: where, what, and what was probably meant.
///
/// Shown as `line 12, column 7: unknown key "timout"; did you mean "timeout"?`, with the path instead of the line when the
/// file was not read from text. The alternate form (`{:#}`) gives line and path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where in the text; `None` for a file that was made in memory.
    pub position: Option<Position>,
    /// Where in the document, for example `pipelines.x.processors[1].config.timeout`; empty for the whole document.
    pub path: String,
    /// What is wrong: lower case, no full stop.
    pub problem: String,
    /// What was probably meant, or what to do.
    pub hint: Option<String>,
}

/// All faults of one file, by position. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

/// How many faults are shown in one message: a generated file can have thousands with one cause.
const SHOWN: usize = 50;

// === impl Diagnostic ===

impl Diagnostic {
    /// A fault without a hint.
    pub fn new(position: Option<Position>, path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            position,
            path: path.into(),
            problem: problem.into(),
            hint: None,
        }
    }

    /// The same fault with what to do about it.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.position, self.path.as_str()) {
            (Some(position), "") => write!(f, "{position}: ")?,
            (Some(position), path) if f.alternate() => write!(f, "{position} ({path}): ")?,
            (Some(position), _) => write!(f, "{position}: ")?,
            (None, "") => {}
            (None, path) => write!(f, "{path}: ")?,
        }
        f.write_str(&self.problem)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

// === impl Diagnostics ===

impl Diagnostics {
    /// `Ok` when there is no fault, else all faults by position.
    ///
    /// # Errors
    /// The faults, when there are any.
    pub fn none_or(mut faults: Vec<Diagnostic>) -> Result<(), Self> {
        if faults.is_empty() {
            return Ok(());
        }
        // Stable: faults of one place stay in the order in which they were found.
        faults.sort_by_key(|fault| fault.position);
        Err(Self(faults))
    }

    /// The faults, by position.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    /// How many faults there are; at least one.
    #[allow(clippy::len_without_is_empty, reason = "never empty: is_empty would only mislead")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All faults as one message that names the file: on one line when there is one fault, else one line for each, with
    /// its path.
    pub fn render(&self, file: impl fmt::Display) -> String {
        format!("cannot read pipeline file {file}: {self}")
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(fault: Diagnostic) -> Self {
        Self(vec![fault])
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [fault] = self.0.as_slice() {
            return fault.fmt(f);
        }
        write!(f, "{} errors", self.0.len())?;
        let mut shown = self.0.iter().take(SHOWN);
        shown.try_for_each(|fault| write!(f, "\n  {fault:#}"))?;
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl std::error::Error for Diagnostics {}
