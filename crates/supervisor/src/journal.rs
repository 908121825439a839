//! The journal: what was started and what must be undone, on disk before it happens. When the supervisor itself is
//! killed, the next command finds the journal and unwinds from it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Undo;
use crate::process::Identity;

/// The journal's name in a cluster's directory.
pub const FILE_NAME: &str = "journal.jsonl";

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Entry {
    /// The supervisor that writes this journal.
    Supervisor(Identity),
    /// A process that was started.
    Process {
        /// Its name.
        name: String,
        /// Which process.
        identity: Identity,
        /// Milliseconds between SIGTERM and SIGKILL.
        grace_ms: u64,
    },
    /// A step of unwinding.
    Undo(Undo),
}

/// An open journal, and the stack it holds.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    stack: Vec<Entry>,
}

// === impl Journal ===

impl Journal {
    /// Opens or makes the journal and reads what stands in it.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let stack = match File::open(path) {
            Ok(file) => read(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            stack,
        })
    }

    /// Writes an entry, then remembers it.
    ///
    /// # Errors
    /// When the entry cannot be written: then what it describes must not happen.
    pub fn push(&mut self, entry: Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.stack.push(entry);
        Ok(())
    }

    /// Takes the whole stack, the newest entry last.
    pub fn take(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.stack)
    }

    /// Replaces the journal by what is left of it: the steps that failed.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn rewrite(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        self.file = File::create(&self.path)?;
        self.stack.clear();
        entries.into_iter().try_for_each(|entry| self.push(entry))
    }
}

/// The supervisor that wrote this journal, if there is a journal and that supervisor still runs.
pub fn living_supervisor(path: &Path) -> Option<Identity> {
    let entries = read(File::open(path).ok()?).ok()?;
    entries
        .into_iter()
        .rev()
        .find_map(|entry| match entry {
            Entry::Supervisor(identity) => Some(identity),
            Entry::Process { .. } | Entry::Undo(_) => None,
        })
        .filter(|identity| identity.is_alive())
}

/// Reads entries; a last line that was cut off by a crash is not one.
fn read(file: File) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for line in BufReader::new(file).lines() {
        match serde_json::from_str(&line?) {
            Ok(entry) => entries.push(entry),
            Err(_) => break,
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_off_does_not_hide_the_lines_before_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE_NAME);
        let entry = Entry::Undo(Undo::KillByArgument("x".to_owned()));
        Journal::open(&path)
            .and_then(|mut journal| journal.push(entry.clone()))
            .expect("written");
        let mut file = OpenOptions::new().append(true).open(&path).expect("opens");
        file.write_all(b"{\"undo\":{\"killBy").expect("written");
        let mut journal = Journal::open(&path).expect("reads");
        assert_eq!(journal.take(), vec![entry]);
    }
}
