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
    files: Arc<[Arc<LedgerFile>]>,
}

/// The ledgers of a range in order, each once. Ends after the first error.
pub struct Ledgers {
    archive: Archive,
    range: LedgerRange,
    /// The ledger to give next; `None` when done.
    next: Option<u32>,
    open: Option<(Arc<LedgerFile>, FileReader)>,
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
        let mut files = Vec::new();
        list(dir, dir, MAX_FOLDERS, &mut files)?;
        files.sort_by(|a, b| (a.start, a.end, &a.name).cmp(&(b.start, b.end, &b.name)));
        Ok(Self {
            dir: dir.into(),
            files: files.into_iter().map(Arc::new).collect(),
        })
    }

    /// The archive's files, sorted by their first ledger.
    #[must_use]
    pub fn files(&self) -> &[Arc<LedgerFile>] {
        &self.files
    }

    /// First and last ledger of the archive, with whatever gaps between them; `None` when it is
    /// empty.
    #[must_use]
    pub fn span(&self) -> Option<(u32, u32)> {
        let start = self.files.first()?.start;
        let end = self.files.iter().map(|file| file.end).max()?;
        Some((start, end))
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

    /// The file to read a ledger from. When files overlap, the one that reaches furthest.
    fn file_with(&self, ledger: u32) -> Option<&Arc<LedgerFile>> {
        let until = self.files.partition_point(|file| file.start <= ledger);
        self.files
            .get(..until)?
            .iter()
            .filter(|file| file.end >= ledger)
            .max_by_key(|file| file.end)
    }

    fn missing(&self, first: u32, end: Option<u32>) -> ArchiveError {
        let before = self.files.iter().filter(|file| file.end < first);
        let before = before.max_by_key(|file| file.end);
        let after = self.files.iter().find(|file| file.start > first);
        let last = match (after.map(|file| file.start - 1), end) {
            (Some(gap), Some(end)) => Some(gap.min(end)),
            (gap, end) => gap.or(end),
        };
        ArchiveError::Missing {
            dir: self.dir.to_path_buf(),
            first,
            count: last.map(|last| last - first + 1),
            before: before.map(|file| file.name.clone()),
            after: after.map(|file| file.name.clone()),
        }
    }
}

/// Adds the ledger files in `dir` to `files`.
fn list(
    root: &Path,
    dir: &Path,
    depth: u32,
    files: &mut Vec<LedgerFile>,
) -> Result<(), ArchiveError> {
    let io = |path: &Path, source| ArchiveError::Io {
        path: path.to_owned(),
        source,
    };
    for entry in std::fs::read_dir(dir).map_err(|error| io(dir, error))? {
        let path = entry.map_err(|error| io(dir, error))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy());
        let Some(name) = name.filter(|name| !name.starts_with('.')) else {
            continue;
        };
        // Follows links: volumes that Kubernetes mounts are made of them.
        let metadata = std::fs::metadata(&path).map_err(|error| io(&path, error))?;
        if metadata.is_dir() {
            if depth > 0 {
                list(root, &path, depth - 1, files)?;
            }
            continue;
        }
        let told = FileName::parse(&name).map_err(|problem| ArchiveError::Name {
            path: path.clone(),
            problem,
        })?;
        let (start, end) = match told {
            FileName::Other => continue,
            FileName::Range { start, end } => (start, end),
            FileName::Untold => content_range(&path)?,
        };
        files.push(LedgerFile {
            name: path
                .strip_prefix(root)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned(),
            path,
            size: metadata.len(),
            start,
            end,
        });
    }
    Ok(())
}

/// First and last ledger of a file, found by reading it.
fn content_range(path: &Path) -> Result<(u32, u32), ArchiveError> {
    let mut reader = FileReader::open(path)?;
    let mut range: Option<(u32, u32)> = None;
    while let Some(meta) = reader.next()? {
        let found = crate::sequence(&meta);
        range = match range {
            None => Some((found, found)),
            Some((start, end)) if end.checked_add(1) == Some(found) => Some((start, found)),
            Some((_, end)) => {
                return Err(reader.problem_here(format!(
                    "ledger {found} follows ledger {end} in the same file; ledgers must be consecutive"
                )));
            }
        };
    }
    range.ok_or_else(|| reader.problem_here("the file has no ledgers; write it again or remove it"))
}

// === impl Ledgers ===

impl Ledgers {
    fn read(&mut self, wanted: u32) -> Result<Option<Ledger>, ArchiveError> {
        self.check_range()?;
        loop {
            let Some((file, reader)) = &mut self.open else {
                let Some(file) = self.archive.file_with(wanted) else {
                    return self.none_left(wanted);
                };
                self.open = Some((Arc::clone(file), FileReader::open(&file.path)?));
                continue;
            };
            if wanted > file.end {
                // Reading on to the end shows damage behind the last ledger.
                if let Some(meta) = reader.next()? {
                    let found = crate::sequence(&meta);
                    return Err(reader.problem_here(format!(
                        "ledger {found} is behind the last one that the file should hold, {}",
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
