//! `cargo xtask demo`: from nothing to data flowing, as a user would do it (helm, kubectl, the files in `examples/`), with
//! what happens told on the way. It must not do anything that a user could not do.

mod ledgers;
mod manifests;
mod mark;
mod picture;
mod progress;
mod session;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use flowctl_stellar::LedgerRange;
use flowctl_testkit::{cluster::Cluster, images::ProjectImage};

use crate::{generate::project_root, install};
use ledgers::Ledgers;
use session::{Owner, Session};

/// Where the operator lives.
const OPERATOR_NAMESPACE: &str = "flowctl-system";
/// Where the examples live.
const NAMESPACE: &str = "flowctl-demo";

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Use a cluster of your own instead of making one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Real ledgers instead of the sample: a folder as Galexie writes it.
    #[arg(long, value_name = "DIR")]
    ledgers: Option<PathBuf>,
    /// First and last ledger; default: all that the folder has.
    #[arg(long, value_name = "FIRST-LAST", requires = "ledgers", value_parser = parse_range)]
    range: Option<LedgerRange>,
    /// Leave everything running when the demo is over.
    #[arg(long)]
    keep: bool,
    /// Take down what `--keep` left running, and do nothing else.
    #[arg(long, conflicts_with_all = ["ledgers", "range", "keep"])]
    down: bool,
    /// How long to wait for the pipelines, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
}

/// `cargo xtask demo`.
///
/// # Errors
///
/// Says which step failed, what was seen, and what to do.
pub async fn run(arguments: &Arguments) -> Result<()> {
    if arguments.down {
        return down(arguments.context.as_deref()).await;
    }
    // Wrong input is told before minutes are spent on a cluster.
    let ledgers = Ledgers::choose(arguments.ledgers.as_deref(), arguments.range)?;
    eprintln!("demo: {}", ledgers.describe());
    let session = Session::begin(arguments.context.as_deref(), arguments.keep).await?;
    let interrupted = async {
        tokio::signal::ctrl_c().await.context("cannot listen to Ctrl-C")?;
        bail!("interrupted")
    };
    let limit = Duration::from_secs(arguments.timeout);
    let outcome = tokio::select! {
        outcome = show(&session, &ledgers, limit) => outcome,
        interrupted = interrupted => interrupted,
    };
    // The outcome is what the user asked for; trouble in tidying up is told beside it.
    let tidied = tidy(session, arguments.keep, outcome.is_ok()).await;
    match (outcome, tidied) {
        (Ok(()), tidied) => tidied,
        (Err(failure), Ok(())) => Err(failure),
        (Err(failure), Err(trouble)) => {
            eprintln!("demo: could not tidy up either: {trouble:#}");
            Err(failure)
        }
    }
}

async fn tidy(session: Session, keep: bool, succeeded: bool) -> Result<()> {
    if keep {
        return picture::next_steps(&session.cluster, NAMESPACE, succeeded);
    }
    if session.owner == Owner::Demo {
        session.cluster.stop().await?;
        println!("\nThe demo's cluster is gone. To look around:  cargo xtask demo --keep");
    } else {
        remove(&session.cluster).await?;
        println!("\nWhat the demo installed is gone; the cluster runs on. To look around:  cargo xtask demo --keep");
    }
    Ok(())
}

async fn show(session: &Session, ledgers: &Ledgers, limit: Duration) -> Result<()> {
    let cluster = &session.cluster;
    mark::refuse_what_is_not_ours(cluster).await?;
    step("images");
    let digest = install::images(cluster, &ProjectImage::ALL).await?;

    step("operator: helm upgrade --install flowctl-operator charts/flowctl-operator");
    mark::namespace(cluster, OPERATOR_NAMESPACE).await?;
    // The tag is always the same: another operator is another annotation, and so a roll-out.
    let image = format!(r"podAnnotations.flowctl\.dev/image={digest}");
    install::operator(cluster, OPERATOR_NAMESPACE, &[image]).await?;

    step("examples: kubectl apply -f examples/");
    // What an earlier demo left would be counted again.
    ledgers::remove(cluster, NAMESPACE).await?;
    mark::namespace(cluster, NAMESPACE).await?;
    ledgers.put(cluster, session.owner, NAMESPACE).await?;
    let examples = project_root()?.join("examples");
    let objects = manifests::read(&examples)?;
    let list = manifests::adjust(objects, ledgers)?;
    cluster
        .kubectl_input(&["apply", "--namespace", NAMESPACE, "-f", "-"], &list.to_string())
        .await
        .context("cannot apply the examples")?;

    step("waiting for Ready");
    progress::until_ready(cluster, NAMESPACE, limit).await?;
    step("waiting for the ledgers to arrive");
    let totals = progress::until_counted(cluster, NAMESPACE, ledgers.count(), limit).await?;
    picture::show(cluster, NAMESPACE, OPERATOR_NAMESPACE, ledgers, &totals).await
}

async fn down(context: Option<&str>) -> Result<()> {
    match context {
        Some(context) => remove(&Cluster::existing(context).await?).await,
        None => {
            let stopped = Cluster::down().await?;
            println!(
                "{}",
                if stopped {
                    "the cluster is gone"
                } else {
                    "there is no cluster"
                }
            );
            Ok(())
        }
    }
}

/// Removes what the demo put into a cluster that goes on, and nothing else.
async fn remove(cluster: &Cluster) -> Result<()> {
    mark::refuse_what_is_not_ours(cluster).await?;
    if !mark::is_ours(cluster, OPERATOR_NAMESPACE).await? {
        return Ok(());
    }
    ledgers::remove(cluster, NAMESPACE).await?;
    cluster
        .helm(&[
            "uninstall",
            install::RELEASE,
            "--namespace",
            OPERATOR_NAMESPACE,
            "--ignore-not-found",
            "--wait",
        ])
        .await?;
    let definitions = [
        "delete",
        "crd",
        "--ignore-not-found",
        mark::DEFINITIONS[0],
        mark::DEFINITIONS[1],
    ];
    cluster.kubectl(&definitions).await?;
    cluster
        .kubectl(&[
            "delete",
            "namespace",
            OPERATOR_NAMESPACE,
            "--ignore-not-found",
            "--wait=true",
        ])
        .await?;
    Ok(())
}

fn step(what: &str) {
    eprintln!("\n==> {what}");
}

fn parse_range(text: &str) -> Result<LedgerRange, String> {
    let parsed = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.trim().parse::<u32>().ok()?, last.trim().parse::<u32>().ok()?)));
    match parsed {
        Some((start, end)) if 0 < start && start <= end => Ok(LedgerRange { start, end: Some(end) }),
        _ => Err("write the first and the last ledger, for example 30822015-30822025".to_owned()),
    }
}
