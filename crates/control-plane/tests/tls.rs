//! TLS and mutual TLS, and certificates that are renewed under the running server.

#[path = "support/certificates.rs"]
mod certificates;
mod support;

use std::path::Path;

use certificates::{Authority, Certificate, put};
use flowctl_control_plane::{ServeError, Server, ServerArgs, TlsArgs};
use flowctl_proto::flowctl::v1;
use flowctl_proto::flowctl::v1::control_plane_service_client::ControlPlaneServiceClient;
use rustls::pki_types::pem::PemObject as _;
use support::{Running, args, metric, start, until};
use tonic::transport::{Certificate as Trusted, ClientTlsConfig, Endpoint, Identity};

fn with_tls(folder: &Path, certificate: &Certificate, client_ca: Option<&Authority>) -> ServerArgs {
    ServerArgs {
        tls: TlsArgs {
            tls_cert: Some(put(folder, "tls.crt", &certificate.cert)),
            tls_key: Some(put(folder, "tls.key", &certificate.key)),
            tls_ca_cert: client_ca.map(|ca| put(folder, "ca.crt", &ca.pem)),
        },
        ..args()
    }
}

/// Whether a new connection that trusts the authority, and shows the certificate, can call.
async fn can_call(server: &Running, trusted: &Authority, shown: Option<&Certificate>) -> bool {
    let mut tls = ClientTlsConfig::new()
        .domain_name("localhost")
        .ca_certificate(Trusted::from_pem(&trusted.pem));
    if let Some(shown) = shown {
        tls = tls.identity(Identity::from_pem(&shown.cert, &shown.key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", server.address)).expect("an address");
    let channel = endpoint.tls_config(tls).expect("usable").connect_lazy();
    let request = v1::ListComponentsRequest::default();
    ControlPlaneServiceClient::new(channel)
        .list_components(request)
        .await
        .is_ok()
}

// Renewed certificates must count without a restart, which would end everybody's streams; a broken file must not end the
// service that the old one still gives.
#[tokio::test]
async fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server = start(with_tls(folder.path(), &old.server(), None)).await;
    assert!(can_call(&server, &old, None).await);
    assert!(!can_call(&server, &new, None).await);

    put(
        folder.path(),
        "tls.crt",
        "-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n",
    );
    let broken = "flowctl_control_plane_tls_files_broken ";
    until("the broken file to be seen", async || {
        (metric(server.admin, broken).await == Some(1.0)).then_some(())
    })
    .await;
    assert!(can_call(&server, &old, None).await);

    // A new certificate before its key, as it can be seen for a moment.
    let renewed = new.server();
    put(folder.path(), "tls.crt", &renewed.cert);
    assert!(can_call(&server, &old, None).await);
    put(folder.path(), "tls.key", &renewed.key);
    until("the new certificate", async || {
        can_call(&server, &new, None).await.then_some(())
    })
    .await;
    assert!(!can_call(&server, &old, None).await);
    assert_eq!(metric(server.admin, broken).await, Some(0.0));
    server.stop().await;
}

// curl and browsers speak HTTP/1.1 or 2 over TLS, on the same port.
#[tokio::test]
async fn pages_are_served_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new("authority");
    let server = start(with_tls(folder.path(), &authority.server(), None)).await;
    let mut roots = rustls::RootCertStore::empty();
    let pem = rustls::pki_types::CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("a certificate");
    roots.add(pem).expect("an authority");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_http1()
        .build();
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build::<_, http_body_util::Empty<bytes::Bytes>>(connector);
    let page = format!("https://localhost:{}/api/services", server.address.port());
    let answer = client.get(page.parse().expect("an address")).await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), answer.version()),
        (200, http::Version::HTTP_11)
    );
    server.stop().await;
}

// With an authority for clients, nobody else gets in, over gRPC or over HTTP; and authorities can be replaced, too.
#[tokio::test]
async fn mutual_tls_lets_only_its_own_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let (servers, clients, others) = (
        Authority::new("servers"),
        Authority::new("clients"),
        Authority::new("others"),
    );
    let server = start(with_tls(folder.path(), &servers.server(), Some(&clients))).await;
    assert!(can_call(&server, &servers, Some(&clients.client())).await);
    assert!(!can_call(&server, &servers, Some(&others.client())).await);
    assert!(!can_call(&server, &servers, None).await);

    put(folder.path(), "ca.crt", &others.pem);
    let other = others.client();
    until("the other authority", async || {
        can_call(&server, &servers, Some(&other)).await.then_some(())
    })
    .await;
    assert!(!can_call(&server, &servers, Some(&clients.client())).await);
    server.stop().await;
}

// A server that was to speak TLS must never start without it.
#[tokio::test]
async fn settings_that_cannot_work_end_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new("authority");
    let (one, other) = (authority.server(), authority.server());
    let good = with_tls(folder.path(), &one, Some(&authority));
    let path = |name: &str, content: &str| Some(put(folder.path(), name, content));
    for (what, tls) in [
        (
            "no key",
            TlsArgs {
                tls_key: None,
                ..good.tls.clone()
            },
        ),
        (
            "no certificate",
            TlsArgs {
                tls_cert: None,
                ..good.tls.clone()
            },
        ),
        (
            "authorities alone",
            TlsArgs {
                tls_cert: None,
                tls_key: None,
                ..good.tls.clone()
            },
        ),
        (
            "no file",
            TlsArgs {
                tls_cert: Some(folder.path().join("nowhere")),
                ..good.tls.clone()
            },
        ),
        (
            "no PEM",
            TlsArgs {
                tls_cert: path("a", "rubbish"),
                ..good.tls.clone()
            },
        ),
        (
            "a certificate for a key",
            TlsArgs {
                tls_key: path("b", &one.cert),
                ..good.tls.clone()
            },
        ),
        (
            "another's key",
            TlsArgs {
                tls_key: path("c", &other.key),
                ..good.tls.clone()
            },
        ),
        (
            "no authorities",
            TlsArgs {
                tls_ca_cert: path("d", ""),
                ..good.tls.clone()
            },
        ),
    ] {
        let bound = Server::new(ServerArgs { tls, ..args() }).bind().await;
        assert!(matches!(bound.err(), Some(ServeError::Tls(_))), "{what}");
    }
}
