//! `cargo xtask faults`: the operator behind a proxy that breaks its requests, one at a time and in pairs. All of it is
//! `flowctl-faults`; here is only what is printed.

use std::path::Path;

use anyhow::{Result, bail};
use flowctl_faults::{
    Case, Runner,
    campaign::{self, JOBS, Named},
};

/// Arguments of `cargo xtask faults`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Cases at the same time
    #[arg(long, global = true, default_value_t = JOBS)]
    jobs: usize,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print the names of all cases: of committed files, and of every write of every workload
    List {
        /// Only those whose name contains this
        #[arg(default_value = "")]
        filter: String,
    },
    /// Run the cases whose name contains a text, or files
    Run {
        /// Texts or files; everything if none is given
        cases: Vec<String>,
    },
    /// Run every case, and then random pairs of faults
    Campaign {
        /// What the pairs are drawn from; printed, so that they can be drawn again
        #[arg(long)]
        seed: Option<u64>,
        /// How many pairs
        #[arg(long, default_value_t = 100)]
        pairs: usize,
    },
    /// Run one file and tell every request that the operator sent
    Replay {
        /// The file
        file: String,
    },
}

/// `cargo xtask faults`.
///
/// # Errors
///
/// When a case fails or cannot be run.
pub async fn run(arguments: &Arguments) -> Result<()> {
    let runner = Runner::start().await?;
    let cases = match &arguments.verb {
        Verb::List { filter } => {
            for (name, _) in all(&runner, filter).await? {
                println!("{name}");
            }
            return Ok(());
        }
        Verb::Replay { file } => return replay(&runner, file).await,
        Verb::Run { cases } if cases.is_empty() => all(&runner, "").await?,
        Verb::Run { cases } => {
            let mut chosen = Vec::new();
            for case in cases {
                match Path::new(case).is_file() {
                    true => chosen.push((case.clone(), Case::read(Path::new(case))?)),
                    false => chosen.extend(all(&runner, case).await?),
                }
            }
            chosen
        }
        Verb::Campaign { seed, pairs } => {
            let seed = seed.unwrap_or_else(|| fastrand::u64(..));
            println!("seed {seed}");
            let mut cases = all(&runner, "").await?;
            cases.extend(campaign::pairs(&runner, seed, *pairs).await?);
            cases
        }
    };
    if cases.is_empty() {
        bail!("there is no such case; `cargo xtask faults list` prints them all");
    }
    let report = campaign::run(&runner, cases, arguments.jobs, |line| eprintln!("{line}")).await;
    print!("{}", report.text());
    if !report.is_good() {
        bail!("not every case came to the same end as an undisturbed run");
    }
    Ok(())
}

async fn all(runner: &Runner, filter: &str) -> Result<Vec<Named>> {
    let committed = Case::all_in("cases")?.into_iter();
    let mut all: Vec<Named> = committed.filter(|(name, _)| name.contains(filter)).collect();
    all.extend(campaign::matrix(runner, filter).await?);
    Ok(all)
}

async fn replay(runner: &Runner, file: &str) -> Result<()> {
    let outcome = runner.run(&Case::read(Path::new(file))?).await?;
    print!("{}", outcome.told());
    if !outcome.violations.is_empty() {
        bail!("{file} fails");
    }
    println!("{file} passes");
    Ok(())
}
