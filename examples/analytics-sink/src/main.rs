//! Serves the [`Sink`] as a pipeline's consumer, and its totals over HTTP.

use std::net::SocketAddr;
use std::process::ExitCode;

use analytics_sink::{Sink, Totals, routes};
use clap::Parser;
use flowctl_runtime::Metrics;
use flowctl_sdk::control_plane::{Registration, Role, SinkMetadata};
use flowctl_sdk::{ServeArgs, Service};
use tokio::task::JoinSet;

/// Counts and sums token transfer events by asset. The totals are on GET /totals (JSON; ?format=text for people,
/// ?limit=N for the busiest N assets) and begin when the process does.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Port of GET /totals
    #[arg(long, env = "HTTP_PORT", default_value_t = 8080)]
    http_port: u16,

    /// Ranges of ledgers to remember, to recognise ledgers that come again; one is enough for a stream without gaps
    #[arg(long, env = "MAX_LEDGER_RANGES", default_value_t = 65_536)]
    max_ledger_ranges: usize,

    #[command(flatten)]
    serve: ServeArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let args = Args::parse();
    let metrics = Metrics::new(name, version);
    let sink = Sink::new(Totals::new(args.max_ledger_ranges), &metrics);

    let address = SocketAddr::new(args.serve.listen_address, args.http_port);
    let listener = flowctl_runtime::bind(address, "the totals").await?;
    // Serves to the end of the process, so that the last totals can be read while the rest drains.
    let mut http = JoinSet::new();
    let totals = routes(sink.clone());
    http.spawn(async move { axum::serve(listener, totals).await });

    // For a control plane, if there is one.
    let registration = Registration::new(Role::Sink, name)
        .input_event_types(["stellar.token.transfer.v1"])
        .metadata(SinkMetadata {
            output_formats: vec!["api".to_owned()],
            api: Some(format!("http://localhost:{}/totals", args.http_port)),
            ..SinkMetadata::default()
        });
    let service = Service::consumer(sink)
        .name(name, version)
        .metrics(&metrics)
        .registration(registration);
    Ok(service.run_with(&args.serve).await)
}
