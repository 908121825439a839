//! TLS of the gRPC port, from files that a Secret volume or a person puts there. They are read again while the server
//! runs, because certificates are renewed under a running process: what is new counts for new connections, and files that
//! cannot be used change nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at. They are small, and a kubelet takes up to a minute to bring new ones.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Which files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// With it, only clients that show a certificate of these authorities may connect.
    pub(crate) client_ca: Option<PathBuf>,
}

/// Why TLS files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate without its key, a key without its certificate, or client authorities without both.
    #[error("{given} needs {missing}, too; set both, or neither")]
    Half {
        /// The flag that is set.
        given: &'static str,
        /// The flag that is not.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {what} {path}: {source}")]
    Read {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A file holds nothing of what it should.
    #[error("{what} {path} has no {wanted} in PEM form; it must begin with -----BEGIN {wanted}-----")]
    NotPem {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The PEM label.
        wanted: &'static str,
    },
    /// The files do not go together.
    #[error("cannot use the certificate {cert} with the key {key}: {source}")]
    Unusable {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
    /// The authorities cannot be used.
    #[error("cannot use the client authorities in {path}: {reason}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// TLS as the files have it now.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsFiles,
    seen: Contents,
    current: watch::Sender<Arc<ServerConfig>>,
}

/// Gives the present TLS settings to new connections.
#[derive(Clone, Debug)]
pub(crate) struct CurrentTls(watch::Receiver<Arc<ServerConfig>>);

/// What a look at the files found.
#[derive(Debug)]
pub(crate) enum Look {
    Same,
    Replaced,
    /// The old settings stay. Told once for each content of the files.
    Broken(TlsError),
}

/// The bytes of the files; an unreadable file has none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Contents {
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

const CERT: &str = "the certificate (--tls-cert)";
const KEY: &str = "the key (--tls-key)";
const CLIENT_CA: &str = "the client authorities (--tls-ca-cert)";

// === impl TlsFiles ===

impl TlsFiles {
    /// The files that the flags name; `None` for plaintext.
    pub(crate) fn from_flags(
        cert: Option<&Path>,
        key: Option<&Path>,
        client_ca: Option<&Path>,
    ) -> Result<Option<Self>, TlsError> {
        match (cert, key, client_ca) {
            (Some(cert), Some(key), client_ca) => Ok(Some(Self {
                cert: cert.to_owned(),
                key: key.to_owned(),
                client_ca: client_ca.map(Path::to_owned),
            })),
            (None, None, None) => Ok(None),
            (Some(_), None, _) => Err(TlsError::Half {
                given: "--tls-cert",
                missing: "--tls-key",
            }),
            (None, Some(_), _) => Err(TlsError::Half {
                given: "--tls-key",
                missing: "--tls-cert",
            }),
            (None, None, Some(_)) => Err(TlsError::Half {
                given: "--tls-ca-cert",
                missing: "--tls-cert and --tls-key",
            }),
        }
    }

    fn contents(&self) -> Contents {
        Contents {
            cert: fs::read(&self.cert).ok(),
            key: fs::read(&self.key).ok(),
            client_ca: self.client_ca.as_ref().and_then(|path| fs::read(path).ok()),
        }
    }

    fn load(&self) -> Result<ServerConfig, TlsError> {
        let chain = certificates(CERT, &self.cert)?;
        let key = private_key(&self.key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unusable = |source| TlsError::Unusable {
            cert: self.cert.clone(),
            key: self.key.clone(),
            source,
        };
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let config = match &self.client_ca {
            None => config.with_no_client_auth(),
            Some(path) => {
                let refused = |reason: String| TlsError::Authorities {
                    path: path.clone(),
                    reason,
                };
                let mut roots = RootCertStore::empty();
                for authority in certificates(CLIENT_CA, path)? {
                    roots.add(authority).map_err(|error| refused(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| refused(error.to_string()))?;
                config.with_client_cert_verifier(verifier)
            }
        };
        let mut config = config.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read {
        what,
        path: path.to_owned(),
        source,
    })
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(what, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| TlsError::NotPem {
            what,
            path: path.to_owned(),
            wanted: "CERTIFICATE",
        })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(KEY, path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsError::NotPem {
        what: KEY,
        path: path.to_owned(),
        wanted: "PRIVATE KEY",
    })
}

// === impl Tls ===

impl Tls {
    /// Reads the files for the first time.
    pub(crate) fn open(files: TlsFiles) -> Result<Self, TlsError> {
        // Before they are parsed: a change in between is then seen at the next look.
        let seen = files.contents();
        let config = files.load()?;
        Ok(Self {
            files,
            seen,
            current: watch::Sender::new(Arc::new(config)),
        })
    }

    pub(crate) fn current(&self) -> CurrentTls {
        CurrentTls(self.current.subscribe())
    }

    /// Reads the files again; blocks for as long as the disk takes.
    pub(crate) fn look(&mut self) -> Look {
        let now = self.files.contents();
        if now == self.seen {
            return Look::Same;
        }
        self.seen = now;
        match self.files.load() {
            Ok(config) => {
                self.current.send_replace(Arc::new(config));
                Look::Replaced
            }
            Err(error) => Look::Broken(error),
        }
    }
}

// === impl CurrentTls ===

impl CurrentTls {
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.borrow()))
    }
}
