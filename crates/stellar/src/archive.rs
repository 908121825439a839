//! A folder of ledger files, read in the order of the ledgers. The range of each file comes from
//! its name, or from its content when the name does not tell; ledgers are then decoded lazily, one
//! at a time. A missing ledger is an error that names it: nothing is ever skipped. It never waits
//! for files that are not there yet.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stellar_xdr::LedgerCloseMeta;

use crate::error::ArchiveError;
use crate::name::FileName;
use crate::reader::FileReader;

/// How deep partition folders may nest. Galexie makes one level.
const MAX_FOLDERS: u32 = 8;

/// A range of ledgers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerRange {
    /// First ledger; ledgers are numbered from 1.
    pub start: u32,
    /// Last ledger, or `None` for all there are.
    pub end: Option<u32>,
}

/// Where a ledger came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Name of the file, relative to the archive's folder.
    pub name: String,
    /// Size on disk in bytes.
    pub size: u64,
    /// First ledger in the file.
    pub start: u32,
    /// Last ledger in the file.
    pub end: u32,
}

/// Consecutive ledgers in one file. A file has several when ledgers are missing inside of it.
#[derive(Clone, Debug)]
struct Run {
    start: u32,
    end: u32,
    file: Arc<LedgerFile>,
}

/// One closed ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// The ledger's number, equal to the one in its header.
    pub sequence: u32,
    /// Everything that stellar-core told about the ledger.
    pub meta: LedgerCloseMeta,
    /// The file that it was read from.
    pub file: Arc<LedgerFile>,
}

/// The ledger files of a folder, as they were when it was opened.
#[derive(Clone, Debug)]
pub struct Archive {
    dir: Arc<Path>,
    /// Sorted by first ledger, then last, then name.
    runs: Arc<[Run]>,
}

/// The ledgers of a range in order, each once. Ends after the first error.
pub struct Ledgers {
    archive: Archive,
    range: LedgerRange,
    /// The ledger to give next; `None` when done.
    next: Option<u32>,
    open: Option<(Run, FileReader)>,
}

// === impl Archive ===

impl Archive {
    /// Lists the ledger files of a folder and its subfolders. Files with other suffixes and
    /// everything that begins with a dot (Galexie's `.config.json`, mounted volumes' `..data`) are
    /// left alone; a folder without ledger files is an empty archive.
    ///
    /// # Errors
    ///
    /// Fails when the folder cannot be listed, when a file's name contradicts itself, and when a
    /// file whose name does not tell its range cannot be read.
    pub fn open(dir: &Path) -> Result<Self, ArchiveError> {
        let mut runs = Vec::new();
        list(dir, dir, MAX_FOLDERS, &mut runs)?;
        runs.sort_by(|a, b| (a.start, a.end, &a.file.name).cmp(&(b.start, b.end, &b.file.name)));
        Ok(Self {
            dir: dir.into(),
            runs: runs.into(),
        })
    }

    /// First and last ledger of the archive, with whatever gaps between them; `None` when it is
    /// empty.
    #[must_use]
    pub fn span(&self) -> Option<(u32, u32)> {
        let start = self.runs.first()?.start;
        let end = self.runs.iter().map(|run| run.end).max()?;
        Some((start, end))
    }

    /// The ranges of ledgers that the archive has without a gap, in order.
    #[must_use]
    pub fn ranges(&self) -> Vec<LedgerRange> {
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for run in self.runs.iter() {
            match merged.last_mut() {
                Some((_, end)) if run.start <= end.saturating_add(1) => *end = run.end.max(*end),
                _ => merged.push((run.start, run.end)),
            }
        }
        let ranges = merged
            .into_iter()
            .map(|(start, end)| LedgerRange { start, end: Some(end) });
        ranges.collect()
    }

    /// The ledgers of a range, decoded as they are asked for. A range without an end stops after
    /// the last ledger of the archive; it gives nothing when it begins just behind that one.
    #[must_use]
    pub fn ledgers(&self, range: LedgerRange) -> Ledgers {
        Ledgers {
            archive: self.clone(),
            range,
            next: Some(range.start),
            open: None,
        }
    }

    /// Where to read a ledger from. When files overlap, the one that reaches furthest.
    fn run_with(&self, ledger: u32) -> Option<&Run> {
        let until = self.runs.partition_point(|run| run.start <= ledger);
        self.runs
            .get(..until)?
            .iter()
            .filter(|run| run.end >= ledger)
            .max_by_key(|run| run.end)
    }

    fn missing(&self, first: u32, end: Option<u32>) -> ArchiveError {
        let before = self.runs.iter().filter(|run| run.end < first);
        let before = before.max_by_key(|run| run.end);
        let after = self.runs.iter().find(|run| run.start > first);
        let last = match (after.map(|run| run.start - 1), end) {
            (Some(gap), Some(end)) => Some(gap.min(end)),
            (gap, end) => gap.or(end),
        };
        ArchiveError::Missing {
            dir: self.dir.to_path_buf(),
            first,
            count: last.map(|last| last - first + 1),
            before: before.map(|run| run.file.name.clone()),
            after: after.map(|run| run.file.name.clone()),
        }
    }
}

/// Adds what the ledger files in `dir` hold to `runs`.
fn list(root: &Path, dir: &Path, depth: u32, runs: &mut Vec<Run>) -> Result<(), ArchiveError> {
    let io = |path: &Path, source| ArchiveError::Io {
        path: path.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) && dir != root => return Ok(()),
        Err(error) => return Err(io(dir, error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| io(dir, error))?;
        let path = entry.path();
        let name = path.file_name().map(|name| name.to_string_lossy());
        let Some(name) = name.filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let told = FileName::parse(&name);
        // Writers rename and remove their temporary files all the time: no need to look at those.
        if told == Ok(FileName::Other) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        // Follows links: volumes that Kubernetes mounts are made of them.
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            // Renamed or removed since it was listed, or a link to nothing: reading names its ledgers as missing,
            // unless another file has them.
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(io(&path, error)),
        };
        if metadata.is_dir() {
            if depth > 0 {
                list(root, &path, depth - 1, runs)?;
            }
            continue;
        }
        let told = told.map_err(|problem| ArchiveError::Name {
            path: path.clone(),
            problem,
        })?;
        let held = match told {
            FileName::Other => continue,
            FileName::Range { start, end } => vec![(start, end)],
            FileName::Untold => match runs_of(&path) {
                Err(ArchiveError::Io { source, .. }) if is_gone(&source) => continue,
                held => held?,
            },
        };
        let (Some((start, _)), Some((_, end))) = (held.first(), held.last()) else {
            continue;
        };
        let relative = path.strip_prefix(root).unwrap_or(&path);
        let file = Arc::new(LedgerFile {
            name: relative.to_string_lossy().into_owned(),
            size: metadata.len(),
            start: *start,
            end: *end,
            path,
        });
        runs.extend(held.into_iter().map(|(start, end)| Run {
            start,
            end,
            file: Arc::clone(&file),
        }));
    }
    Ok(())
}

fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
}

/// What a file holds, found by reading it: first and last of each run of consecutive ledgers.
fn runs_of(path: &Path) -> Result<Vec<(u32, u32)>, ArchiveError> {
    let mut reader = FileReader::open(path)?;
    let mut runs: Vec<(u32, u32)> = Vec::new();
    while let Some(meta) = reader.next()? {
        let found = crate::sequence(&meta);
        match runs.last_mut() {
            Some((_, end)) if found <= *end => {
                let problem = format!("ledger {found} comes after ledger {end}; write the file again, in order");
                return Err(reader.problem_here(problem));
            }
            Some((_, end)) if found == *end + 1 => *end = found,
            _ => runs.push((found, found)),
        }
    }
    if runs.is_empty() {
        return Err(reader.problem_here("the file has no ledgers; write it again or remove it"));
    }
    Ok(runs)
}

// === impl Ledgers ===

impl Ledgers {
    fn read(&mut self, wanted: u32) -> Result<Option<Ledger>, ArchiveError> {
        self.check_range()?;
        loop {
            let Some((run, reader)) = &mut self.open else {
                let Some(run) = self.archive.run_with(wanted) else {
                    return self.none_left(wanted);
                };
                self.open = Some((run.clone(), FileReader::open(&run.file.path)?));
                continue;
            };
            let file = &run.file;
            if wanted > run.end {
                if run.end < file.end
                    && let Some(next) = self.archive.run_with(wanted)
                    && Arc::ptr_eq(&next.file, file)
                {
                    *run = next.clone();
                    continue;
                }
                // Reading on behind the last ledger shows damage there.
                if run.end == file.end
                    && let Some(meta) = reader.next()?
                {
                    return Err(reader.problem_here(format!(
                        "the header says ledger {}, but the file should hold {} to {}; rename or rewrite it",
                        crate::sequence(&meta),
                        file.start,
                        file.end
                    )));
                }
                self.open = None;
                continue;
            }
            let Some(meta) = reader.next()? else {
                return Err(reader.problem_here(format!(
                    "the file ends before ledger {wanted}, but should hold {} to {}",
                    file.start, file.end
                )));
            };
            let sequence = crate::sequence(&meta);
            if sequence < file.start || sequence > wanted {
                return Err(reader.problem_here(format!(
                    "the header says ledger {sequence}, but the file should hold {} to {} in order; rename or rewrite it",
                    file.start, file.end
                )));
            }
            if sequence == wanted {
                return Ok(Some(Ledger {
                    sequence,
                    meta,
                    file: Arc::clone(file),
                }));
            }
        }
    }

    fn check_range(&self) -> Result<(), ArchiveError> {
        let problem = if self.range.start == 0 {
            "ledgers are numbered from 1"
        } else if self.range.end.is_some_and(|end| end < self.range.start) {
            "its end is before its start"
        } else {
            return Ok(());
        };
        Err(ArchiveError::Range {
            range: self.range,
            problem,
        })
    }

    /// No file has the ledger: the end of the archive, or a gap.
    fn none_left(&self, wanted: u32) -> Result<Option<Ledger>, ArchiveError> {
        let behind_last = self
            .archive
            .span()
            .is_some_and(|(_, last)| last.checked_add(1) == Some(wanted));
        if behind_last && self.range.end.is_none() {
            return Ok(None);
        }
        Err(self.archive.missing(wanted, self.range.end))
    }
}

impl Iterator for Ledgers {
    type Item = Result<Ledger, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        let wanted = self.next.take()?;
        let read = self.read(wanted);
        if matches!(read, Ok(Some(_))) && self.range.end != Some(wanted) {
            self.next = wanted.checked_add(1);
        }
        if self.next.is_none() {
            self.open = None;
        }
        read.transpose()
    }
}

impl std::iter::FusedIterator for Ledgers {}

impl fmt::Debug for Ledgers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledgers")
            .field("range", &self.range)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

// === impl LedgerRange ===

impl fmt::Display for LedgerRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            Some(end) => write!(f, "ledgers {} to {end}", self.start),
            None => write!(f, "ledgers from {}", self.start),
        }
    }
}
