//! `JSONLinesConsumer`: lines at the end of a file, on disk before they are acknowledged. A line
//! that a killed process left half-written was never acknowledged; it is taken off at start,
//! because whatever is appended to it would be unreadable.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use tracing::warn;

use super::LineSink;

/// Bytes that are read at once when looking for the last line break.
const STRIDE: u64 = 64 * 1024;

/// A file that lines are appended to.
#[derive(Debug)]
pub(crate) struct JsonLinesFile {
    path: PathBuf,
    file: File,
}

// === impl JsonLinesFile ===

impl JsonLinesFile {
    /// Opens or makes the file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let is_new = !path.exists();
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        mend(path, &mut file)?;
        if is_new {
            // The name of a new file is on disk only when its folder is.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }
}

impl LineSink for JsonLinesFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines)?;
        self.file.sync_data()
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

/// Makes the file end in a line break, without losing a whole line.
fn mend(path: &Path, file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let end = last_line_end(file, length)?;
    if end == length {
        return Ok(());
    }
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(end))?;
    file.read_to_end(&mut tail)?;
    if serde_json::from_slice::<IgnoredAny>(&tail).is_ok() {
        return file.write_all(b"\n");
    }
    warn!(file = %path.display(), bytes = length - end, "taking off a half-written last line");
    file.set_len(end)?;
    file.sync_all()
}

/// Where the last line break ends; 0 when there is none.
fn last_line_end(file: &mut File, length: u64) -> io::Result<u64> {
    let mut until = length;
    while until > 0 {
        let from = until.saturating_sub(STRIDE);
        let mut piece = Vec::new();
        file.seek(SeekFrom::Start(from))?;
        Read::by_ref(file).take(until - from).read_to_end(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            return Ok(from + at as u64 + 1);
        }
        until = from;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_reopening(before: &[u8]) -> String {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("out.jsonl");
        std::fs::write(&path, before).expect("write");
        let mut file = JsonLinesFile::open(&path).expect("open");
        file.write(b"{\"n\":2}\n").expect("append");
        std::fs::read_to_string(&path).expect("read")
    }

    #[test]
    fn a_killed_process_leaves_a_file_that_can_still_be_read() {
        assert_eq!(after_reopening(b""), "{\"n\":2}\n");
        assert_eq!(after_reopening(b"{\"n\":1}\n"), "{\"n\":1}\n{\"n\":2}\n");
        assert_eq!(after_reopening(b"{\"n\":1}\n{\"n\":"), "{\"n\":1}\n{\"n\":2}\n");
        assert_eq!(after_reopening(b"{\"n\":"), "{\"n\":2}\n");
        assert_eq!(
            after_reopening(b"{\"n\":1}"),
            "{\"n\":1}\n{\"n\":2}\n",
            "whole, only the break is missing"
        );
        let mut long = b"{\"n\":1}\n".to_vec();
        long.extend(vec![b'x'; 3 * 64 * 1024]);
        assert_eq!(after_reopening(&long), "{\"n\":1}\n{\"n\":2}\n");
    }
}
