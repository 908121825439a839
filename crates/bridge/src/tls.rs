//! TLS towards an external step: which files, and what is in them. Files are re-read while the
//! step runs, because Kubernetes replaces mounted certificates under a running process.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// Files and names for TLS towards one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities that are trusted, PEM. When left out: the system's own, or where the system has
    /// none (a small image), those that Mozilla trusts, as of when this was built.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain, PEM; together with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// Client private key, PEM; together with `cert_file`.
    pub key_file: Option<PathBuf>,
    /// Name that the server's certificate must carry, when it is not the endpoint's host.
    pub server_name: Option<String>,
}

/// Why TLS files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read the TLS file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is not PEM, or has nothing of what it should have.
    #[error("the TLS file {path} has no {wanted} in PEM form; it must begin with -----BEGIN {wanted}-----")]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What it should have.
        wanted: &'static str,
    },
    /// A certificate without its key, or the other way round.
    #[error("tls.cert_file and tls.key_file belong together; set both or none")]
    HalfIdentity,
    /// A file is readable but not what it should be.
    #[error("the TLS files for {endpoint} cannot be used: {reason}")]
    Unusable {
        /// The endpoint they are for.
        endpoint: String,
        /// What is wrong with them.
        reason: String,
    },
}

/// The content of the files at one moment.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Material {
    trust: Trust,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    server_name: Option<String>,
}

/// Whose signatures are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Trust {
    /// The system's authorities.
    #[default]
    System,
    /// Those that came with the program.
    BuiltIn,
    /// These, PEM.
    Only(Vec<u8>),
}

// === impl TlsFiles ===

impl TlsFiles {
    /// Reads the files. Blocks: small files, but without `ca_file` the system's authorities are read, too.
    ///
    /// # Errors
    /// When a file cannot be read or is not what it should be.
    pub fn load(&self) -> Result<Material, TlsError> {
        let identity = match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => Some((certificates(cert)?, private_key(key)?)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(TlsError::HalfIdentity),
        };
        Ok(Material {
            trust: match &self.ca_file {
                Some(path) => Trust::Only(certificates(path)?),
                None if rustls_native_certs::load_native_certs().certs.is_empty() => Trust::BuiltIn,
                None => Trust::System,
            },
            identity,
            server_name: self.server_name.clone(),
        })
    }
}

/// A file with at least one certificate. Without this check a file with none would be taken as
/// "trust nobody", and the step would wait for ever.
fn certificates(path: &Path) -> Result<Vec<u8>, TlsError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    if found.is_ok_and(|found| !found.is_empty()) {
        return Ok(text);
    }
    Err(TlsError::NotPem {
        path: path.to_owned(),
        wanted: "CERTIFICATE",
    })
}

fn private_key(path: &Path) -> Result<Vec<u8>, TlsError> {
    let text = read(path)?;
    if PrivateKeyDer::from_pem_slice(&text).is_ok() {
        return Ok(text);
    }
    Err(TlsError::NotPem {
        path: path.to_owned(),
        wanted: "PRIVATE KEY",
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

// === impl Material ===

impl Material {
    /// Trusts these authorities (PEM) and no others.
    #[must_use]
    pub fn trusting(mut self, pem: &str) -> Self {
        self.trust = Trust::Only(pem.into());
        self
    }

    /// The settings of a connection to that host.
    #[must_use]
    pub fn client_config(&self, host: &str) -> ClientTlsConfig {
        let name = self.server_name.as_deref().unwrap_or(host);
        let mut config = ClientTlsConfig::new().domain_name(name);
        config = match &self.trust {
            Trust::Only(pem) => config.ca_certificate(Certificate::from_pem(pem)),
            // An empty system store is an error of the transport.
            Trust::System => config.with_native_roots(),
            Trust::BuiltIn => config.with_webpki_roots(),
        };
        if let Some((cert, key)) = &self.identity {
            config = config.identity(Identity::from_pem(cert, key));
        }
        config
    }
}
