//! Building with Go: one program at a time (they share packages, so the first one costs most), progress for each.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::{Program, Recipe, cache_directory, go, missing, project_root};
use crate::{Error, Result, command};

/// How often a waiting builder says that it waits.
const REMIND: Duration = Duration::from_secs(15);

/// Builds these programs into the cache.
pub(super) async fn build(programs: &[Program]) -> Result<()> {
    let go = go::check(programs)?;
    let _lock = lock().await?;
    // Whoever held the lock may have built some of them.
    let programs = missing(programs)?;
    for (index, program) in programs.iter().enumerate() {
        let name = program.file_name();
        let begun = Instant::now();
        eprintln!("  {name} ({} of {}) ...", index + 1, programs.len());
        build_one(&go, *program).await?;
        eprintln!(
            "  {name} ({} of {}) built in {} s",
            index + 1,
            programs.len(),
            begun.elapsed().as_secs()
        );
    }
    Ok(())
}

/// Where a module's programs go: named after the content of `go.mod`, `go.sum` and the module's own code, and what the linker
/// is told.
pub(super) fn directory(recipe: &Recipe) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    let folder = source(recipe);
    let mut files = vec![folder.join("go.mod"), folder.join("go.sum")];
    files.extend(code(&folder)?);
    for path in files {
        hash.update(fs::read(&path).map_err(Error::file("read", &path))?);
        hash.update([0]);
    }
    hash.update(recipe.definitions);
    hash.update(std::env::consts::ARCH);
    let digest: String = hash
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(cache_directory()?
        .join("programs")
        .join(format!("{}-{digest}", recipe.module)))
}

pub(super) fn source(recipe: &Recipe) -> PathBuf {
    project_root().join(recipe.folder).join(recipe.module)
}

/// The Go files of a module of ours, sorted; modules that only name published programs have none.
fn code(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(Error::file("read", folder))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|is| is == "go"))
        .collect();
    paths.sort();
    Ok(paths)
}

async fn build_one(go: &Path, program: Program) -> Result<()> {
    let recipe = program.recipe();
    let directory = directory(&recipe)?;
    fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
    // A killed builder leaves its file, and maybe a Go that still writes it: so another name, and the old ones go.
    forget_unfinished(&directory, program)?;
    let unfinished = directory.join(format!("{}{}", unfinished_prefix(program), std::process::id()));
    let mut go = Command::new(go);
    go.envs(go::environment()?)
        .current_dir(source(&recipe))
        .env("CGO_ENABLED", "0")
        .args([
            "build",
            "-trimpath",
            "-ldflags",
            &format!("-s -w {}", recipe.definitions),
            "-o",
        ])
        .arg(&unfinished)
        .arg(recipe.package);
    command::run(&mut go).await?;
    let finished = directory.join(program.file_name());
    fs::rename(&unfinished, &finished).map_err(Error::file("move the finished program to", &finished))
}

fn unfinished_prefix(program: Program) -> String {
    format!(".{}.", program.file_name())
}

fn forget_unfinished(directory: &Path, program: Program) -> Result<()> {
    let prefix = unfinished_prefix(program);
    let entries = fs::read_dir(directory).map_err(Error::file("read", directory))?;
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
    {
        fs::remove_file(entry.path()).map_err(Error::file("remove", &entry.path()))?;
    }
    Ok(())
}

/// Waits until nobody else builds or installs. The kernel frees the lock of a killed process.
pub(crate) async fn lock() -> Result<File> {
    let cache = cache_directory()?;
    fs::create_dir_all(&cache).map_err(Error::file("create", &cache))?;
    let path = &cache.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(Error::file("open", path))?;
    let mut reminded = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::Error(error)) => return Err(Error::file("lock", path)(error)),
            Err(fs::TryLockError::WouldBlock) if reminded.elapsed() > REMIND => {
                eprintln!("  waiting: another process builds or installs ({})", path.display());
                reminded = Instant::now();
            }
            Err(fs::TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
