//! The Go that builds programs: found, new enough for their modules, with a place for its caches. An old one would
//! fail minutes later, deep in a build. It builds nothing.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::build::source;
use super::{Program, cache_directory};
use crate::{Error, Result, command};

/// From here on Go downloads the version that a module asks for, unless told otherwise (go.dev/doc/toolchain).
const FIRST_THAT_SWITCHES: Version = Version {
    major: 1,
    minor: 21,
    patch: 0,
};

/// A version of Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

/// The Go of this machine.
struct Installed {
    path: PathBuf,
    version: Version,
    /// `GOTOOLCHAIN`, as Go itself understands it; empty before 1.21.
    toolchain: String,
}

/// Finds a Go that can build these programs.
///
/// # Errors
/// When there is none, or only one that is too old; says which one is needed.
pub(crate) fn check(programs: &[Program]) -> Result<PathBuf> {
    let names = programs.iter().map(|program| program.file_name());
    let names = names.collect::<Vec<_>>().join(", ");
    let wanted = wanted(programs)?;
    let remedy = format!(
        "Go {wanted} is needed to build {names}; install it from https://go.dev/dl, or copy built programs into the \
         cache ({})",
        cache_directory()?.display()
    );
    let path = command::require("go", &remedy)?;
    // A development version without a number is its owner's affair.
    let Some(version) = Version::find(&ask(&path, &["version"])?) else {
        return Ok(path);
    };
    let toolchain = ask(&path, &["env", "GOTOOLCHAIN"])?.trim().to_owned();
    let installed = Installed {
        path,
        version,
        toolchain,
    };
    match installed.problem(wanted) {
        None => Ok(installed.path),
        Some(problem) => Err(Error::impossible(format!("{problem}: {remedy}"))),
    }
}

/// What Go has to be told: without a home it knows no place for its caches, so they are below ours.
pub(super) fn environment() -> Result<Vec<(&'static str, PathBuf)>> {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if is_set("HOME") {
        return Ok(Vec::new());
    }
    let cache = std::path::absolute(cache_directory()?).map_err(Error::io("find the cache"))?;
    let places = [("GOCACHE", cache.join("go-build")), ("GOPATH", cache.join("go"))];
    Ok(places.into_iter().filter(|(name, _)| !is_set(name)).collect())
}

fn ask(go: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(go)
        .args(arguments)
        .envs(environment()?)
        // In a module's folder Go would switch to what the module asks for, and maybe download it.
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .map_err(Error::file("run", go))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The newest version that the programs' modules ask for.
fn wanted(programs: &[Program]) -> Result<Version> {
    let mut wanted = FIRST_THAT_SWITCHES;
    for program in programs {
        let path = source(&program.recipe()).join("go.mod");
        let module = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        wanted = module.lines().filter_map(Version::of_module).fold(wanted, Version::max);
    }
    Ok(wanted)
}

// === impl Installed ===

impl Installed {
    /// Why it cannot build a module that asks for this version.
    fn problem(&self, wanted: Version) -> Option<String> {
        if self.version >= wanted {
            return None;
        }
        let (path, version) = (self.path.display(), self.version);
        if self.version < FIRST_THAT_SWITCHES {
            return Some(format!("{path} is Go {version}"));
        }
        let switches = self.toolchain.is_empty() || self.toolchain.ends_with("auto");
        let toolchain = &self.toolchain;
        (!switches).then(|| {
            format!(
                "{path} is Go {version} and GOTOOLCHAIN={toolchain} keeps it from downloading a newer one \
                 (GOTOOLCHAIN=auto lets it, with a network)"
            )
        })
    }
}

// === impl Version ===

impl Version {
    /// Reads what `go version` prints: `go version go1.26.0 linux/amd64`.
    fn find(said: &str) -> Option<Self> {
        said.split_whitespace()
            .find_map(|word| Self::parse(word.strip_prefix("go")?))
    }

    /// Reads the line of a go.mod that tells the version.
    fn of_module(line: &str) -> Option<Self> {
        Self::parse(line.strip_prefix("go ")?)
    }

    /// Reads `1.26`, `1.26.0`, `1.26rc1`, `1.27-abcdef`; what is behind the numbers does not count.
    fn parse(text: &str) -> Option<Self> {
        let number = |part: &str| {
            let end = part
                .find(|character: char| !character.is_ascii_digit())
                .unwrap_or(part.len());
            part.get(..end)?.parse().ok()
        };
        let mut parts = text.split('.');
        Some(Self {
            major: number(parts.next()?)?,
            minor: number(parts.next()?)?,
            patch: parts.next().and_then(number).unwrap_or(0),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)?;
        match self.patch {
            0 => Ok(()),
            patch => write!(formatter, ".{patch}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(said: &str, toolchain: &str) -> Option<String> {
        let installed = Installed {
            path: PathBuf::from("go"),
            version: Version::find(said).expect("a version"),
            toolchain: toolchain.to_owned(),
        };
        installed.problem(Version::parse("1.26.0").expect("a version"))
    }

    #[test]
    fn an_old_go_is_told_before_the_build_unless_it_can_download_a_newer_one() {
        assert_eq!(problem("go version go1.26.8 linux/amd64", "local"), None);
        assert_eq!(problem("go version devel go1.27-3f2a linux/amd64", "local"), None);
        assert_eq!(problem("go version go1.24.4 linux/amd64", "auto"), None);
        assert_eq!(problem("go version go1.24.4 linux/amd64", "go1.24.4+auto"), None);
        let kept = problem("go version go1.24.4 linux/arm64", "local").expect("too old");
        assert!(kept.contains("1.24.4") && kept.contains("GOTOOLCHAIN=local"), "{kept}");
        let old = problem("go version go1.19.8 linux/amd64", "").expect("too old");
        assert!(old.contains("1.19.8"), "{old}");
    }

    #[test]
    fn what_is_wanted_is_read_from_the_modules() {
        let all = wanted(Program::NODE).expect("read");
        let etcd = wanted(&[Program::Etcd]).expect("read");
        assert!(all >= etcd && etcd > FIRST_THAT_SWITCHES, "{all} {etcd}");
        assert_eq!(
            Version::parse("1.26.0").map(|version| version.to_string()),
            Some("1.26".to_owned())
        );
        assert_eq!(Version::of_module("go.uber.org/zap v1.27.0"), None);
    }
}
