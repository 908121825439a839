//! TLS of the gRPC port, from files that a Secret volume or a person puts there. They are read once, at the start.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::ServeError;

/// The settings; without certificate and key the port is plaintext. A variable that is empty counts as not set.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// File with the server's certificate chain (PEM)
    #[arg(long, env = "FLOWCTL_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<OsString>,

    /// File with the key of the server's certificate (PEM)
    #[arg(long, env = "FLOWCTL_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<OsString>,

    /// File with the authorities whose client certificates are accepted (PEM)
    #[arg(long, env = "FLOWCTL_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<OsString>,

    /// Whether a client must show a certificate; required needs the authorities
    #[arg(long, env = "FLOWCTL_TLS_CLIENT_AUTH", default_value = "none", ignore_case = true)]
    pub tls_client_auth: ClientAuth,
}

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ClientAuth {
    /// Anybody who reaches the port may call.
    #[default]
    None,
    /// Only who shows a certificate of the given authorities (mutual TLS).
    Required,
}

/// What a peer must do to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Speak plaintext.
    Plaintext,
    /// Speak TLS.
    Tls,
    /// Speak TLS and show a certificate.
    Mutual,
}

// === impl TlsArgs ===

impl TlsArgs {
    /// What these settings ask of a peer.
    #[must_use]
    pub fn mode(&self) -> TlsMode {
        match (given(&self.tls_cert), self.tls_client_auth) {
            (None, _) => TlsMode::Plaintext,
            (Some(_), ClientAuth::None) => TlsMode::Tls,
            (Some(_), ClientAuth::Required) => TlsMode::Mutual,
        }
    }

    /// Reads the files; `None` for plaintext.
    pub(crate) fn load(&self) -> Result<Option<ServerTlsConfig>, ServeError> {
        let (cert, key) = match (given(&self.tls_cert), given(&self.tls_key)) {
            (Some(cert), Some(key)) => (cert, key),
            (None, None) if self.tls_client_auth == ClientAuth::Required => {
                return Err(ServeError::TlsSettings(
                    "client certificates are required and the server has none; set FLOWCTL_TLS_CERT and FLOWCTL_TLS_KEY",
                ));
            }
            (None, None) => return Ok(None),
            _ => {
                return Err(ServeError::TlsSettings(
                    "a certificate needs its key; set both FLOWCTL_TLS_CERT and FLOWCTL_TLS_KEY, or neither",
                ));
            }
        };
        let cert = read("the certificate (FLOWCTL_TLS_CERT)", cert)?;
        let key = read("the key (FLOWCTL_TLS_KEY)", key)?;
        let config = ServerTlsConfig::new().identity(Identity::from_pem(cert, key));
        match (self.tls_client_auth, given(&self.tls_ca)) {
            // The authorities are also there to check servers; without the demand they are not for clients.
            (ClientAuth::None, _) => Ok(Some(config)),
            (ClientAuth::Required, Some(ca)) => {
                let ca = read("the client authorities (FLOWCTL_TLS_CA)", ca)?;
                Ok(Some(config.client_ca_root(Certificate::from_pem(ca))))
            }
            (ClientAuth::Required, None) => Err(ServeError::TlsSettings(
                "client certificates are required and no authority is given; set FLOWCTL_TLS_CA",
            )),
        }
    }
}

fn given(file: &Option<OsString>) -> Option<&Path> {
    file.as_deref().filter(|file| !file.is_empty()).map(Path::new)
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ServeError> {
    fs::read(path).map_err(|source| ServeError::TlsFile {
        what,
        path: path.to_owned(),
        source,
    })
}
