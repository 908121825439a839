//! Names of ledger files, as SEP-54 and Galexie spell them: `%08X--%d.xdr.zst` for one ledger and
//! `%08X--%d-%d.xdr.zst` for a range, where the hexadecimal number is 0xFFFFFFFF minus the first
//! ledger so that listings show new files first. Only the name is looked at, never the content.

use std::fmt;

/// Suffixes of ledger files. `.zstd` is Galexie's older spelling.
const SUFFIXES: [&str; 2] = [".xdr.zst", ".xdr.zstd"];

/// What a file's name says about the ledgers in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileName {
    /// Not a ledger file: another suffix.
    Other,
    /// A ledger file whose name does not tell its range.
    Untold,
    /// A ledger file with these ledgers, both ends included.
    Range {
        /// First ledger.
        start: u32,
        /// Last ledger.
        end: u32,
    },
}

/// A name in the archive's form that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameProblem {
    /// The hexadecimal prefix is not 0xFFFFFFFF minus the first ledger.
    Prefix {
        /// The prefix that the first ledger asks for.
        wanted: u32,
        /// The prefix in the name.
        found: u32,
    },
    /// The last ledger is before the first.
    Backwards {
        /// First ledger.
        start: u32,
        /// Last ledger.
        end: u32,
    },
}

// === impl FileName ===

impl FileName {
    /// Reads a file's name (without folders).
    ///
    /// # Errors
    ///
    /// A name that has the archive's form, but whose numbers contradict each other.
    pub fn parse(name: &str) -> Result<Self, NameProblem> {
        let Some(stem) = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)) else {
            return Ok(Self::Other);
        };
        let Some((found, start, end)) = numbers(stem) else {
            return Ok(Self::Untold);
        };
        let wanted = u32::MAX - start;
        if found != wanted {
            return Err(NameProblem::Prefix { wanted, found });
        }
        if end < start {
            return Err(NameProblem::Backwards { start, end });
        }
        Ok(Self::Range { start, end })
    }

    /// The name for a file with the ledgers `start` to `end`, both included.
    #[must_use]
    pub fn write(start: u32, end: u32) -> String {
        let prefix = u32::MAX - start;
        if start == end {
            format!("{prefix:08X}--{start}.xdr.zst")
        } else {
            format!("{prefix:08X}--{start}-{end}.xdr.zst")
        }
    }
}

/// Prefix, first and last ledger; `None` when the name has another form.
fn numbers(stem: &str) -> Option<(u32, u32, u32)> {
    let (prefix, range) = stem.split_once("--")?;
    if prefix.len() != 8 {
        return None;
    }
    let prefix = u32::from_str_radix(prefix, 16).ok()?;
    let (start, end) = range.split_once('-').unwrap_or((range, range));
    Some((prefix, start.parse().ok()?, end.parse().ok()?))
}

// === impl NameProblem ===

impl fmt::Display for NameProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix { wanted, found } => write!(
                f,
                "its name begins with {found:08X}, but for its first ledger that is {wanted:08X} (0xFFFFFFFF minus the ledger)"
            ),
            Self::Backwards { start, end } => {
                write!(f, "its name says ledgers {start} to {end}, which runs backwards")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_range() {
        let parse = |name| FileName::parse(name).unwrap();
        let one = FileName::Range {
            start: 53_312_000,
            end: 53_312_000,
        };
        assert_eq!(parse("FCD285FF--53312000.xdr.zstd"), one);
        assert_eq!(parse("FCD285FF--53312000.xdr.zst"), one);
        assert_eq!(parse("FFFFFFEF--16-31.xdr.zst"), FileName::Range { start: 16, end: 31 });
        assert_eq!(parse("load-test-ledgers-v23-standalone.xdr.zstd"), FileName::Untold);
        assert_eq!(parse("notes--and-more.xdr.zst"), FileName::Untold);
        assert_eq!(parse("README.md"), FileName::Other);
        assert_eq!(parse(".config.json"), FileName::Other);
    }

    #[test]
    fn names_that_contradict_themselves_are_refused() {
        assert_eq!(
            FileName::parse("FFFFFFEF--17.xdr.zst"),
            Err(NameProblem::Prefix {
                wanted: u32::MAX - 17,
                found: 0xFFFF_FFEF
            })
        );
        assert_eq!(
            FileName::parse("FFFFFFEF--16-15.xdr.zst"),
            Err(NameProblem::Backwards { start: 16, end: 15 })
        );
    }

    #[test]
    fn written_names_read_back() {
        for (start, end) in [(1, 1), (16, 31), (53_312_000, 53_312_063), (u32::MAX, u32::MAX)] {
            let name = FileName::write(start, end);
            assert_eq!(FileName::parse(&name), Ok(FileName::Range { start, end }), "{name}");
        }
    }
}
