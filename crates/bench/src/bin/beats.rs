//! Sends heartbeats as fast as a server takes them, and prints, as JSON, how long that took.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use flowctl_bench::beats::{self, Beaten, Way};
use flowctl_proto::flowctl::registry::v1::HeartbeatAck;
use flowctl_proto::flowctl::registry::v1::registry_service_client::RegistryServiceClient;
use flowctl_proto::flowctl::v1::control_plane_service_client::ControlPlaneServiceClient;
use flowctl_proto::flowctl::v1::{ComponentInfo, HeartbeatRequest, RegisterRequest};
use futures::stream;
use http::uri::PathAndQuery;
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// Sends heartbeats of 8 metrics.
#[derive(Clone, Debug, clap::Parser)]
struct Args {
    /// The server
    address: SocketAddr,
    /// How they travel
    #[arg(long, value_enum)]
    way: Way,
    /// Heartbeats, of all services together
    #[arg(long)]
    beats: u64,
    /// Connections
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Calls of each connection that are on their way at the same time; a stream has no such number
    #[arg(long, default_value_t = 32)]
    in_flight: usize,
    /// Services that beat, a share of them on each connection
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Register the services before
    #[arg(long)]
    register: bool,
    /// Milliseconds between two beats of a stream; 0: none
    #[arg(long, default_value_t = 0)]
    pause: u64,
}

/// One connection's share.
#[derive(Clone)]
struct Share {
    channel: Channel,
    way: Way,
    beats: u64,
    services: std::ops::Range<usize>,
    pause: Duration,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let connections = args.connections.max(1);
    let endpoint = Endpoint::from_shared(format!("http://{}", args.address))?.tcp_nodelay(true);
    let mut shares = Vec::new();
    for number in 0..connections {
        let channel = endpoint
            .connect()
            .await
            .with_context(|| format!("cannot connect to {}", args.address))?;
        let of = |number: usize| args.services * number / connections;
        shares.push(Share {
            channel,
            way: args.way,
            beats: args.beats / connections as u64,
            services: of(number)..of(number + 1),
            pause: Duration::from_millis(args.pause),
        });
    }
    ensure!(
        shares.iter().all(|share| !share.services.is_empty()),
        "fewer services than connections"
    );
    if args.register {
        for share in &shares {
            register(share).await?;
        }
    }

    let begun = Instant::now();
    let mut all = JoinSet::new();
    for share in shares {
        all.spawn(async move {
            match share.way {
                Way::Unary => call::<()>(share, args.in_flight).await,
                Way::Echo => call::<HeartbeatRequest>(share, args.in_flight).await,
                Way::Streamed => stream_beats(share).await,
            }
        });
    }
    let beats = all.join_all().await.into_iter().sum::<Result<u64>>()?;
    let seconds = begun.elapsed().as_secs_f64();
    println!("{}", serde_json::to_string(&Beaten { beats, seconds })?);
    Ok(())
}

async fn register(share: &Share) -> Result<()> {
    let mut client = ControlPlaneServiceClient::new(share.channel.clone());
    for number in share.services.clone() {
        let component_id = beats::service_id(number);
        let component = Some(ComponentInfo::default());
        let request = RegisterRequest {
            component,
            component_id,
        };
        client.register_component(request).await.context("cannot register")?;
    }
    Ok(())
}

/// A call for each beat, whose answer is such a message.
async fn call<A: prost::Message + Default + 'static>(share: Share, in_flight: usize) -> Result<u64> {
    let each = share.beats / in_flight.max(1) as u64;
    let mut workers = JoinSet::new();
    for worker in 0..in_flight.max(1) {
        let Share {
            channel, way, services, ..
        } = share.clone();
        workers.spawn(async move {
            let mut grpc = Grpc::new(channel);
            let path = PathAndQuery::from_static(way.path());
            for round in 0..each {
                let service = services.start + (worker + round as usize * in_flight) % services.len();
                grpc.ready().await?;
                let codec = ProstCodec::<HeartbeatRequest, A>::default();
                let beat = Request::new(beats::unary(service, round));
                grpc.unary(beat, path.clone(), codec)
                    .await
                    .context("a beat was refused")?;
            }
            Ok(each)
        });
    }
    workers.join_all().await.into_iter().sum()
}

/// One stream; the last ack says how many were taken.
async fn stream_beats(share: Share) -> Result<u64> {
    let Share {
        beats, services, pause, ..
    } = share;
    let outgoing = stream::unfold(0, move |round| {
        let services = services.clone();
        async move {
            if !pause.is_zero() && round > 0 {
                tokio::time::sleep(pause).await;
            }
            let service = services.start + round as usize % services.len();
            (round < beats).then(|| (beats::streamed(service, round), round + 1))
        }
    });
    let mut client = RegistryServiceClient::new(share.channel);
    let mut acks = client.stream_heartbeats(outgoing).await?.into_inner();
    let mut accepted = 0;
    while let Some(HeartbeatAck {
        accepted: so_far,
        errors,
        ..
    }) = acks.message().await?
    {
        ensure!(errors.is_empty(), "beats were refused: {errors:?}");
        accepted = so_far;
    }
    ensure!(
        accepted == beats,
        Status::internal(format!("{accepted} of {beats} beats were taken"))
    );
    Ok(accepted)
}
