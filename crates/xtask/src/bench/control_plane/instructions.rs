//! How many instructions a streamed beat takes of the whole server: two runs under callgrind that differ in the number of beats
//! only. A count, so nothing else on the machine changes it.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use flowctl_bench::beats::Way;
use flowctl_testkit::command;
use serde::Serialize;
use tokio::process::Command;

use super::{
    super::tell,
    server::{self, Part, Programs, Server},
};

/// Instructions of one beat.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Instructions {
    /// As fast as they come: one read brings many of them.
    pub(super) flood: f64,
    /// One at a time on each of fifty connections: each wakes the server up, is read by itself, and costs the kernel's share too,
    /// which is not counted.
    pub(super) single: f64,
}

/// How beats come.
#[derive(Clone, Copy, Debug)]
struct Load {
    connections: &'static str,
    /// Milliseconds.
    pause: &'static str,
    beats: [u32; 2],
}

const FLOOD: Load = Load {
    connections: "4",
    pause: "0",
    beats: [4_000, 24_000],
};
const SINGLE: Load = Load {
    connections: "50",
    pause: "40",
    beats: [1_000, 6_000],
};

/// Counts; nothing, with a line that says why, without valgrind.
pub(super) async fn measure(programs: &Programs) -> Result<Option<Instructions>> {
    let Some(valgrind) = command::find("valgrind", &[]) else {
        tell("valgrind is not installed (on Debian: apt-get install valgrind): no instructions are counted");
        return Ok(None);
    };
    tell("instructions of a beat");
    Ok(Some(Instructions {
        flood: of(FLOOD, &valgrind, programs).await?,
        single: of(SINGLE, &valgrind, programs).await?,
    }))
}

async fn of(load: Load, valgrind: &Path, programs: &Programs) -> Result<f64> {
    let [few, many] = load.beats;
    let of_few = total(load, few, valgrind, programs).await?;
    let of_many = total(load, many, valgrind, programs).await?;
    Ok((of_many - of_few) / f64::from(many - few))
}

/// Instructions of a server from its start to its end.
async fn total(load: Load, beats: u32, valgrind: &Path, programs: &Programs) -> Result<f64> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let path = folder.path().join("callgrind.out");
    let mut command = Command::new(valgrind);
    command
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--callgrind-out-file={}", path.display()));
    let server = Server::ours_under(command, programs).await?;
    let mut command = server::pinned(&programs.beats, Part::Load);
    command
        .arg(server.address.to_string())
        .args(["--way", Way::Streamed.name(), "--register", "--services", "100"]);
    command.args([
        "--beats",
        &beats.to_string(),
        "--connections",
        load.connections,
        "--pause",
        load.pause,
    ]);
    super::output(&mut command).await?;
    server.stop().await?;
    let text = fs::read_to_string(&path).context("cannot read what callgrind counted")?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: ")));
    total
        .and_then(|total| total.trim().parse().ok())
        .context("callgrind tells no total")
}
