//! From settings to the parts of the server.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flowctl_proto::FILE_DESCRIPTOR_SET;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::pb::health_server::HealthServer;

use super::error::ServeError;
use super::health::{PROTOCOLS, ProbeHealth};
use crate::alerts::Secret;
use crate::args::{LimitArgs, ServerArgs, StorageType};
use crate::grpc::{self, Shared};
use crate::http;
use crate::identity::{Guard, IdentityMode, KubeReviewer, Reviewer, Reviews};
use crate::limits::Limits;
use crate::registry::{Options, UnknownIds};
use crate::store::Storage;

/// Finds clients that went without a word. Pings of clients are always answered and never punished.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeepAlive {
    pub(super) after: Duration,
    pub(super) within: Duration,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            after: Duration::from_secs(30),
            within: Duration::from_secs(20),
        }
    }
}

/// For the headers of one call: a token has two thousand bytes.
const HEADER_BYTES: u32 = 32 * 1024;

/// Every protocol that is served.
pub(super) const DESCRIPTORS: &[&[u8]] = &[
    FILE_DESCRIPTOR_SET,
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
];

/// The transport: many small messages, and connections that live long.
pub(super) fn transport(limits: &LimitArgs, keep_alive: KeepAlive) -> Server {
    Server::builder()
        .accept_http1(true)
        .timeout(limits.call_timeout)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .http2_keepalive_interval(Some(keep_alive.after))
        .http2_keepalive_timeout(Some(keep_alive.within))
        .http2_max_header_list_size(HEADER_BYTES)
}

/// Everything that answers on the port.
pub(super) fn routes(shared: Shared, probes: &ProbeHealth, most_bytes: usize) -> Result<Routes, ServeError> {
    let failed = |error: tonic_reflection::server::Error| ServeError::Reflection(error.to_string());
    let reflection = || {
        let mut reflection = tonic_reflection::server::Builder::configure();
        for descriptors in DESCRIPTORS {
            reflection = reflection.register_encoded_file_descriptor_set(descriptors);
        }
        for name in PROTOCOLS.into_iter().chain(["grpc.health.v1.Health"]) {
            reflection = reflection.with_service_name(name);
        }
        reflection.include_reflection_service(false)
    };
    let pages = http::routes(Arc::clone(&shared.registry), shared.lists.clone());
    let calls = grpc::routes(shared, most_bytes)
        .add_service(HealthServer::new(probes.service()))
        .add_service(reflection().build_v1().map_err(failed)?)
        .add_service(reflection().build_v1alpha().map_err(failed)?);
    let all = calls.into_axum_router().merge(pages).fallback(http::nothing_here);
    Ok(Routes::from(all).prepare())
}

pub(super) fn registry_options(args: &ServerArgs) -> Result<Options, ServeError> {
    let storage = match (args.is_persistent(), &args.db_path) {
        (false, _) => Storage::Memory,
        (true, Some(path)) => Storage::File(path.clone()),
        (true, None) => Storage::File(default_path()?),
    };
    Ok(Options {
        ttl: args.heartbeat_ttl,
        retention: args.retention,
        unknown: match args.adopt_unknown {
            true => UnknownIds::Adopt,
            false => UnknownIds::Refuse,
        },
        storage,
        limits: Limits {
            services: args.limits.max_services,
            history_bytes: args.limits.history_bytes,
            ..Limits::default()
        },
    })
}

/// Beside the existing server's file, and not in its place: that one is of another format.
fn default_path() -> Result<PathBuf, ServeError> {
    let home = std::env::var_os("HOME")
        .filter(|home| !home.is_empty())
        .ok_or(ServeError::NoHome)?;
    let folder = PathBuf::from(home).join(".flowctl");
    fs::create_dir_all(&folder).map_err(|source| ServeError::Folder {
        path: folder.clone(),
        source,
    })?;
    Ok(folder.join("control-plane.redb"))
}

/// The mode, decided: tokens can be checked only where there is an apiserver to ask.
pub(super) fn identity_mode(args: &ServerArgs) -> IdentityMode {
    args.identity.unwrap_or_else(|| match is_in_cluster() {
        true => IdentityMode::Permissive,
        false => IdentityMode::Off,
    })
}

fn is_in_cluster() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty())
}

pub(super) fn guard(args: &ServerArgs, reviewer: Option<Arc<dyn Reviewer>>) -> Result<Guard, ServeError> {
    let mode = identity_mode(args);
    if mode == IdentityMode::Off {
        return Ok(Guard::new(mode, None));
    }
    let reviewer = match reviewer {
        Some(reviewer) => reviewer,
        None => in_cluster_reviewer()?,
    };
    Ok(Guard::new(
        mode,
        Some(Reviews::new(reviewer, args.token_audience.clone())),
    ))
}

fn in_cluster_reviewer() -> Result<Arc<dyn Reviewer>, ServeError> {
    let config = kube::Config::incluster().map_err(|error| ServeError::NoReviewer(error.to_string()))?;
    let reviewer = KubeReviewer::new(config).map_err(|error| ServeError::NoReviewer(error.to_string()))?;
    Ok(Arc::new(reviewer))
}

pub(super) fn alert_secret(path: &Path) -> Result<Secret, ServeError> {
    let read = fs::read_to_string(path).map_err(|source| ServeError::AlertSecret {
        path: path.to_owned(),
        source,
    })?;
    // An editor's last newline is no part of the secret.
    Secret::new(read.trim()).ok_or_else(|| ServeError::EmptyAlertSecret(path.to_owned()))
}

/// Published instructions pass a flag that the existing server never had, and name its store: to be told, not obeyed.
pub(super) fn note_storage_type(args: &ServerArgs) {
    match args.storage_type {
        Some(StorageType::Boltdb) => tracing::info!(
            "--storage-type boltdb is accepted and changes nothing: the registry is kept in a redb file (see --db-path)"
        ),
        Some(StorageType::Memory) => tracing::info!("--storage-type memory: nothing is kept on disk"),
        None => {}
    }
}
