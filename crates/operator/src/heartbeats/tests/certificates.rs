//! Certificates, shown and asked for.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::*;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).expect("an authority");
        Self {
            pem: cert.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for `localhost`, and its key.
    fn issue(&self, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.extended_key_usages = vec![usage];
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        (cert.pem(), key.serialize_pem())
    }
}

fn put(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    path
}

// Whoever protects a control plane with certificates must find the operator's own shown, and nobody else's believed.
#[tokio::test]
async fn certificates_are_shown_and_asked_for() -> Result<()> {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (cert, key) = authority.issue(ExtendedKeyUsagePurpose::ServerAuth);
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(cert, key))
        .client_ca_root(Certificate::from_pem(&authority.pem));
    let (server, _) = beating(Script {
        tls: Some(tls),
        ..Script::default()
    })?;
    let endpoint = format!("localhost:{}", server.address().port());
    let folder = tempfile::tempdir().map_err(Error::io("make a directory"))?;
    let (cert, key) = authority.issue(ExtendedKeyUsagePurpose::ClientAuth);
    let shown = HeartbeatOptions {
        files: ClientFiles {
            cert: Some(put(folder.path(), "tls.crt", &cert)),
            key: Some(put(folder.path(), "tls.key", &key)),
        },
        ..HeartbeatOptions::default()
    };
    let trusting = |authority: &Authority| {
        Some(ControlPlaneTls {
            secret_name: None,
            ca_bundle: Some(authority.pem.clone()),
        })
    };
    let asking = async |options: &HeartbeatOptions, trusted: Option<ControlPlaneTls>| {
        let (hub, _queue) = hub(options);
        drop(hub.look(&subject("one"), Some(asked(&endpoint, trusted))));
        let plane = only(&hub);
        wait::until("it is good or lost", LIMIT, async || {
            plane.pass_time();
            Ok(match plane.state() {
                PlaneState::Good => Some(true),
                PlaneState::Unreachable { .. } => Some(false),
                PlaneState::Connecting | PlaneState::Reset | PlaneState::Suspect { .. } => None,
            })
        })
        .await
    };
    assert!(asking(&shown, trusting(&authority)).await?);
    let nothing = HeartbeatOptions::default();
    let (unshown, unknown) = tokio::join!(
        asking(&nothing, trusting(&authority)),
        asking(&shown, trusting(&stranger))
    );
    assert!(!unshown?, "a client without a certificate");
    assert!(!unknown?, "a server of another authority");
    Ok(())
}
