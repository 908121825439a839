//! TLS towards a peer: who trusts whom, and certificates that are replaced while messages wait.
//! Without these a pipeline would talk to anybody, or would have to be restarted for every new
//! certificate.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod peer;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use flowctl_bridge::{CallMode, Endpoint, Outcome, Role, Settings, TlsFiles};
use flowctl_proto::pipeline::v1::consumer_service_server::{ConsumerService, ConsumerServiceServer};
use flowctl_proto::pipeline::v1::*;
use peer::{Rig, request, settings, until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

fn write(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

struct Sink;

#[tonic::async_trait]
impl ConsumerService for Sink {
    type StreamConsumeStream = tokio_stream::Empty<Result<ConsumeResponse, Status>>;

    async fn consume(&self, request: Request<ConsumeRequest>) -> Result<Response<ConsumeResponse>, Status> {
        Ok(Response::new(ConsumeResponse {
            trace_id: request.into_inner().trace_id,
            status: ConsumptionStatus::Success.into(),
            ..Default::default()
        }))
    }

    async fn stream_consume(
        &self,
        _: Request<Streaming<ConsumeRequest>>,
    ) -> Result<Response<Self::StreamConsumeStream>, Status> {
        Err(Status::unimplemented("no streams"))
    }

    async fn health_check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse::default()))
    }
}

/// A consumer named `sink.test` that asks for a client certificate.
async fn sink(server: &Authority, clients: &Authority) -> SocketAddr {
    let (certificate, key) = server.issue("sink.test");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(clients.0.pem()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder()
        .tls_config(tls)
        .unwrap()
        .add_service(ConsumerServiceServer::new(Sink))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(async move { server.await.unwrap() });
    address
}

fn over_tls(address: SocketAddr, mode: CallMode, tls: TlsFiles) -> Settings {
    Settings {
        endpoint: Endpoint::parse(&address.to_string()).unwrap().with_tls(),
        tls,
        ..settings("unused:1", mode)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_go_only_to_a_peer_that_is_trusted_and_new_files_are_noticed() {
    let (ours, theirs, dir) = (Authority::new(), Authority::new(), TempDir::new().unwrap());
    let address = sink(&theirs, &ours).await;
    let (certificate, key) = ours.issue("pipeline");
    // The wrong authority at first: the peer could be anybody.
    let ca_file = write(&dir, "ca.crt", &ours.0.pem());
    let files = TlsFiles {
        ca_file: Some(ca_file.clone()),
        cert_file: Some(write(&dir, "tls.crt", &certificate)),
        key_file: Some(write(&dir, "tls.key", &key)),
        server_name: Some("sink.test".to_owned()),
    };
    let rig = Rig::new(Role::Consumer, over_tls(address, CallMode::Unary, files));
    let held = rig.caller.submit(request(0, 8)).await;
    until("the certificate is refused", || {
        rig.caller.complaints().contains("invalid peer certificate")
    })
    .await;
    std::fs::write(&ca_file, theirs.0.pem()).unwrap();
    assert_eq!(held.outcome().await.unwrap(), Outcome::Consumed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_another_name_is_refused() {
    let (authority, dir) = (Authority::new(), TempDir::new().unwrap());
    let address = sink(&authority, &authority).await;
    let (certificate, key) = authority.issue("pipeline");
    let files = TlsFiles {
        ca_file: Some(write(&dir, "ca.crt", &authority.0.pem())),
        cert_file: Some(write(&dir, "tls.crt", &certificate)),
        key_file: Some(write(&dir, "tls.key", &key)),
        server_name: None,
    };
    let rig = Rig::new(Role::Consumer, over_tls(address, CallMode::Unary, files));
    let _held = rig.caller.submit(request(0, 8)).await;
    until("the name is refused", || {
        rig.caller.complaints().contains("not valid for name")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_streams_is_told_as_such() {
    let (authority, dir) = (Authority::new(), TempDir::new().unwrap());
    let address = sink(&authority, &authority).await;
    let (certificate, key) = authority.issue("pipeline");
    let files = TlsFiles {
        ca_file: Some(write(&dir, "ca.crt", &authority.0.pem())),
        cert_file: Some(write(&dir, "tls.crt", &certificate)),
        key_file: Some(write(&dir, "tls.key", &key)),
        server_name: Some("sink.test".to_owned()),
    };
    let rig = Rig::new(Role::Consumer, over_tls(address, CallMode::Streaming, files));
    let error = rig.run(1).await.remove(0).unwrap_err();
    assert!(error.to_string().contains("use_streaming: false"), "{error}");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_told_at_start() {
    let dir = TempDir::new().unwrap();
    let start = |tls: TlsFiles| {
        let identity = flowctl_bridge::Identity {
            step: "sink".to_owned(),
            role: Role::Consumer,
        };
        let settings = over_tls("127.0.0.1:1".parse().unwrap(), CallMode::Unary, tls);
        flowctl_bridge::Caller::start(identity, settings, &flowctl_bridge::Metrics::default())
            .map(drop)
            .unwrap_err()
            .to_string()
    };
    let missing = TlsFiles {
        ca_file: Some(Path::new("/nowhere/ca.crt").into()),
        ..TlsFiles::default()
    };
    assert!(start(missing).contains("/nowhere/ca.crt"));
    let half = TlsFiles {
        cert_file: Some(write(&dir, "tls.crt", "x")),
        ..TlsFiles::default()
    };
    assert!(start(half).contains("belong together"));
    let garbage = TlsFiles {
        ca_file: Some(write(&dir, "ca.crt", "not a certificate")),
        ..TlsFiles::default()
    };
    assert!(start(garbage).contains("no CERTIFICATE"));
}
