//! The journal: what was started and what must be undone, on disk before it happens. When the supervisor itself is
//! killed, the next command finds the journal and unwinds from it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
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
    tail: Tail,
}

/// How the file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    /// Behind a whole line.
    Whole,
    /// Within a line: writing it was cut off.
    Torn,
}

// === impl Journal ===

impl Journal {
    /// Opens or makes the journal and reads what stands in it.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let content = match fs::read(path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut journal = Self {
            path: path.to_owned(),
            file: OpenOptions::new().create(true).append(true).open(path)?,
            stack: read(&content),
            tail: Tail::Whole,
        };
        if content.last().is_some_and(|byte| *byte != b'\n') {
            journal.tail = Tail::Torn;
            journal.terminate()?;
        }
        Ok(journal)
    }

    /// Writes an entry, then remembers it.
    ///
    /// # Errors
    /// When the entry cannot be written: then what it describes must not happen.
    pub fn push(&mut self, entry: Entry) -> io::Result<()> {
        let line = line(&entry)?;
        self.terminate()?;
        self.tail = Tail::Torn;
        self.file.write_all(&line)?;
        self.tail = Tail::Whole;
        self.stack.push(entry);
        Ok(())
    }

    /// Ends a line that was cut off: what is appended to it would be lost with it.
    fn terminate(&mut self) -> io::Result<()> {
        if self.tail == Tail::Torn {
            self.file.write_all(b"\n")?;
            self.tail = Tail::Whole;
        }
        Ok(())
    }

    /// Takes the whole stack, the newest entry last.
    pub fn take(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.stack)
    }

    /// Replaces the journal by what is left of it: the steps that failed. Who is killed meanwhile leaves the old one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn rewrite(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        let unfinished = self.path.with_extension("unfinished");
        let lines = entries.iter().map(line).collect::<io::Result<Vec<_>>>()?;
        fs::write(&unfinished, lines.concat())?;
        fs::rename(&unfinished, &self.path)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.tail = Tail::Whole;
        self.stack = entries;
        Ok(())
    }
}

/// The supervisor that wrote this journal, if there is a journal and that supervisor still runs.
pub fn living_supervisor(path: &Path) -> Option<Identity> {
    read(&fs::read(path).ok()?)
        .into_iter()
        .rev()
        .find_map(|entry| match entry {
            Entry::Supervisor(identity) => Some(identity),
            Entry::Process { .. } | Entry::Undo(_) => None,
        })
        .filter(|identity| identity.is_alive())
}

fn line(entry: &Entry) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads entries; a line that was cut off by a crash is none.
fn read(content: &[u8]) -> Vec<Entry> {
    let lines = content.split(|byte| *byte == b'\n');
    lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_off_hides_nothing_before_or_after_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE_NAME);
        let entry = Entry::Undo(Undo::KillByArgument("x".to_owned()));
        Journal::open(&path)
            .and_then(|mut journal| journal.push(entry.clone()))
            .expect("written");
        let mut file = OpenOptions::new().append(true).open(&path).expect("opens");
        file.write_all(b"{\"undo\":{\"killBy\xc3").expect("written");
        let mut journal = Journal::open(&path).expect("reads");
        assert_eq!(journal.take(), vec![entry.clone()]);
        journal.push(entry.clone()).expect("written");
        let mut again = Journal::open(&path).expect("reads");
        assert_eq!(again.take(), vec![entry.clone(), entry]);
    }
}
