//! `cargo xtask cluster`: a local Kubernetes from the command line, or one that the user has, behind the same verbs.
//! All of it is `flowctl-testkit`; here is only what is printed.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use flowctl_testkit::cluster::{Cluster, Loaded, Options};
use tokio::process::Command;

/// Arguments of `cargo xtask cluster`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Use the cluster of this context of your kubeconfig instead of a local one
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Start the local cluster, or find it running; it runs on until `down`
    Up,
    /// Stop the local cluster and remove everything it made
    Down,
    /// Say whether it runs, and what runs in it
    Status,
    /// Load image archives (written by `cargo xtask images`)
    LoadImage {
        /// The archives
        #[arg(required = true, value_name = "TAR")]
        archives: Vec<PathBuf>,
    },
    /// Run kubectl against the cluster
    Kubectl(Passed),
    /// Run helm against the cluster
    Helm(Passed),
    /// Print what a shell needs: `eval "$(cargo xtask cluster env)"`
    Env,
}

/// Arguments for another program.
#[derive(Debug, clap::Args)]
struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// `cargo xtask cluster`.
///
/// # Errors
///
/// When the cluster cannot do what is asked; the message says what to do.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let context = arguments.context.as_deref();
    match arguments.verb {
        Verb::Up => up(context).await?,
        Verb::Down => down(context).await?,
        Verb::Status => return status(context).await,
        Verb::LoadImage { archives } => load(&open(context).await?, &archives).await?,
        Verb::Kubectl(passed) => return pass(open(context).await?.kubectl_command()?, passed).await,
        Verb::Helm(passed) => return pass(open(context).await?.helm_command().await?, passed).await,
        Verb::Env => say(&environment(&open(context).await?).await?)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn up(context: Option<&str>) -> Result<()> {
    if let Some(context) = context {
        Cluster::existing(context).await?;
        println!("the cluster of context {context} answers; it is yours, nothing was started");
        return Ok(());
    }
    let was_up = Cluster::attach().await?.is_some();
    let cluster = Cluster::up(Options::default()).await?;
    let was = if was_up { "was up already" } else { "is up" };
    let (environment, logs) = (environment(&cluster).await?, cluster.directory().join("logs"));
    say(&format!(
        "the local cluster {was}\n\n{environment}\n\
         # kubectl: cargo xtask cluster kubectl get pods --all-namespaces\n\
         # logs:    {}\n\
         # stop:    cargo xtask cluster down\n",
        logs.display()
    ))
}

async fn down(context: Option<&str>) -> Result<()> {
    if let Some(context) = context {
        bail!("the cluster of context {context} is yours: stop it with the tool that made it");
    }
    match Cluster::down().await? {
        true => println!("the local cluster is stopped; nothing of it is left"),
        false => println!("there is no local cluster"),
    }
    Ok(())
}

async fn status(context: Option<&str>) -> Result<ExitCode> {
    let cluster = match context {
        Some(context) => Some(Cluster::existing(context).await?),
        None => Cluster::attach().await?,
    };
    let Some(cluster) = cluster else {
        println!("the local cluster is down; `cargo xtask cluster up` starts it");
        return Ok(ExitCode::FAILURE);
    };
    let nodes = cluster.kubectl(&["get", "nodes", "--output=wide"]).await?;
    let pods = cluster.kubectl(&["get", "pods", "--all-namespaces"]).await?;
    say(&format!(
        "up; KUBECONFIG={}\n\n{nodes}\n{pods}",
        cluster.kubeconfig().display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The cluster of a context, or the local one, which must be up.
///
/// # Errors
///
/// When there is none.
pub async fn open(context: Option<&str>) -> Result<Cluster> {
    if let Some(context) = context {
        return Ok(Cluster::existing(context).await?);
    }
    Cluster::attach().await?.context(
        "the local cluster is down: start it with `cargo xtask cluster up`, or name one that you have with --context",
    )
}

/// Loads archives and says for each whether that was needed.
///
/// # Errors
///
/// When one of them cannot be loaded.
pub async fn load(cluster: &Cluster, archives: &[PathBuf]) -> Result<()> {
    for archive in archives {
        let outcome = match cluster.load_image(archive).await? {
            Loaded::Now => "loaded",
            Loaded::Already => "is there already",
        };
        println!("{} {outcome}", archive.display());
    }
    Ok(())
}

async fn pass(mut command: Command, passed: Passed) -> Result<ExitCode> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let status = command
        .args(passed.arguments)
        .status()
        .await
        .with_context(|| format!("cannot run {program}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Prints; a reader that has seen enough (`| head`) is no failure.
fn say(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("cannot write to standard output"),
    }
}

/// Lines for a shell: the kubeconfig, and the folders of kubectl and helm.
async fn environment(cluster: &Cluster) -> Result<String> {
    let mut lines = format!("export KUBECONFIG={}\n", cluster.kubeconfig().display());
    for command in [cluster.kubectl_command()?, cluster.helm_command().await?] {
        if let Some(folder) = std::path::Path::new(command.as_std().get_program()).parent() {
            lines.push_str(&format!("export PATH={}:$PATH\n", folder.display()));
        }
    }
    Ok(lines)
}
