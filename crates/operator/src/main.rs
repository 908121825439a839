//! The operator's process.

use anyhow::Context as _;
use clap::Parser as _;
use flowctl_operator::{Args, run};
use flowctl_runtime::Shutdown;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    args.logs.init()?;
    // Fails only when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kube = kube::Config::infer()
        .await
        .context("cannot find out how to reach the apiserver")?;
    let (options, settings) = args.resolve(&kube.default_namespace)?;
    let shutdown = Shutdown::on_signals()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), apiserver = %kube.cluster_url, "starting");
    let end = run(kube, options, settings, shutdown).await;
    // At once, whatever still runs: after a lost lease nothing may be written.
    if let Err(error) = end {
        tracing::error!("{error}");
        #[expect(
            clippy::disallowed_methods,
            reason = "fail-stop: nothing of ours may go on without the lease"
        )]
        std::process::exit(1);
    }
    Ok(())
}
