//! How far a pipeline has come, on disk: the last ledger up to which every consumer has everything.
//! Written whole or not at all, and by one process at a time: a replacement that starts while the
//! old process still drains waits for its lock. A file that cannot be read is an error; starting
//! over silently would send everything again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process runs the same pipeline.
    #[error("the checkpoint {} is locked by another runner, still after {waited:?}; stop that one first", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The file is not what this runner wrote.
    #[error("cannot use the checkpoint {}: {problem}; repair it, or remove it to start over", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// The file's content.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    version: u32,
    pipeline: String,
    last_ledger: u32,
    /// Seconds since 1970-01-01 00:00:00 UTC.
    saved_at: u64,
}

/// The checkpoint of one pipeline, locked for this process.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pipeline: String,
    dir: PathBuf,
    path: PathBuf,
    /// Released by the operating system when the process ends, however it ends.
    _lock: File,
}

// === impl Checkpoint ===

impl Checkpoint {
    /// Locks the checkpoint of a pipeline and gives the last ledger that it tells. Waits up to
    /// `patience` for another process to let go. Blocks.
    pub(crate) fn open(dir: &Path, pipeline: &str, patience: Duration) -> Result<(Self, Option<u32>), CheckpointError> {
        std::fs::create_dir_all(dir).map_err(|source| failed("make", dir, source))?;
        let stem = file_stem(pipeline);
        let lock_path = dir.join(format!("{stem}.lock"));
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|source| failed("open", &lock_path, source))?;
        wait_for(&lock, &lock_path, patience)?;
        let checkpoint = Self {
            pipeline: pipeline.to_owned(),
            dir: dir.to_owned(),
            path: dir.join(format!("{stem}.json")),
            _lock: lock,
        };
        let last = checkpoint.load()?;
        Ok((checkpoint, last))
    }

    fn load(&self) -> Result<Option<u32>, CheckpointError> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("read", &self.path, source)),
        };
        let unusable = |problem: String| CheckpointError::Unusable {
            path: self.path.clone(),
            problem,
        };
        let content: Content = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
        if content.version != VERSION {
            return Err(unusable(format!("its version is {}", content.version)));
        }
        if content.pipeline != self.pipeline {
            let owner = content.pipeline;
            return Err(unusable(format!("it belongs to the pipeline {owner}")));
        }
        Ok(Some(content.last_ledger))
    }

    /// Replaces the file: a reader sees the old content or the new one. Blocks until it is on disk.
    pub(crate) fn save(&self, last_ledger: u32) -> Result<(), CheckpointError> {
        let content = Content {
            version: VERSION,
            pipeline: self.pipeline.clone(),
            last_ledger,
            saved_at: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        };
        let fresh = self.path.with_extension("json.new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&fresh)?;
            file.write_all(serde_json::to_string(&content)?.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            std::fs::rename(&fresh, &self.path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|source| failed("write", &self.path, source))
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

fn wait_for(lock: &File, path: &Path, patience: Duration) -> Result<(), CheckpointError> {
    const PAUSE: Duration = Duration::from_millis(200);
    let mut waited = Duration::ZERO;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(source)) => return Err(failed("lock", path, source)),
            Err(TryLockError::WouldBlock) if waited >= patience => {
                return Err(CheckpointError::Locked {
                    path: path.to_owned(),
                    waited,
                });
            }
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(PAUSE);
                waited += PAUSE;
            }
        }
    }
}

/// A file name for a pipeline's key; the key itself is in the file.
fn file_stem(pipeline: &str) -> String {
    let safe = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' => c,
        _ => '_',
    };
    format!("checkpoint-{}", pipeline.chars().map(safe).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_what_the_next_run_gets() {
        let dir = tempfile::tempdir().expect("folder");
        let (first, last) = Checkpoint::open(dir.path(), "ns.p", Duration::ZERO).expect("open");
        assert_eq!(last, None);
        first.save(41).expect("save");
        first.save(42).expect("save");
        drop(first);
        let (_, last) = Checkpoint::open(dir.path(), "ns.p", Duration::ZERO).expect("open");
        assert_eq!(last, Some(42));
    }

    #[test]
    fn two_runners_never_share_a_checkpoint() {
        let dir = tempfile::tempdir().expect("folder");
        let _first = Checkpoint::open(dir.path(), "ns.p", Duration::ZERO).expect("open");
        let second = Checkpoint::open(dir.path(), "ns.p", Duration::ZERO);
        assert!(matches!(second, Err(CheckpointError::Locked { .. })));
        assert!(Checkpoint::open(dir.path(), "ns.q", Duration::ZERO).is_ok());
    }

    #[test]
    fn a_damaged_or_foreign_checkpoint_is_not_taken_for_a_fresh_start() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("checkpoint-a_b.json");
        std::fs::write(&path, "{\"version\":1").expect("write");
        let damaged = Checkpoint::open(dir.path(), "a/b", Duration::ZERO);
        assert!(matches!(damaged, Err(CheckpointError::Unusable { .. })));
        let foreign = r#"{"version":1,"pipeline":"a:b","last_ledger":7,"saved_at":0}"#;
        std::fs::write(&path, foreign).expect("write");
        let foreign = Checkpoint::open(dir.path(), "a/b", Duration::ZERO);
        assert!(matches!(foreign, Err(CheckpointError::Unusable { .. })));
    }
}
