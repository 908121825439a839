//! How far a pipeline has come, on disk: the last ledger up to which every consumer has everything.
//! Written whole or not at all, and by one process at a time: a replacement that starts while the
//! old process still drains waits for its lock. A file that cannot be read is an error; starting
//! over silently would send everything again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::blueprint::FolderSettings;
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
    /// The file tells how far another range or another archive was done. Going on after it would
    /// leave ledgers out, and report success.
    #[error(
        "the checkpoint {} was made with {key} {stored}, and the pipeline file has {configured}; take another checkpoint \
         claim or folder, or remove the file to start over",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// The key of the source's config.
        key: &'static str,
        /// What the checkpoint was made with.
        stored: String,
        /// What it is now.
        configured: String,
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
    /// What was read; not in files of older runners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    /// Seconds since 1970-01-01 00:00:00 UTC.
    saved_at: u64,
}

/// What a checkpoint counts from: without it the last ledger says nothing about the ones before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The first ledger, as configured; the first one there is when left out.
    start_ledger: Option<u32>,
    /// The first one there was, when the configuration leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_ledger: Option<u32>,
    path: PathBuf,
    network: Option<String>,
}

/// The checkpoint of one pipeline, locked for this process.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pipeline: String,
    /// What the file counts from: what it was made with, as long as that covers what is read now.
    origin: Origin,
    /// The last ledger that the file told.
    resumed: Option<u32>,
    dir: PathBuf,
    path: PathBuf,
    /// Released by the operating system when the process ends, however it ends.
    _lock: File,
}

// === impl Checkpoint ===

impl Checkpoint {
    /// Locks the checkpoint of a pipeline and gives the last ledger that it tells. Waits up to
    /// `patience` for another process to let go. Blocks.
    pub(crate) fn open(
        dir: &Path,
        pipeline: &str,
        source: &FolderSettings,
        patience: Duration,
    ) -> Result<(Self, Option<u32>), CheckpointError> {
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
        let mut checkpoint = Self {
            origin: Origin::of(source),
            resumed: None,
            pipeline: pipeline.to_owned(),
            dir: dir.to_owned(),
            path: dir.join(format!("{stem}.json")),
            _lock: lock,
        };
        checkpoint.resumed = checkpoint.load()?;
        let last = checkpoint.resumed;
        Ok((checkpoint, last))
    }

    fn load(&mut self) -> Result<Option<u32>, CheckpointError> {
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
        if let Some(stored) = content.origin {
            stored.covers(&self.origin, &self.path)?;
            // A start behind the checkpoint leaves ledgers out, as it was told to; they are not done.
            let leaves_out = self.origin.start_ledger > content.last_ledger.checked_add(1);
            if !leaves_out {
                self.origin = stored;
            }
        }
        Ok(Some(content.last_ledger))
    }

    /// Replaces the file; `first` is the first ledger of this run. A reader sees the old content or the new one. Blocks until it is on disk.
    pub(crate) fn save(&self, last_ledger: u32, first: Option<u32>) -> Result<(), CheckpointError> {
        let mut origin = self.origin.clone();
        if self.resumed.is_none() && origin.start_ledger.is_none() {
            origin.first_ledger = first;
        }
        let content = Content {
            version: VERSION,
            pipeline: self.pipeline.clone(),
            last_ledger,
            origin: Some(origin),
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

// === impl Origin ===

impl Origin {
    fn of(source: &FolderSettings) -> Self {
        Self {
            start_ledger: source.start_ledger,
            first_ledger: None,
            path: source.path.clone(),
            network: source.network.clone(),
        }
    }

    /// Refuses a source of which this checkpoint does not tell how far it was done.
    fn covers(&self, now: &Self, file: &Path) -> Result<(), CheckpointError> {
        let changed = |key, stored: String, configured: String| CheckpointError::Changed {
            path: file.to_owned(),
            key,
            stored,
            configured,
        };
        if self.path != now.path {
            let [stored, configured] = [self, now].map(|origin| origin.path.display().to_string());
            return Err(changed("path", stored, configured));
        }
        if self.network != now.network {
            let [stored, configured] =
                [self, now].map(|origin| origin.network.clone().unwrap_or_else(|| "left out".to_owned()));
            return Err(changed("network", stored, configured));
        }
        let begun = self.start_ledger.or(self.first_ledger);
        let is_below = match (begun, now.start_ledger) {
            (Some(begun), Some(configured)) => configured < begun,
            // The first one there is may be before any that was named.
            (_, None) => self.start_ledger.is_some(),
            (None, Some(_)) => false,
        };
        if is_below {
            let [stored, configured] = [begun, now.start_ledger]
                .map(|start| start.map_or_else(|| "left out".to_owned(), |start| start.to_string()));
            return Err(changed("start_ledger", stored, configured));
        }
        Ok(())
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

    fn source() -> FolderSettings {
        FolderSettings {
            path: "/ledgers".into(),
            network: Some("testnet".to_owned()),
            start_ledger: Some(100),
            end_ledger: Some(200),
            poll_interval: Duration::ZERO,
            gap_timeout: Duration::ZERO,
        }
    }

    #[test]
    fn what_was_saved_is_what_the_next_run_gets() {
        let dir = tempfile::tempdir().expect("folder");
        let (first, last) = Checkpoint::open(dir.path(), "ns.p", &source(), Duration::ZERO).expect("open");
        assert_eq!(last, None);
        first.save(41, Some(100)).expect("save");
        first.save(42, Some(100)).expect("save");
        drop(first);
        let (_, last) = Checkpoint::open(dir.path(), "ns.p", &source(), Duration::ZERO).expect("open");
        assert_eq!(last, Some(42));
    }

    #[test]
    fn two_runners_never_share_a_checkpoint() {
        let dir = tempfile::tempdir().expect("folder");
        let _first = Checkpoint::open(dir.path(), "ns.p", &source(), Duration::ZERO).expect("open");
        let second = Checkpoint::open(dir.path(), "ns.p", &source(), Duration::ZERO);
        assert!(matches!(second, Err(CheckpointError::Locked { .. })));
        assert!(Checkpoint::open(dir.path(), "ns.q", &source(), Duration::ZERO).is_ok());
    }

    #[test]
    fn a_damaged_or_foreign_checkpoint_is_not_taken_for_a_fresh_start() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("checkpoint-a_b.json");
        std::fs::write(&path, "{\"version\":1").expect("write");
        let damaged = Checkpoint::open(dir.path(), "a/b", &source(), Duration::ZERO);
        assert!(matches!(damaged, Err(CheckpointError::Unusable { .. })));
        let foreign = r#"{"version":1,"pipeline":"a:b","last_ledger":7,"saved_at":0}"#;
        std::fs::write(&path, foreign).expect("write");
        let foreign = Checkpoint::open(dir.path(), "a/b", &source(), Duration::ZERO);
        assert!(matches!(foreign, Err(CheckpointError::Unusable { .. })));
    }

    #[test]
    fn a_checkpoint_of_something_else_is_not_taken_for_progress() {
        let dir = tempfile::tempdir().expect("folder");
        let open = |source: &FolderSettings| Checkpoint::open(dir.path(), "ns.p", source, Duration::ZERO);
        let (checkpoint, _) = open(&source()).expect("open");
        checkpoint.save(200, Some(100)).expect("save");
        drop(checkpoint);
        let file = dir.path().join("checkpoint-ns.p.json").display().to_string();
        let with = |change: fn(&mut FolderSettings)| {
            let mut changed = source();
            change(&mut changed);
            changed
        };
        let refused = [
            (with(|now| now.start_ledger = Some(50)), "start_ledger 100"),
            (with(|now| now.start_ledger = None), "start_ledger 100"),
            (with(|now| now.path = "/others".into()), "path /ledgers"),
            (with(|now| now.network = Some("pubnet".to_owned())), "network testnet"),
            (with(|now| now.network = None), "network testnet"),
        ];
        for (changed, expected) in refused {
            let error = open(&changed).map(|(_, last)| last).expect_err(expected).to_string();
            assert!(error.contains(expected) && error.contains(&file), "{error}");
        }
        // A later start is covered, and does not make the checkpoint forget its own.
        let (checkpoint, last) = open(&with(|now| now.start_ledger = Some(150))).expect("covered");
        assert_eq!(last, Some(200));
        checkpoint.save(201, Some(100)).expect("save");
        drop(checkpoint);
        assert!(open(&with(|now| now.start_ledger = Some(120))).is_ok());
        // One that leaves ledgers out makes it forget the ones before.
        let (checkpoint, _) = open(&with(|now| now.start_ledger = Some(300))).expect("later");
        checkpoint.save(310, Some(100)).expect("save");
        drop(checkpoint);
        assert!(open(&with(|now| now.start_ledger = Some(250))).is_err());
    }

    #[test]
    fn a_start_that_was_left_out_is_the_first_ledger_there_was() {
        let dir = tempfile::tempdir().expect("folder");
        let from = |start_ledger: Option<u32>| {
            let source = FolderSettings {
                start_ledger,
                ..source()
            };
            Checkpoint::open(dir.path(), "p", &source, Duration::ZERO)
        };
        let (checkpoint, last) = from(None).expect("open");
        assert_eq!(last, None);
        checkpoint.save(200, Some(100)).expect("save");
        drop(checkpoint);
        assert!(from(Some(50)).is_err(), "written to the archive later");
        assert!(from(Some(150)).is_ok());
        let (_, last) = from(None).expect("the same");
        assert_eq!(last, Some(200));
    }

    #[test]
    fn a_checkpoint_of_an_older_runner_is_taken_as_before() {
        let dir = tempfile::tempdir().expect("folder");
        let old = r#"{"version":1,"pipeline":"p","last_ledger":7,"saved_at":0}"#;
        std::fs::write(dir.path().join("checkpoint-p.json"), old).expect("write");
        let (_, last) = Checkpoint::open(dir.path(), "p", &source(), Duration::ZERO).expect("open");
        assert_eq!(last, Some(7));
    }
}
