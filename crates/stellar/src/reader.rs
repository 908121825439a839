//! One ledger file, read from its beginning: zstd of a `LedgerCloseMetaBatch`, of framed
//! `LedgerCloseMeta` (a 4-byte length before each, as stellar-core's meta stream has it), or of a
//! bare `LedgerCloseMeta`. Ledgers are decoded one by one, so a file's size does not bound memory,
//! only a ledger's does. What the file's name promised is the caller's to check.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use stellar_xdr::{LedgerCloseMeta, Limited, Limits, ReadXdr};

use crate::error::ArchiveError;

/// Most bytes of XDR that one ledger may have. The largest on the public network have a few MiB.
const MAX_LEDGER_BYTES: usize = 64 << 20;

/// Deepest nesting of XDR types; stellar-core allows the same.
const MAX_DEPTH: u32 = 500;

/// High bit of a length mark: the last (for stellar-core, the only) fragment of a record.
const LAST_FRAGMENT: u32 = 1 << 31;

/// Decompressed content that knows how far it was read. `peeked` was read to tell the layout and
/// is handed out again first.
struct Content {
    inner: BufReader<zstd::Decoder<'static, BufReader<File>>>,
    peeked: Vec<u8>,
    offset: u64,
}

/// How the rest of a file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// This many ledgers of a batch are still to come, the next one with this number.
    Batch { left: u32, next: u32 },
    /// Length-marked ledgers up to the end of the file.
    Framed,
    /// One ledger without anything around it, not read yet.
    Bare,
    /// Nothing more may come.
    Done,
}

/// The ledgers of one file, in the file's order.
pub(crate) struct FileReader {
    path: PathBuf,
    content: Content,
    layout: Layout,
}

// === impl FileReader ===

impl FileReader {
    /// Opens a file and finds out its layout.
    pub(crate) fn open(path: &Path) -> Result<Self, ArchiveError> {
        let io = |source| ArchiveError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        let decoder = zstd::Decoder::new(file).map_err(io)?;
        let mut reader = Self {
            path: path.to_owned(),
            content: Content {
                inner: BufReader::with_capacity(64 << 10, decoder),
                peeked: Vec::new(),
                offset: 0,
            },
            layout: Layout::Done,
        };
        reader.layout = reader.find_layout()?;
        Ok(reader)
    }

    /// The next ledger; `None` after the last, when nothing else follows it.
    pub(crate) fn next(&mut self) -> Result<Option<LedgerCloseMeta>, ArchiveError> {
        match self.layout {
            Layout::Batch { left: 0, .. } | Layout::Done => {
                let at = self.content.offset;
                if self.word()?.is_some() {
                    return Err(self.problem(
                        at,
                        "bytes follow the last ledger; the file is damaged or of another kind",
                    ));
                }
                Ok(None)
            }
            Layout::Batch { left, next } => {
                let at = self.content.offset;
                let (meta, _) = self.ledger(MAX_LEDGER_BYTES)?;
                let found = crate::sequence(&meta);
                if found != next {
                    return Err(self.problem(
                        at,
                        format!("the batch has ledger {found} where ledger {next} belongs; write the file again"),
                    ));
                }
                self.layout = Layout::Batch {
                    left: left - 1,
                    next: next.wrapping_add(1),
                };
                Ok(Some(meta))
            }
            Layout::Framed => self.framed(),
            Layout::Bare => {
                let (meta, _) = self.ledger(MAX_LEDGER_BYTES)?;
                self.layout = Layout::Done;
                Ok(Some(meta))
            }
        }
    }

    /// Reads the first twelve bytes. A batch begins with first ledger, last ledger and their
    /// count; a framed ledger with a length that has its high bit set, which no ledger number has;
    /// a bare ledger with its version.
    fn find_layout(&mut self) -> Result<Layout, ArchiveError> {
        let mut words = Vec::new();
        while words.len() < 3
            && let Some(word) = self.word()?
        {
            words.push(word);
        }
        let bytes = || words.iter().flat_map(|word| word.to_be_bytes()).collect();
        match words[..] {
            [mark, ..] if mark & LAST_FRAGMENT != 0 => {
                self.content.rewind(bytes());
                Ok(Layout::Framed)
            }
            [start, end, count] if (1..=end).contains(&start) && count == end - start + 1 => Ok(Layout::Batch {
                left: count,
                next: start,
            }),
            [0..=2, _, _] => {
                self.content.rewind(bytes());
                Ok(Layout::Bare)
            }
            [start, end, count] if start <= end && end - start < 1 << 16 => Err(self.problem(
                8,
                format!("the batch says ledgers {start} to {end}, but holds {count}; write the file again"),
            )),
            [] => Err(self.problem(0, "the file has no content; write it again or remove it")),
            _ => Err(self.problem(
                0,
                "neither a LedgerCloseMetaBatch nor a LedgerCloseMeta, framed or bare; take the file out of the folder",
            )),
        }
    }

    fn framed(&mut self) -> Result<Option<LedgerCloseMeta>, ArchiveError> {
        let at = self.content.offset;
        let Some(mark) = self.word()? else {
            return Ok(None);
        };
        let len = mark & !LAST_FRAGMENT;
        if mark & LAST_FRAGMENT == 0 {
            return Err(self.problem(
                at,
                "a length mark should be here and have its high bit set; the file is damaged",
            ));
        }
        let (meta, used) = self.ledger(MAX_LEDGER_BYTES.min(len as usize))?;
        if used != u64::from(len) {
            return Err(self.problem(
                at,
                format!("the length mark says {len} bytes, but its ledger has {used}; the file is damaged"),
            ));
        }
        Ok(Some(meta))
    }

    /// Decodes one ledger; also how many bytes it took.
    fn ledger(&mut self, max: usize) -> Result<(LedgerCloseMeta, u64), ArchiveError> {
        let at = self.content.offset;
        let limits = Limits {
            depth: MAX_DEPTH,
            len: max,
        };
        match LedgerCloseMeta::read_xdr(&mut Limited::new(&mut self.content, limits)) {
            Ok(meta) => Ok((meta, self.content.offset - at)),
            Err(stellar_xdr::Error::Io(source)) => Err(self.io(source)),
            Err(stellar_xdr::Error::LengthLimitExceeded) => Err(self.problem(
                self.content.offset,
                format!("the ledger that begins at byte {at} has more than the {max} bytes it may have"),
            )),
            Err(stellar_xdr::Error::DepthLimitExceeded) => Err(self.problem(
                self.content.offset,
                format!("the ledger that begins at byte {at} nests deeper than {MAX_DEPTH} levels"),
            )),
            Err(other) => Err(self.problem(
                self.content.offset,
                format!("no ledger can be decoded from byte {at} on: {other}; the file is damaged or of a newer kind"),
            )),
        }
    }

    /// The next four bytes; `None` at the end of the content.
    fn word(&mut self) -> Result<Option<u32>, ArchiveError> {
        let mut bytes = [0; 4];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.content.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.io(std::io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io(error)),
            }
        }
        Ok(Some(u32::from_be_bytes(bytes)))
    }

    /// An error of the reader below: the end came too early, or zstd cannot go on. The operating
    /// system's own errors carry a code.
    fn io(&self, source: std::io::Error) -> ArchiveError {
        if source.raw_os_error().is_some() {
            return ArchiveError::Io {
                path: self.path.clone(),
                source,
            };
        }
        let problem = if source.kind() == std::io::ErrorKind::UnexpectedEof {
            "the content ends inside a ledger; the file is cut short, copy it again".to_owned()
        } else {
            format!("cannot decompress: {source}; is this a zstd file, and was it copied whole?")
        };
        self.problem(self.content.offset, problem)
    }

    /// An error about what was read last.
    pub(crate) fn problem_here(&self, problem: impl Into<String>) -> ArchiveError {
        self.problem(self.content.offset, problem)
    }

    fn problem(&self, offset: u64, problem: impl Into<String>) -> ArchiveError {
        ArchiveError::Content {
            path: self.path.clone(),
            offset,
            problem: problem.into(),
        }
    }
}

// === impl Content ===

impl Content {
    /// Hands out these bytes, the ones read last, again.
    fn rewind(&mut self, bytes: Vec<u8>) {
        self.offset -= bytes.len() as u64;
        self.peeked = bytes;
    }
}

impl Read for Content {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let read = if self.peeked.is_empty() {
            self.inner.read(buf)?
        } else {
            let read = buf.len().min(self.peeked.len());
            for (to, from) in buf.iter_mut().zip(self.peeked.drain(..read)) {
                *to = from;
            }
            read
        };
        self.offset += read as u64;
        Ok(read)
    }
}
