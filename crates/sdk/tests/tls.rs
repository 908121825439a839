//! TLS and mutual TLS, with certificates made for the test.

mod common;

use std::path::Path;

use common::{args, process, start, within};
use flowctl_proto::pipeline::v1::processor_service_client::ProcessorServiceClient;
use flowctl_sdk::{BoxError, ClientAuth, Message, Outcome, Processor, ServeArgs, ServeError, Service, TlsArgs};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

struct Echo;

impl Processor for Echo {
    async fn process(&self, message: Message) -> Result<Outcome, BoxError> {
        Ok(Outcome::Forward {
            payload: message.payload,
            metadata: message.metadata,
        })
    }
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

struct Pair {
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    fn issue(&self, name: &str) -> Pair {
        let params = CertificateParams::new(vec![name.to_owned()]).expect("params");
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Pair {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }
}

fn tls_args(dir: &Path, pair: &Pair, authority: &Authority, client_auth: ClientAuth) -> ServeArgs {
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("write");
        Some(path.into_os_string())
    };
    ServeArgs {
        tls: TlsArgs {
            tls_cert: file("tls.crt", &pair.cert),
            tls_key: file("tls.key", &pair.key),
            tls_ca: file("ca.crt", &authority.0.pem()),
            tls_client_auth: client_auth,
        },
        ..args()
    }
}

async fn call(port: u16, tls: ClientTlsConfig) -> Result<(), BoxError> {
    let uri = format!("https://localhost:{port}");
    let channel: Channel = within(Endpoint::from_shared(uri)?.tls_config(tls)?.connect()).await?;
    let mut client = ProcessorServiceClient::new(channel);
    let answer = within(client.process(process("t", "1"))).await?.into_inner();
    assert_eq!(answer.payload, "1");
    Ok(())
}

// Messages must not be readable on the way, nor go to somebody else.
#[tokio::test]
async fn only_a_client_that_trusts_the_server_connects() {
    let (authority, dir) = (Authority::new(), TempDir::new().expect("a folder"));
    let pair = authority.issue("localhost");
    let settings = tls_args(dir.path(), &pair, &authority, ClientAuth::None);
    let running = start(Service::processor(Echo), &settings).await;
    let trusting =
        |authority: &Authority| ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.0.pem()));
    call(running.grpc.port(), trusting(&authority)).await.expect("a call");
    call(running.grpc.port(), trusting(&Authority::new()))
        .await
        .expect_err("another authority");
    let plain = Endpoint::from_shared(format!("http://{}", running.grpc)).expect("a URI");
    let mut client = ProcessorServiceClient::new(plain.connect_lazy());
    within(client.process(process("t", "1"))).await.expect_err("plaintext");
}

// With client certificates required, nobody else may send messages.
#[tokio::test]
async fn only_a_client_with_a_certificate_connects() {
    let (authority, dir) = (Authority::new(), TempDir::new().expect("a folder"));
    let pair = authority.issue("localhost");
    let settings = tls_args(dir.path(), &pair, &authority, ClientAuth::Required);
    let running = start(Service::processor(Echo), &settings).await;
    let trusting = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.0.pem()));
    let with = |pair: Pair| trusting().identity(Identity::from_pem(pair.cert, pair.key));
    let port = running.grpc.port();
    call(port, with(authority.issue("pipeline"))).await.expect("a call");
    call(port, trusting()).await.expect_err("no certificate");
    call(port, with(Authority::new().issue("pipeline")))
        .await
        .expect_err("another authority");
}

// A service that silently starts in plaintext is worse than one that does not start.
#[tokio::test]
async fn half_a_setting_is_refused() {
    let (authority, dir) = (Authority::new(), TempDir::new().expect("a folder"));
    let pair = authority.issue("localhost");
    let whole = tls_args(dir.path(), &pair, &authority, ClientAuth::Required);
    let refused = async |change: fn(&mut TlsArgs)| {
        let mut settings = whole.clone();
        change(&mut settings.tls);
        let bound = Service::processor(Echo).bind(&settings).await;
        bound.err().expect("refused")
    };
    let error = refused(|tls| tls.tls_key = None).await;
    assert!(matches!(error, ServeError::TlsSettings(_)), "{error}");
    let error = refused(|tls| tls.tls_ca = Some("".into())).await;
    assert!(matches!(error, ServeError::TlsSettings(_)), "{error}");
    let error = refused(|tls| tls.tls_key = Some("/nowhere/tls.key".into())).await;
    assert!(error.to_string().contains("/nowhere/tls.key"), "{error}");
    let error = refused(|tls| tls.tls_key.clone_from(&tls.tls_cert)).await;
    assert!(matches!(error, ServeError::TlsContent(_)), "{error}");
}
