//! Python with the packages that clients in Python need (`tests/peers/python/requirements.txt`), installed once per machine into
//! the cache, in a folder of their own: the user's Python stays as it is.

use std::fs;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::binaries::{cache_directory, lock, project_root};
use crate::{Error, Result, command};

/// Our programs in Python, and what they need.
pub fn folder() -> PathBuf {
    project_root().join("tests/peers/python")
}

/// A Python that finds the packages; they are installed if they are not there yet.
///
/// # Errors
/// Names what is missing: Python, pip, a network.
pub async fn command() -> Result<Command> {
    let python = command::require("python3", "install Python 3.10 or later, with pip")?;
    let requirements = folder().join("requirements.txt");
    let wanted = fs::read(&requirements).map_err(Error::file("read", &requirements))?;
    // Packages with machine code are made for one version of Python on one architecture.
    let described = "import sys, sysconfig; print(sys.version, sysconfig.get_platform())";
    let version = command::run(Command::new(&python).args(["-c", described])).await?;
    let digest = Sha256::new()
        .chain_update(&wanted)
        .chain_update([0])
        .chain_update(&version)
        .finalize();
    let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let finished = cache_directory()?.join("programs").join(format!("python-{digest}"));
    if !finished.is_dir() {
        let _lock = lock().await?;
        // Whoever held the lock may have installed them.
        if !finished.is_dir() {
            let unfinished = finished.with_extension("unfinished");
            if unfinished.is_dir() {
                fs::remove_dir_all(&unfinished).map_err(Error::file("remove", &unfinished))?;
            }
            eprintln!("  packages for Python ...");
            let mut pip = Command::new(&python);
            pip.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--only-binary=:all:",
            ])
            .arg("--target")
            .arg(&unfinished)
            .arg("--requirement")
            .arg(&requirements);
            command::run(&mut pip).await?;
            fs::rename(&unfinished, &finished).map_err(Error::file("move the packages to", &finished))?;
        }
    }
    let mut found = Command::new(python);
    found.env("PYTHONPATH", finished).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(found)
}
