//! `cargo xtask bench`: what we ship, beside something that does the least, in the same run. `control-plane` has a module of its own;
//! here is `operator`: how the operator does with a thousand Pipelines and a thousand processors, beside a bare
//! loop that writes the same objects to the same apiserver in the same run. Seconds on a small or shared machine say
//! little; what is to be compared are ratios, counts and bytes.

mod bare;
mod churn;
mod control_plane;
mod log;
mod objects;
mod program;
mod relay;
mod report;
mod restart;
mod scene;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use flowctl_testkit::wait;
use serde::Serialize;

use self::{
    program::{Operator, Programs},
    report::{Converged, Report},
    scene::Scene,
};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The operator against a bare loop that writes the same objects.
    Operator(Operators),
    /// The control plane against a bare tonic server and a minimal one on grpc-go.
    ControlPlane(control_plane::Arguments),
}

/// Arguments of `cargo xtask bench operator`.
#[derive(Debug, clap::Args)]
struct Operators {
    /// How many Pipelines, and how many ExternalProcessors
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=9999))]
    objects: u16,
    /// Let Deployments have pods that become ready; without it the controllers for workloads do not run, and the
    /// apiserver is the operator's alone
    #[arg(long)]
    pods: bool,
    /// The operator's --writes-per-second; 0: no limit
    #[arg(long, default_value_t = 0)]
    writes_per_second: u32,
    /// The operator's --concurrency
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    /// Requests of the bare loop that are on their way at the same time
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
    /// Changes of a spec in a second while the delay of the writes that follow is measured; 0: none
    #[arg(long, default_value_t = 10)]
    churn: u32,
    /// How long changes are made
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    churn_seconds: u32,
    /// Most seconds that converging may take
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    limit: u64,
    /// Cargo's profile for the operator and the bare loop
    #[arg(long, default_value = "release")]
    profile: String,
    /// Take the compiled programs from this folder instead of building them
    #[arg(long, value_name = "FOLDER", conflicts_with = "profile")]
    programs: Option<PathBuf>,
    /// Write the numbers to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Without these no Deployment gets pods, and the apiserver's time is the operator's and the bare loop's.
const WORKLOADS: [&str; 6] = [
    "deployment-controller",
    "replicaset-controller",
    "job-controller",
    "disruption-controller",
    "endpoints-controller",
    "endpointslice-controller",
];
/// Nothing is written for this long: the operator is at rest.
const REST: Duration = Duration::from_secs(3);

/// `cargo xtask bench`.
///
/// # Errors
///
/// When something does not build, start or converge.
pub async fn run(arguments: Arguments) -> Result<()> {
    match arguments.what {
        What::Operator(arguments) => {
            let report = operator(&arguments).await?;
            println!("{}", report.table());
            keep(&report, arguments.json.as_deref())
        }
        What::ControlPlane(arguments) => {
            let report = control_plane::run(&arguments).await?;
            println!("{}", report.table());
            keep(&report, arguments.json.as_deref())
        }
    }
}

fn keep(report: &impl Serialize, path: Option<&Path>) -> Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    let text = serde_json::to_string_pretty(report)?;
    fs::write(path, format!("{text}\n")).with_context(|| format!("cannot write {}", path.display()))
}

async fn operator(arguments: &Operators) -> Result<Report> {
    let programs = match &arguments.programs {
        Some(folder) => Programs::found(folder)?,
        None => Programs::build(&arguments.profile).await?,
    };
    let scene = Scene::start(arguments.pods).await?;
    let count = usize::from(arguments.objects);

    // The bare loop before and after the operator, a half each: what else the machine does, and a store that grows, are in
    // both of them.
    let first = bare::run(&scene, &programs, "bare-before", count.div_ceil(2), arguments.in_flight).await?;
    tell(&format!(
        "bare loop: {} requests in {:.1} s",
        first.requests, first.seconds
    ));

    let empty = scene.namespace("empty").await?;
    let idle = Operator::start(&scene, &programs, arguments, &empty, None)?;
    idle.is_ready().await?;
    tokio::time::sleep(REST).await;
    let idle = idle.stop().await?;

    let place = scene.namespace("ours").await?;
    objects::create(&scene, &place, count).await?;
    let mark = log::mark(&scene)?;
    let begun = std::time::SystemTime::now();
    let operator = Operator::start(&scene, &programs, arguments, &place, None)?;
    converged(&scene, &operator, &place, arguments).await?;
    let usage = operator.usage()?;
    let converged = Converged::read(&log::since(&scene, mark)?, &place, begun, usage)?;
    tell(&format!(
        "operator: {} writes in {:.1} s",
        converged.writes.total(),
        converged.seconds
    ));

    let churn = match arguments.churn {
        0 => None,
        rate => Some(churn::run(&scene, &operator, &place, count, rate, arguments.churn_seconds).await?),
    };
    operator.stop().await?;
    let restarted = restart::verify(&scene, &programs, arguments, &place, count).await?;
    let relisted = restart::relist(&scene, &programs, arguments, &place, count).await?;

    let second = bare::run(&scene, &programs, "bare-after", count / 2, arguments.in_flight).await?;
    tell(&format!(
        "bare loop: {} requests in {:.1} s",
        second.requests, second.seconds
    ));
    scene.stop().await?;
    Ok(Report {
        objects: count,
        pods: arguments.pods,
        writes_per_second: arguments.writes_per_second,
        concurrency: arguments.concurrency,
        in_flight: arguments.in_flight,
        profile: arguments.programs.is_none().then(|| arguments.profile.clone()),
        bare: [first, second],
        idle,
        converged,
        churn,
        restarted,
        relisted,
    })
}

/// Waits until everything is written as it is planned and the operator rests.
async fn converged(
    scene: &Scene,
    operator: &Operator,
    place: &str,
    arguments: &Operators,
) -> Result<(), flowctl_testkit::Error> {
    let limit = Duration::from_secs(arguments.limit);
    wait::until_explained("everything is written as planned", limit, async || {
        scene.cluster.check()?;
        operator.rests(REST).await?;
        objects::as_planned(scene, place, arguments.pods).await
    })
    .await
}

fn tell(text: &str) {
    eprintln!("    {text}");
}
