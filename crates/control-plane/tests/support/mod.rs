//! A server in this process, on free ports of the loopback, and clients of every dialect.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use flowctl_control_plane::{ServeError, Server, ServerArgs};
use flowctl_proto::flowctl::control_plane_client::ControlPlaneClient;
use flowctl_proto::flowctl::registry::v1::registry_service_client::RegistryServiceClient;
use flowctl_proto::flowctl::v1::control_plane_service_client::ControlPlaneServiceClient;
use flowctl_proto::flowctl::{self as legacy, v1};
use flowctl_runtime::Shutdown;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// Nothing takes longer, unless something is wrong.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) type Legacy = ControlPlaneClient<Channel>;
pub(crate) type V1 = ControlPlaneServiceClient<Channel>;
pub(crate) type Ours = RegistryServiceClient<Channel>;

/// A running server.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<Result<(), ServeError>>,
}

/// Settings for tests: free ports, nothing on disk.
pub(crate) fn args() -> ServerArgs {
    ServerArgs {
        port: 0,
        admin_port: 0,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        ..ServerArgs::default()
    }
}

pub(crate) async fn start(args: ServerArgs) -> Running {
    run(Server::new(args)).await
}

pub(crate) async fn run(server: Server) -> Running {
    let bound = server.bind().await.expect("the server binds");
    let shutdown = Shutdown::new();
    Running {
        address: bound.address(),
        admin: bound.admin_address(),
        shutdown: shutdown.clone(),
        task: tokio::spawn(bound.serve(shutdown)),
    }
}

// === impl Running ===

impl Running {
    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address))
            .expect("an address")
            .connect_lazy()
    }

    pub(crate) fn legacy(&self) -> Legacy {
        ControlPlaneClient::new(self.channel())
    }

    pub(crate) fn v1(&self) -> V1 {
        ControlPlaneServiceClient::new(self.channel())
    }

    pub(crate) fn ours(&self) -> Ours {
        RegistryServiceClient::new(self.channel())
    }

    /// Whether it still serves: what every hostile input must leave true.
    pub(crate) async fn assert_alive(&self) {
        self.v1()
            .list_components(v1::ListComponentsRequest::default())
            .await
            .expect("the server serves on");
        assert!(!self.task.is_finished());
    }

    pub(crate) async fn stop(self) {
        self.shutdown.request();
        let ended = tokio::time::timeout(LIMIT, self.task).await.expect("it ends in time");
        ended.expect("it does not panic").expect("it ends well");
    }
}

/// A v1 component with an id.
pub(crate) fn component(id: &str) -> v1::ComponentInfo {
    v1::ComponentInfo {
        id: id.to_owned(),
        r#type: v1::ComponentType::Processor.into(),
        ..v1::ComponentInfo::default()
    }
}

pub(crate) fn register(component: v1::ComponentInfo) -> v1::RegisterRequest {
    v1::RegisterRequest {
        component: Some(component),
        component_id: String::new(),
    }
}

pub(crate) fn v1_beat(id: &str, status: v1::HealthStatus, metrics: &[(&str, &str)]) -> v1::HeartbeatRequest {
    v1::HeartbeatRequest {
        service_id: id.to_owned(),
        status: status.into(),
        metrics: metrics
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

pub(crate) fn legacy_beat(id: &str, metrics: &[(&str, f64)]) -> legacy::ServiceHeartbeat {
    legacy::ServiceHeartbeat {
        service_id: id.to_owned(),
        timestamp: None,
        metrics: metrics
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect(),
    }
}

pub(crate) fn which(id: &str) -> v1::ComponentStatusRequest {
    v1::ComponentStatusRequest {
        service_id: id.to_owned(),
    }
}

/// Waits until `look` gives something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {LIMIT:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A GET over HTTP/1.1, or over HTTP/2 without TLS.
pub(crate) async fn get(address: SocketAddr, path: &str, is_http2: bool) -> (u16, String) {
    let client: Client<_, Full<bytes::Bytes>> = Client::builder(TokioExecutor::new()).http2_only(is_http2).build_http();
    let uri = format!("http://{address}{path}").parse().expect("an address");
    let answer = client.get(uri).await.expect("an answer");
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// The value of the first metric whose line begins so.
pub(crate) async fn metric(admin: SocketAddr, line: &str) -> Option<f64> {
    let (_, text) = get(admin, "/metrics", false).await;
    let found = text.lines().find_map(|one| one.strip_prefix(line))?;
    found.trim().parse().ok()
}
