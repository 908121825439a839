//! The command line of `cargo xtask`: one enum of verbs, one module a verb.

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::generate;

/// Tasks of this project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Regenerate committed files from their sources.
    Generate(generate::Arguments),
}

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().verb {
        Verb::Generate(arguments) => generate::run(&arguments),
    }
}
