//! What tonic takes for a beat: the messages of the control plane are decoded and answered, and nothing else is done.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::Request as HttpRequest;
use clap::Parser as _;
use flowctl_bench::beats::Way;
use flowctl_proto::flowctl::registry::v1::{Heartbeat, HeartbeatAck};
use flowctl_proto::flowctl::v1::HeartbeatRequest;
use futures::stream;
use tonic::server::{Grpc, UnaryService};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

/// Serves heartbeats and forgets them.
#[derive(Debug, clap::Parser)]
struct Args {
    /// Where to listen
    #[arg(long)]
    address: SocketAddr,
}

/// Takes a beat and says nothing.
#[derive(Clone, Copy)]
struct Silent;

/// Takes a beat and sends it back.
#[derive(Clone, Copy)]
struct Echo;

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let unary = service_fn(async |request: HttpRequest| {
        let codec = ProstCodec::<(), HeartbeatRequest>::default();
        Ok::<_, Infallible>(Grpc::new(codec).unary(Silent, request).await)
    });
    let echo = service_fn(async |request: HttpRequest| {
        let codec = ProstCodec::<HeartbeatRequest, HeartbeatRequest>::default();
        Ok::<_, Infallible>(Grpc::new(codec).unary(Echo, request).await)
    });
    let streamed = service_fn(async |request: HttpRequest| {
        let codec = ProstCodec::<HeartbeatAck, Heartbeat>::default();
        Ok::<_, Infallible>(Grpc::new(codec).streaming(service_fn(count), request).await)
    });
    let router = Router::new()
        .route_service(Way::Unary.path(), unary)
        .route_service(Way::Echo.path(), echo)
        .route_service(Way::Streamed.path(), streamed);
    let server = Server::builder().add_routes(Routes::from(router).prepare());
    server.serve(args.address).await.context("cannot serve")
}

/// Counts the beats of a stream, and tells how many there were.
async fn count(
    request: Request<Streaming<Heartbeat>>,
) -> Result<Response<stream::BoxStream<'static, Result<HeartbeatAck, Status>>>, Status> {
    let mut beats = request.into_inner();
    let counted = async move {
        let mut accepted = 0;
        while beats.message().await?.is_some() {
            accepted += 1;
        }
        Ok(HeartbeatAck {
            accepted,
            ..HeartbeatAck::default()
        })
    };
    Ok(Response::new(Box::pin(stream::once(counted))))
}

impl UnaryService<HeartbeatRequest> for Silent {
    type Response = ();
    type Future = Ready<Result<Response<()>, Status>>;

    fn call(&mut self, _: Request<HeartbeatRequest>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

impl UnaryService<HeartbeatRequest> for Echo {
    type Response = HeartbeatRequest;
    type Future = Ready<Result<Response<HeartbeatRequest>, Status>>;

    fn call(&mut self, request: Request<HeartbeatRequest>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}
