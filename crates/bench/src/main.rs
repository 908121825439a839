//! The bare loop: sends recorded requests to an apiserver, a fixed number at a time, and does nothing else. What it takes
//! is what the apiserver takes.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use flowctl_bench::{Recorded, Sent, usage::Usage};
use futures::{StreamExt as _, stream};
use http::{Request, header::CONTENT_TYPE};
use kube::{Client, Config};

/// Sends the requests of a file to the apiserver of KUBECONFIG and prints, as JSON, what it took.
#[derive(Debug, clap::Parser)]
struct Args {
    /// A file with one request in each line
    requests: PathBuf,
    /// Requests that are on their way at the same time
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
}

/// Refusals that are told.
const TOLD: usize = 10;

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    // Fails only when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::infer()
        .await
        .context("cannot find out how to reach the apiserver")?;
    config.default_retry = false;
    let client = Client::try_from(config).context("cannot make a client")?;
    let text = fs::read_to_string(&args.requests)
        .with_context(|| format!("cannot read the requests in {}", args.requests.display()))?;
    let requests = text.lines().map(request).collect::<Result<Vec<_>>>()?;
    drop(text);

    let begun = Instant::now();
    let answers = stream::iter(requests).map(|request| send(&client, request));
    let answers: Vec<_> = answers.buffer_unordered(args.in_flight.max(1)).collect().await;
    let seconds = begun.elapsed().as_secs_f64();

    let (done, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    let sent = Sent {
        requests: done.len(),
        bytes: done.into_iter().flatten().sum(),
        seconds,
        refused: refused.into_iter().filter_map(Result::err).take(TOLD).collect(),
        usage: Usage::of(std::process::id()).context("cannot read what this process used")?,
    };
    println!("{}", serde_json::to_string(&sent)?);
    Ok(())
}

fn request(line: &str) -> Result<Request<Vec<u8>>> {
    let recorded: Recorded = serde_json::from_str(line).context("cannot read a recorded request")?;
    let builder = Request::builder().method(recorded.method.as_str()).uri(recorded.path);
    let request = builder
        .header(CONTENT_TYPE, recorded.content_type)
        .body(recorded.body.into_bytes());
    request.context("cannot make a recorded request")
}

/// Gives the size of the body, or the refusal in words.
async fn send(client: &Client, request: Request<Vec<u8>>) -> Result<usize, String> {
    let (size, what) = (
        request.body().len(),
        format!("{} {}", request.method(), request.uri().path()),
    );
    match client.request_text(request).await {
        Ok(_) => Ok(size),
        Err(error) => Err(format!("{what}: {error}")),
    }
}
