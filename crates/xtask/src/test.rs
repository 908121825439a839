//! `cargo xtask test`: everything that must hold before a change lands, in the order in which it is cheapest to fail. It
//! runs what a person would type, and prints it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use flowctl_testkit::{
    binaries::cache_directory,
    images::{self, ProjectImage},
    tier::Tier,
};

use crate::generate::project_root;

/// The cargo-deny that is installed when it is not there.
const CARGO_DENY: &str = "0.20.2";

/// How many tests of a program run at once, where there is no better answer.
const THREADS: &str = "RUST_TEST_THREADS";
/// With a cluster most tests wait for controllers and for quiet windows, not for a processor: when 23 tests of the
/// operator took 168 s with two threads on two processors, they took 65 s with eight. More makes deadlines tight.
const THREADS_WITH_A_CLUSTER: usize = 8;

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which tests: plain, api, node (a comma list); all by default.
    #[arg(long, value_name = "LIST", default_value = "all")]
    tier: String,
    /// Only the tests: no format, lint or licence check.
    #[arg(long)]
    no_lint: bool,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// `cargo xtask test`.
///
/// # Errors
///
/// Names the first step that failed; what it printed stands above.
pub async fn run(arguments: &Arguments) -> Result<()> {
    let tiers = Tier::parse_list(&arguments.tier)?;
    ensure!(!tiers.is_empty(), "--tier names no tier; use plain, api, node or all");
    let begin = Instant::now();
    let root = project_root()?;
    if !arguments.no_lint {
        step("format", cargo(&root).args(["fmt", "--all", "--check"]))?;
        let lint = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ];
        step("lint", cargo(&root).args(lint))?;
        let deny = cargo_deny(&root)?;
        let check = ["--workspace", "check", "bans", "licenses", "sources"];
        step(
            "bans, licences, sources",
            Command::new(deny).current_dir(&root).args(check),
        )?;
    }
    // Here rather than in the tests: what is built there is built in silence, and against a deadline.
    for tier in &tiers {
        flowctl_testkit::prepare(*tier).await?;
    }
    if tiers.contains(&Tier::Node) {
        let started = Instant::now();
        eprintln!("\n==> images");
        images::build(&ProjectImage::IN_TESTS).await?;
        eprintln!("    {} s", started.elapsed().as_secs());
    }
    let names: Vec<_> = tiers.iter().map(|tier| tier.name()).collect();
    let mut tests = cargo(&root);
    // One run tells everything that is wrong.
    tests
        .args(["test", "--workspace", "--locked", "--no-fail-fast"])
        .env(flowctl_testkit::tier::VARIABLE, names.join(","));
    let waits = tiers.iter().any(|tier| *tier != Tier::Plain);
    if waits && std::env::var_os(THREADS).is_none() {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        tests.env(THREADS, processors.max(THREADS_WITH_A_CLUSTER).to_string());
    }
    if let Some(filter) = &arguments.filter {
        tests.arg(filter);
    }
    step(&format!("tests ({})", names.join(", ")), &mut tests)?;
    eprintln!("\nall of it holds, after {} s", begin.elapsed().as_secs());
    Ok(())
}

fn step(name: &str, command: &mut Command) -> Result<()> {
    let started = Instant::now();
    eprintln!("\n==> {name}: {}", line(command));
    let status = command
        .status()
        .with_context(|| format!("cannot run `{}`", line(command)))?;
    if !status.success() {
        bail!("{name} failed: `{}` ended with {status}", line(command));
    }
    eprintln!("    {} s", started.elapsed().as_secs());
    Ok(())
}

fn line(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let arguments = command
        .get_args()
        .map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// cargo-deny, from the cache; built there once, without optimisation, because it runs for a second.
fn cargo_deny(root: &Path) -> Result<PathBuf> {
    let folder = cache_directory()?.join(format!("cargo-deny-{CARGO_DENY}"));
    let program = folder.join("bin/cargo-deny");
    if !program.is_file() {
        let mut install = cargo(root);
        install.args([
            "install",
            "--quiet",
            "--locked",
            "--debug",
            "--version",
            CARGO_DENY,
            "--root",
        ]);
        step("cargo-deny, once", install.arg(&folder).arg("cargo-deny"))?;
    }
    Ok(program)
}
