//! Why the server cannot start, or ended.

use std::path::PathBuf;

use flowctl_runtime::BindError;

use super::tls::TlsError;
use crate::store::StoreError;

/// Why the server cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A port cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The file of the registry cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nowhere to keep the registry.
    #[error(
        "cannot tell where to keep the registry: HOME is not set; name a file with --db-path, or use --no-persistence"
    )]
    NoHome,
    /// The folder for the registry cannot be made.
    #[error(
        "cannot make the folder {path} for the registry: {source}; name a file with --db-path, or use --no-persistence"
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Tokens are to be checked, and there is nobody to ask.
    #[error("cannot check tokens (--identity): {0}; use --identity off outside a cluster")]
    NoReviewer(String),
    /// The secret of alerts cannot be read.
    #[error("cannot read the secret of alerts {path} (--alert-secret-file): {source}")]
    AlertSecret {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The secret of alerts is empty.
    #[error("the secret of alerts {0} (--alert-secret-file) is empty; write at least 16 random characters into it")]
    EmptyAlertSecret(PathBuf),
    /// Alerts cannot call anybody.
    #[error("cannot set up the calls of alerts: {0}")]
    Webhooks(String),
    /// A part of the server cannot be made from what was compiled in.
    #[error("cannot offer gRPC reflection: {0}")]
    Reflection(String),
    /// The server ended unasked.
    #[error("the server ended without being asked: {0}")]
    Transport(String),
}
