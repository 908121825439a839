//! The command line of `cargo xtask`: one enum of verbs, one module a verb.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{bench, cluster, demo, faults, generate, image, mutants, test};

/// Tasks of this project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// A local Kubernetes on this machine, or one that you have.
    Cluster(cluster::Arguments),
    /// A cluster, the operator, two services and two pipelines: ledgers flow, and the totals are printed.
    Demo(demo::Arguments),
    /// Everything that must hold: format, lint, licences, and the tests of all tiers.
    Test(test::Arguments),
    /// Run the operator behind a proxy that breaks its requests.
    Faults(faults::Arguments),
    /// Regenerate committed files from their sources.
    Generate(generate::Arguments),
    /// Measure the operator or the control plane beside something that does the least.
    Bench(bench::Arguments),
    /// Make classic mistakes in a copy of the project, and see that the tests notice them.
    Mutants(mutants::Arguments),
    /// Compile what runs in pods and write container images, without a builder.
    Images(image::Arguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().verb).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Cluster(arguments) => return cluster::run(arguments).await,
        Verb::Demo(arguments) => demo::run(&arguments).await?,
        Verb::Test(arguments) => test::run(&arguments).await?,
        Verb::Faults(arguments) => faults::run(&arguments).await?,
        Verb::Generate(arguments) => generate::run(&arguments)?,
        Verb::Bench(arguments) => bench::run(arguments).await?,
        Verb::Mutants(arguments) => mutants::run(&arguments).await?,
        Verb::Images(arguments) => image::run(arguments).await?,
    }
    Ok(ExitCode::SUCCESS)
}
