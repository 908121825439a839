//! Starts a service on free loopback ports and talks to it as any gRPC client does.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use flowctl_proto::MAX_MESSAGE_BYTES;
use flowctl_proto::pipeline::v1::consumer_service_client::ConsumerServiceClient;
use flowctl_proto::pipeline::v1::processor_service_client::ProcessorServiceClient;
use flowctl_proto::pipeline::v1::{ConsumeRequest, ProcessRequest};
use flowctl_runtime::Shutdown;
use flowctl_sdk::{ServeArgs, ServeError, Service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// Longer than anything takes that works.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct Running {
    pub grpc: SocketAddr,
    pub health: SocketAddr,
    pub shutdown: Shutdown,
    pub ended: JoinHandle<Result<(), ServeError>>,
}

pub fn args() -> ServeArgs {
    ServeArgs {
        port: 0,
        health_port: 0,
        listen_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        ..ServeArgs::default()
    }
}

pub async fn start(service: Service, args: &ServeArgs) -> Running {
    let bound = service.bind(args).await.expect("free ports");
    let (grpc, health) = (bound.grpc_address(), bound.health_address());
    let shutdown = Shutdown::new();
    let ended = tokio::spawn(bound.serve(shutdown.clone()));
    Running {
        grpc,
        health,
        shutdown,
        ended,
    }
}

impl Running {
    pub async fn channel(&self) -> Channel {
        let uri = format!("http://{}", self.grpc);
        Endpoint::from_shared(uri)
            .expect("a URI")
            .connect()
            .await
            .expect("connect")
    }

    pub async fn processor(&self) -> ProcessorServiceClient<Channel> {
        ProcessorServiceClient::new(self.channel().await)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(2 * MAX_MESSAGE_BYTES)
    }

    pub async fn consumer(&self) -> ConsumerServiceClient<Channel> {
        ConsumerServiceClient::new(self.channel().await)
    }

    /// Status line, headers and body of one HTTP GET on the health port.
    pub async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.health).await.expect("connect");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    }

    /// Waits for the end of the service.
    pub async fn end(self) -> Result<(), ServeError> {
        self.shutdown.request();
        within(self.ended).await.expect("no panic")
    }
}

/// What `future` gives, before the deadline.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("an answer before the deadline")
}

pub fn process(trace_id: &str, payload: &str) -> ProcessRequest {
    ProcessRequest {
        trace_id: trace_id.to_owned(),
        payload: payload.to_owned().into(),
        ..ProcessRequest::default()
    }
}

pub fn consume(trace_id: &str, payload: &str) -> ConsumeRequest {
    ConsumeRequest {
        trace_id: trace_id.to_owned(),
        payload: payload.to_owned().into(),
        ..ConsumeRequest::default()
    }
}
