//! The file: its tables, its format number, and opening it with errors that say what to do.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use flowctl_proto::flowctl::PipelineRun;
use prost::Message as _;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError};

use super::{StoreError, Write};
use crate::registry::{KeptLife, RunNumber};

/// The format that this version writes. A change that an older version would misread raises it.
const FORMAT: u64 = 1;
/// Of redb's page cache. Everything is read once, at start.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const SERVICES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("services");
const LIVES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("lives");
const RUNS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("runs");
const ALERTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("alerts");

/// First bytes of a redb file.
const REDB_MAGIC: &[u8] = b"redb";
/// Of a BoltDB file, after its page header: the existing flowctl server keeps its registry in one, in the same place.
const BOLT_MAGIC: [u8; 4] = 0xED0C_DAED_u32.to_le_bytes();
const BOLT_OFFSET: usize = 16;

/// Everything in a file.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) services: Vec<(String, Vec<u8>, KeptLife)>,
    pub(crate) runs: Vec<(RunNumber, PipelineRun)>,
    pub(crate) alerts: Vec<(String, Vec<u8>)>,
}

/// An open file. It is locked: a second process cannot open it.
#[derive(Debug)]
pub(super) struct StoreFile {
    path: PathBuf,
    database: Database,
}

// === impl StoreFile ===

impl StoreFile {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let io = |action| move |error: std::io::Error| StoreError::io(action, path, &error);
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(io("make the folder of"))?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let mut file = match options.open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Self::make(path, options.create_new(true)),
            opened => opened.map_err(io("open"))?,
        };
        recognise(&mut file, path)?;
        // Opened afresh: the reading above has moved the place in the file.
        let file = options.open(path).map_err(io("open"))?;
        let database = open_database(file, path)?;
        let store = Self {
            path: path.to_owned(),
            database,
        };
        store.check_format()?;
        Ok(store)
    }

    /// Makes a new file under another name, which it keeps until it is whole: what a crash or a full disk leaves half made is
    /// made anew, instead of being refused at every start.
    fn make(path: &Path, options: &OpenOptions) -> Result<Self, StoreError> {
        let io = |action| move |error: std::io::Error| StoreError::io(action, path, &error);
        let mut unfinished = OsString::from(path);
        unfinished.push(".new");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("make")(error)),
            Ok(()) | Err(_) => {}
        }
        let file = options.open(&unfinished).map_err(io("make"))?;
        let store = Self {
            path: path.to_owned(),
            database: open_database(file, path)?,
        };
        store.write_format()?;
        fs::rename(&unfinished, path).map_err(io("make"))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // So that the name is there after the power failed, too.
        let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
        synced.map_err(io("make"))?;
        Ok(store)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let failed = |error: redb::Error| StoreError::of("read", &self.path, error);
        let transaction = self.database.begin_read().map_err(|error| failed(error.into()))?;
        let found = match transaction.open_table(META) {
            Ok(table) => table
                .get("format")
                .map_err(|error| failed(error.into()))?
                .map(|found| found.value()),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(failed(error.into())),
        };
        match found {
            Some(FORMAT) => Ok(()),
            None => self.write_format(),
            Some(found) if found > FORMAT => Err(StoreError::Newer {
                path: self.path.clone(),
                found,
                known: FORMAT,
            }),
            Some(found) => Err(StoreError::Corrupt {
                path: self.path.clone(),
                why: format!("format {found} never existed"),
            }),
        }
    }

    /// Makes a new file a registry: all its tables, so that readers find them.
    fn write_format(&self) -> Result<(), StoreError> {
        self.transact("write", |transaction| {
            transaction.open_table(META)?.insert("format", FORMAT)?;
            transaction.open_table(SERVICES)?;
            transaction.open_table(LIVES)?;
            transaction.open_table(RUNS)?;
            transaction.open_table(ALERTS)?;
            Ok(())
        })
    }

    /// All or none of it is on disk when this returns.
    pub(super) fn write<'a>(&self, writes: impl Iterator<Item = &'a Write>) -> Result<(), StoreError> {
        self.transact("write", |transaction| {
            let mut services = transaction.open_table(SERVICES)?;
            let mut lives = transaction.open_table(LIVES)?;
            let mut runs = transaction.open_table(RUNS)?;
            let mut alerts = transaction.open_table(ALERTS)?;
            for write in writes {
                match write {
                    Write::PutService { id, kept } => {
                        services.insert(id.as_str(), kept.as_slice())?;
                        // A new registration begins a new life.
                        lives.remove(id.as_str())?;
                    }
                    Write::RemoveServices(ids) => {
                        for id in ids {
                            services.remove(id.as_str())?;
                            lives.remove(id.as_str())?;
                        }
                    }
                    Write::Lives(changed) => {
                        for (id, life) in changed {
                            lives.insert(id.as_str(), life.encode_to_vec().as_slice())?;
                        }
                    }
                    Write::PutRun { number, kept } => {
                        runs.insert(number.0, kept.as_slice())?;
                    }
                    Write::RemoveRuns(numbers) => {
                        for number in numbers {
                            runs.remove(number.0)?;
                        }
                    }
                    Write::PutAlert { id, kept } => {
                        alerts.insert(id.as_str(), kept.as_slice())?;
                    }
                    Write::RemoveAlert(id) => {
                        alerts.remove(id.as_str())?;
                    }
                }
            }
            Ok(())
        })
    }

    fn transact(
        &self,
        action: &'static str,
        write: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        let transacted = || {
            let transaction = self.database.begin_write()?;
            write(&transaction)?;
            Ok(transaction.commit()?)
        };
        transacted().map_err(|error| StoreError::of(action, &self.path, error))
    }

    /// Reads everything.
    pub(super) fn read(&self) -> Result<Contents, StoreError> {
        let contents = self
            .read_tables()
            .map_err(|error| StoreError::of("read", &self.path, error))?;
        contents.map_err(|why| StoreError::Corrupt {
            path: self.path.clone(),
            why,
        })
    }

    fn read_tables(&self) -> Result<Result<Contents, String>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let (services, lives) = (transaction.open_table(SERVICES)?, transaction.open_table(LIVES)?);
        let mut contents = Contents::default();
        for entry in services.iter()? {
            let (id, kept) = entry?;
            let life = match lives.get(id.value())?.map(|life| KeptLife::decode(life.value())) {
                None => KeptLife::default(),
                Some(Ok(life)) => life,
                Some(Err(error)) => return Ok(Err(format!("the life of service {}: {error}", id.value()))),
            };
            contents
                .services
                .push((id.value().to_owned(), kept.value().to_owned(), life));
        }
        for entry in transaction.open_table(RUNS)?.iter()? {
            let (number, kept) = entry?;
            match PipelineRun::decode(kept.value()) {
                Ok(run) => contents.runs.push((RunNumber(number.value()), run)),
                Err(error) => return Ok(Err(format!("pipeline run number {}: {error}", number.value()))),
            }
        }
        for entry in transaction.open_table(ALERTS)?.iter()? {
            let (id, kept) = entry?;
            contents.alerts.push((id.value().to_owned(), kept.value().to_owned()));
        }
        Ok(Ok(contents))
    }
}

/// Files of others are told by their first bytes: redb would call them damaged, and "damaged" invites to delete.
fn recognise(file: &mut File, path: &Path) -> Result<(), StoreError> {
    let mut head = Vec::new();
    let read = file.take(64).read_to_end(&mut head);
    read.map_err(|error| StoreError::io("read", path, &error))?;
    if head.is_empty() || head.starts_with(REDB_MAGIC) {
        return Ok(());
    }
    let is_bolt = head
        .get(BOLT_OFFSET..)
        .is_some_and(|rest| rest.starts_with(&BOLT_MAGIC));
    let found = if is_bolt {
        "BoltDB, as the Go flowctl writes it"
    } else {
        "unknown"
    };
    Err(StoreError::Foreign {
        path: path.to_owned(),
        found,
    })
}

fn open_database(file: File, path: &Path) -> Result<Database, StoreError> {
    let backend = FileBackend::new(file).map_err(|error| StoreError::of("open", path, error.into()))?;
    let mut builder = Database::builder();
    // The whole file is read at start anyway; unchecked, a damaged one panics in redb.
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    let opened = panic::catch_unwind(AssertUnwindSafe(|| builder.create_with_backend(backend)));
    match opened {
        Ok(opened) => opened.map_err(|error| StoreError::of("open", path, error.into())),
        Err(_) => Err(StoreError::Corrupt {
            path: path.to_owned(),
            why: "redb gave up".to_owned(),
        }),
    }
}
