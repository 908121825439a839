//! What must be true before anything is built or started, told before minutes are spent, with what to do about it.

use std::path::Path;

use nix::sys::statvfs::statvfs;

use crate::binaries::{Program, cache_directory, check_go, forecast_seconds, missing};
use crate::{Error, Result, Tier, command, packages};

/// Free disk that building takes (Go's download and build caches, and the programs), in gigabytes.
const BUILD_GIGABYTES: u64 = 9;
/// Free disk that a running node takes (images, layers, logs), in gigabytes.
const NODE_GIGABYTES: u64 = 2;
/// Below these a node starves.
const NODE_MEMORY_MEGABYTES: u64 = 2000;

/// What has to be done before a tier can start.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// Programs that would be built.
    pub builds: Vec<Program>,
    /// Debian packages that would be installed.
    pub packages: Vec<&'static str>,
    /// About how many seconds the builds take on two cores.
    pub build_seconds: u32,
    /// Disk that must be free, in gigabytes.
    pub gigabytes: u64,
}

/// Looks, changes nothing.
///
/// # Errors
/// When the programs' recipes cannot be read.
pub fn forecast(tier: Tier) -> Result<Forecast> {
    let (programs, packages) = match tier {
        Tier::Plain => (&[][..], Vec::new()),
        Tier::Api => (Program::API, Vec::new()),
        Tier::Node => (Program::NODE, packages::missing()),
    };
    let builds = missing(programs)?;
    let building = if builds.is_empty() { 0 } else { BUILD_GIGABYTES };
    let running = if tier == Tier::Node { NODE_GIGABYTES } else { 0 };
    Ok(Forecast {
        build_seconds: forecast_seconds(&builds),
        builds,
        packages,
        gigabytes: building + running,
    })
}

/// Says what will be installed and built, how long it takes and how much disk it needs; nothing if there is nothing.
///
/// # Errors
/// As [`forecast`].
pub fn announce(tier: Tier) -> Result<()> {
    let Forecast {
        builds,
        packages,
        build_seconds,
        gigabytes,
    } = forecast(tier)?;
    if !packages.is_empty() {
        eprintln!("to install: {}", packages.join(" "));
    }
    if !builds.is_empty() {
        let names = builds
            .iter()
            .map(|program| program.file_name())
            .collect::<Vec<_>>()
            .join(" ");
        let minutes = build_seconds.div_ceil(60);
        eprintln!("to build, once per machine: {names} (about {minutes} min on two cores, {gigabytes} GB of disk)");
    }
    Ok(())
}

/// Whether a tier can run here, after what the forecast says was done.
///
/// # Errors
/// Says what is missing and what to do.
pub fn can_run(tier: Tier) -> Result<()> {
    let forecast = forecast(tier)?;
    if !forecast.builds.is_empty() {
        check_go(&forecast.builds)?;
    }
    disk(forecast.gigabytes)?;
    match tier {
        Tier::Plain | Tier::Api => Ok(()),
        Tier::Node => node(&forecast),
    }
}

fn node(forecast: &Forecast) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::impossible(
            "a node needs root (it makes network devices, mounts and cgroups): run as root, or use a cluster you \
             have with --context NAME",
        ));
    }
    if !forecast.packages.is_empty() && !packages::can_install() {
        return Err(Error::impossible(packages::remedy(&forecast.packages)));
    }
    command::require(
        "cc",
        "a C compiler links our static programs; on Debian: apt-get install gcc libc6-dev",
    )?;
    if !Path::new("/sys/fs/cgroup").is_dir() {
        return Err(Error::impossible(
            "no cgroups are mounted at /sys/fs/cgroup: a node cannot run here",
        ));
    }
    memory()
}

fn memory() -> Result<()> {
    let table = std::fs::read_to_string("/proc/meminfo").map_err(Error::io("read /proc/meminfo"))?;
    let line = table.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    match kilobytes.map(|kilobytes| kilobytes / 1024) {
        Some(free) if free < NODE_MEMORY_MEGABYTES => Err(Error::impossible(format!(
            "{free} MB of memory are available, a node needs {NODE_MEMORY_MEGABYTES}: close something"
        ))),
        Some(_) | None => Ok(()),
    }
}

fn disk(gigabytes: u64) -> Result<()> {
    let cache = cache_directory()?;
    let Some(existing) = cache.ancestors().find(|directory| directory.is_dir()) else {
        return Ok(());
    };
    let space = statvfs(existing).map_err(|error| Error::file("look at", existing)(error.into()))?;
    let free = space.blocks_available() * space.fragment_size() / 1_000_000_000;
    if free >= gigabytes {
        return Ok(());
    }
    let place = existing.display();
    Err(Error::impossible(format!(
        "{free} GB are free at {place}, {gigabytes} are needed: make room"
    )))
}
