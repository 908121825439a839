//! The three protocols, on one registry. Nothing is decided here but who may ask: what a call means is the registry's.

mod current;
mod heartbeats;
mod legacy;
mod ours;
mod read;
mod show;
mod watch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use flowctl_proto::flowctl::control_plane_server::ControlPlaneServer;
use flowctl_proto::flowctl::registry::v1::registry_service_server::RegistryServiceServer;
use flowctl_proto::flowctl::v1::HealthStatus;
use flowctl_proto::flowctl::v1::control_plane_service_server::ControlPlaneServiceServer;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::alerts::Alerts;
use crate::identity::{Caller, Guard};
use crate::metrics::BeatMetrics;
use crate::registry::{self, Beat, Registration, Registry, RegistryError, Service, Value};
use show::IdentityShown;

/// What every call needs, shared by clones.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) registry: Arc<Registry>,
    pub(crate) guard: Guard,
    pub(crate) alerts: Alerts,
    pub(crate) beats: BeatMetrics,
    /// `host:port` that clients are told.
    pub(crate) advertised: Option<String>,
    /// Cancelled when streams are to end.
    pub(crate) stopping: CancellationToken,
    pub(crate) lists: Lists,
    pub(crate) watches: Arc<Semaphore>,
}

/// Reading the whole registry takes memory and a processor: few may do so at a time, and never on a thread that beats
/// wait for. Large answers take memory until their reader has them, so these are bounded, too.
#[derive(Clone, Debug)]
pub(crate) struct Lists {
    places: Arc<Semaphore>,
    /// In KiB.
    unsent: Arc<Semaphore>,
}

/// The room that an answer takes until it is sent: an extension of the response, which the layer around every call ties to its bytes.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "it is held, not read")]
pub(crate) struct Unsent(Arc<OwnedSemaphorePermit>);

/// The gRPC services of all three protocols.
struct Protocols(Shared);

/// Where a call came from.
struct Origin {
    caller: Caller,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
}

/// Lists at a time.
const LISTS: usize = 4;
/// KiB of answers that are not sent yet, and of those that take no room of it.
const UNSENT: u32 = 64 * 1024;
const SMALL: u32 = 64;
/// Watches that are open at a time: each begins with the ids of all that it is to send.
pub(crate) const WATCHES: usize = 512;

/// The protocols, mounted.
pub(crate) fn routes(shared: Shared, most_bytes: usize) -> Routes {
    let one = Arc::new(Protocols(shared));
    Routes::new(ControlPlaneServer::from_arc(Arc::clone(&one)).max_decoding_message_size(most_bytes))
        .add_service(ControlPlaneServiceServer::from_arc(Arc::clone(&one)).max_decoding_message_size(most_bytes))
        .add_service(RegistryServiceServer::from_arc(one).max_decoding_message_size(most_bytes))
}

// === impl Lists ===

impl Default for Lists {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(LISTS)),
            unsent: Arc::new(Semaphore::new(UNSENT as usize)),
        }
    }
}

impl Lists {
    /// Reads something large.
    pub(crate) async fn read<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
        let failed = |_| Status::internal("the registry cannot be read");
        let _place = self
            .places
            .acquire()
            .await
            .map_err(|_| Status::unavailable("the control plane is stopping"))?;
        tokio::task::spawn_blocking(read).await.map_err(failed)
    }

    /// Room for an answer of so many bytes; `None` for a small one, which always finds some. One that is larger than all the room
    /// takes all of it.
    pub(crate) fn unsent(&self, bytes: usize) -> Result<Option<Unsent>, Status> {
        let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).min(UNSENT);
        if kib <= SMALL {
            return Ok(None);
        }
        match Arc::clone(&self.unsent).try_acquire_many_owned(kib) {
            Ok(permit) => Ok(Some(Unsent(Arc::new(permit)))),
            Err(_) => Err(Status::resource_exhausted(
                "too many large answers are being read; try again later, or ask for less",
            )),
        }
    }

    /// The answer, with the room that it takes.
    fn answer<T: Message>(&self, answer: T) -> Result<Response<T>, Status> {
        let unsent = self.unsent(answer.encoded_len())?;
        let mut response = Response::new(answer);
        if let Some(unsent) = unsent {
            response.extensions_mut().insert(unsent);
        }
        Ok(response)
    }
}

// === impl Shared ===

impl Shared {
    fn shown(&self) -> IdentityShown {
        match self.guard.is_off() {
            true => IdentityShown::No,
            false => IdentityShown::Yes,
        }
    }

    /// Every service for which `show` has something, sorted by id.
    async fn list<T: Send + 'static>(
        &self,
        show: impl Fn(&Service) -> Option<T> + Send + 'static,
    ) -> Result<Vec<T>, Status> {
        let registry = Arc::clone(&self.registry);
        self.lists
            .read(move || registry.list().iter().filter_map(show).collect())
            .await
    }

    /// Registers what a call asks for; returns the id.
    async fn register(&self, registration: Registration, from: &Origin) -> Result<String, Status> {
        let id = match registration.service_id.as_str() {
            "" => &registration.component_id,
            id => id,
        };
        let caller = registry::Caller {
            identity: self.guard.claim(&from.caller, id)?,
            peer: from.peer.map(|peer| peer.ip()),
        };
        Ok(self.registry.register(registration, caller).await?)
    }

    fn service(&self, id: &str) -> Result<Service, Status> {
        self.check_id("service_id", id)?;
        Ok(self.registry.get(id)?)
    }

    /// An id is there and is not longer than ids can be: what is longer is unknown for sure, and would come back whole in
    /// the error that says so.
    fn check_id(&self, what: &'static str, id: &str) -> Result<(), Status> {
        let limit = self.registry.limits().id_bytes;
        match id.len() {
            0 => Err(RegistryError::Missing(what).into()),
            found if found > limit => Err(RegistryError::TooLarge { what, found, limit }.into()),
            _ => Ok(()),
        }
    }

    async fn origin<T>(&self, request: &Request<T>) -> Result<Origin, Status> {
        Ok(Origin {
            caller: self.guard.caller(request.metadata()).await?,
            peer: request.remote_addr(),
            local: request.local_addr(),
        })
    }

    /// How to connect, as the existing server tells it: the advertised address, or the one that the caller used.
    fn connection_info(&self, from: &Origin) -> BTreeMap<String, String> {
        let address = self
            .advertised
            .clone()
            .or_else(|| from.local.map(|address| address.to_string()));
        let told = address.map(|address| ("control_plane_endpoint".to_owned(), address));
        told.into_iter().collect()
    }

    fn beat(
        &self,
        caller: &Caller,
        id: &str,
        status: HealthStatus,
        metrics: &[(&str, Value<'_>)],
    ) -> Result<(), Status> {
        self.check_id("service_id", id)?;
        let identity = self.guard.claim(caller, id)?;
        let beat = Beat {
            service_id: id,
            status,
            metrics,
        };
        let beaten = self
            .registry
            .heartbeat(&beat, registry::Caller { peer: None, identity })?;
        self.beats.beaten(&beaten);
        Ok(())
    }
}
