//! One connection to a control plane. It is made anew after every failure, so that certificates that were replaced
//! meanwhile are used, and a name that moved is looked up again.

use std::{path::PathBuf, time::Duration};

use flowctl_bridge::TlsFiles;
use flowctl_runtime::in_one_line;
use tonic::transport::{Channel, Endpoint};

use super::address::{Address, Trust};

/// To open a connection, TLS included; and for the answer to a ping of HTTP/2.
const CONNECT: Duration = Duration::from_secs(5);
/// Between two pings of HTTP/2 on a connection with an open call: a peer that went without a word is found out.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The certificate that the operator shows to control planes that ask for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// PEM file with the certificate chain; together with `key`.
    pub cert: Option<PathBuf>,
    /// PEM file with its key; together with `cert`.
    pub key: Option<PathBuf>,
}

/// Connects, or tells a person why not.
pub(super) async fn connect(address: &Address, files: &ClientFiles) -> Result<Channel, String> {
    let endpoint = prepare(address, files).await?;
    // The limit of the connection itself leaves out TLS.
    match tokio::time::timeout(CONNECT, endpoint.connect()).await {
        Ok(connected) => connected.map_err(|error| in_one_line(&error)),
        Err(_) => Err(format!("no connection within {} s", CONNECT.as_secs())),
    }
}

async fn prepare(address: &Address, files: &ClientFiles) -> Result<Endpoint, String> {
    let scheme = match address.trust {
        Trust::Plain => "http",
        Trust::System | Trust::Only(_) => "https",
    };
    let target = format!("{scheme}://{}", address.endpoint);
    let endpoint = Endpoint::from_shared(target).map_err(|error| in_one_line(&error))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(CONNECT);
    let bundle = match &address.trust {
        Trust::Plain => return Ok(endpoint),
        Trust::System => None,
        Trust::Only(pem) => Some(pem.clone()),
    };
    let files = TlsFiles {
        cert_file: files.cert.clone(),
        key_file: files.key.clone(),
        ..TlsFiles::default()
    };
    // Reading the system's authorities takes tens of milliseconds.
    let loaded = tokio::task::spawn_blocking(move || files.load()).await;
    let material = loaded.map_err(|error| in_one_line(&error))?;
    let material = material.map_err(|error| in_one_line(&error))?;
    let material = match bundle {
        Some(pem) => material.trusting(&pem),
        None => material,
    };
    // Another library of the program may have chosen already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let host = address.endpoint.rsplit_once(':').map_or("", |(host, _)| host);
    let config = material.client_config(host);
    endpoint.tls_config(config).map_err(|error| in_one_line(&error))
}
