//! `cargo xtask bench control-plane`: heartbeats of the control plane beside a bare tonic server, which takes the same messages and
//! does nothing with them, and beside a minimal server on grpc-go, all in the same run. What is compared is the processor time of
//! the servers: it depends little on what else the machine does.

mod instructions;
mod report;
mod server;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use flowctl_bench::beats::{Beaten, Way};
use serde_json::Value;
use tokio::process::Command;

use self::{
    report::{Rate, Report, Rounds},
    server::{Part, Programs, Server},
};
use super::tell;

/// Arguments of `cargo xtask bench control-plane`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Heartbeats in each turn of each server, one call each; streams take eight times as many
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1000..))]
    beats: u64,
    /// Turns of each server; odd numbers have a median
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Services in the measurements of memory and lateness
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    services: u32,
    /// Cargo's profile for the programs
    #[arg(long, default_value = "release")]
    profile: String,
    /// Take the compiled programs from this folder instead of building them
    #[arg(long, value_name = "FOLDER", conflicts_with = "profile")]
    programs: Option<PathBuf>,
    /// Write the numbers to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
}

/// A stream's beat costs so much less than a call that as many of them would be over before they can be measured.
const STREAMED: u64 = 8;

/// Measures everything.
///
/// # Errors
///
/// When something does not build or start, or a beat is refused.
pub(super) async fn run(arguments: &Arguments) -> Result<Report> {
    let programs = Programs::build(arguments).await?;
    let memory = scale(&programs, "memory", arguments.services).await?;
    let lateness = scale(&programs, "lateness", arguments.services).await?;
    let instructions = instructions::measure(&programs).await?;
    Ok(Report {
        profile: arguments.programs.is_none().then(|| arguments.profile.clone()),
        rounds: rounds(&programs, arguments).await?,
        instructions,
        memory,
        lateness,
    })
}

/// Every server in turn, and that several times: what else the machine does comes to all of them alike.
async fn rounds(programs: &Programs, arguments: &Arguments) -> Result<Rounds> {
    let ours = Server::ours(programs).await?;
    let bare = Server::bare(programs).await?;
    let go = Server::go(programs).await?;
    // Caches, the branch predictor and Go's heap have the time to become as they will be.
    let warm = arguments.beats;
    beat(programs, &ours, Way::Unary, warm, true).await?;
    for (server, way) in [
        (&ours, Way::Streamed),
        (&bare, Way::Unary),
        (&bare, Way::Echo),
        (&bare, Way::Streamed),
        (&go, Way::Unary),
    ] {
        beat(programs, server, way, warm, false).await?;
    }
    let mut rounds = Rounds::default();
    for round in 1..=arguments.rounds {
        let streamed = arguments.beats * STREAMED;
        rounds
            .ours
            .push(beat(programs, &ours, Way::Unary, arguments.beats, false).await?);
        rounds
            .bare
            .push(beat(programs, &bare, Way::Unary, arguments.beats, false).await?);
        rounds
            .echo
            .push(beat(programs, &bare, Way::Echo, arguments.beats, false).await?);
        rounds
            .go
            .push(beat(programs, &go, Way::Unary, arguments.beats, false).await?);
        rounds
            .ours_streamed
            .push(beat(programs, &ours, Way::Streamed, streamed, false).await?);
        rounds
            .bare_streamed
            .push(beat(programs, &bare, Way::Streamed, streamed, false).await?);
        tell(&format!("turn {round} of {}", arguments.rounds));
    }
    Ok(rounds)
}

/// What a server took for so many beats.
async fn beat(programs: &Programs, server: &Server, way: Way, beats: u64, register: bool) -> Result<Rate> {
    let before = server.usage()?;
    let mut command = server::pinned(&programs.beats, Part::Load);
    command
        .arg(server.address.to_string())
        .args(["--way", way.name(), "--beats", &beats.to_string()]);
    if register {
        command.arg("--register");
    }
    let beaten: Beaten = serde_json::from_value(output(&mut command).await?)?;
    let cpu_seconds = server.usage()?.cpu_seconds - before.cpu_seconds;
    ensure!(
        cpu_seconds > 0.0,
        "{beats} beats are too few to measure what they take; use more --beats"
    );
    Ok(Rate { beaten, cpu_seconds })
}

/// What the registry takes by itself, with so many services.
async fn scale(programs: &Programs, what: &str, services: u32) -> Result<Value> {
    tell(&format!("{what} of {services} services"));
    output(Command::new(&programs.registry_scale).args([what, &services.to_string()])).await
}

/// The JSON that a program prints.
async fn output(command: &mut Command) -> Result<Value> {
    let text = flowctl_testkit::command::run(command).await?;
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
}
