//! Plays a flowctl control plane over real gRPC on loopback: the Go server with all that was observed of it, one that
//! speaks the legacy dialect alone, or one with our change stream. A test plays the components, too (it registers and
//! beats for them), and says how the server fares: well, hanging, refusing, talking rubbish, slow, killed, back with or
//! without its memory. It is no second registry: what a reader of evidence does not ask for is not here.

mod book;
mod dialects;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use flowctl_proto::flowctl::{
    ServiceInfo,
    control_plane_server::ControlPlaneServer,
    registry::v1::registry_service_server::RegistryServiceServer,
    v1::{ComponentInfo, RegisterRequest, control_plane_service_server::ControlPlaneServiceServer},
};
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Status,
    service::Routes,
    transport::{Server, ServerTlsConfig},
};

pub use flowctl_proto::flowctl::v1::HealthStatus;

use self::book::Book;
use crate::{Error, Result};

/// Which services the server has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// `flowctl.v1` and `flowctl`, as the Go server.
    #[default]
    Go,
    /// `flowctl` alone, with lists that are filled.
    Legacy,
    /// The change stream of `flowctl.registry.v1` beside both.
    Ours,
}

/// How the server answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// At once.
    #[default]
    Well,
    /// Never; open streams fall silent.
    Hangs,
    /// With this error; open streams end with it.
    Refuses(Code),
    /// Lists hold what no server should answer.
    Rubbish,
    /// After this time.
    Slow(Duration),
}

/// What a server has kept when it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Everything, with the old times of beats.
    Kept,
    /// Nothing.
    Lost,
}

/// How the server is set up.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its services.
    pub dialect: Dialect,
    /// Silence after which its janitor says UNHEALTHY.
    pub ttl: Duration,
    /// Time between two beats of the components that keep beating.
    pub beat_every: Duration,
    /// What the change stream says about its memory.
    pub is_persistent: bool,
    /// TLS of its port; plain without it.
    pub tls: Option<ServerTlsConfig>,
}

/// The server. Dropping it breaks every connection, as a kill does.
#[derive(Debug)]
pub struct FakeControlPlane {
    address: SocketAddr,
    shared: Shared,
    tls: Option<ServerTlsConfig>,
    beat_every: Duration,
    running: Mutex<Option<Runtime>>,
}

/// What the services share; it survives a kill.
#[derive(Clone, Debug)]
struct Shared {
    dialect: Dialect,
    is_persistent: bool,
    book: Arc<Mutex<Book>>,
    beating: Arc<Mutex<BTreeMap<String, HealthStatus>>>,
    mood: Arc<Mutex<Mood>>,
    calls: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    instance: Arc<AtomicU64>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            dialect: Dialect::Go,
            ttl: Duration::from_secs(30),
            beat_every: Duration::from_secs(1),
            is_persistent: false,
            tls: None,
        }
    }
}

// === impl FakeControlPlane ===

impl FakeControlPlane {
    /// Starts a server on a free port of the loopback.
    ///
    /// # Errors
    /// When there is no port or no thread for it.
    pub fn start(script: Script) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(Error::io("listen on the loopback"))?;
        let address = listener.local_addr().map_err(Error::io("ask for the port"))?;
        let shared = Shared {
            dialect: script.dialect,
            is_persistent: script.is_persistent,
            book: Arc::new(Mutex::new(Book::new(script.ttl))),
            beating: Arc::default(),
            mood: Arc::default(),
            calls: Arc::default(),
            instance: Arc::default(),
        };
        let this = Self {
            address,
            shared,
            tls: script.tls,
            beat_every: script.beat_every,
            running: Mutex::default(),
        };
        this.serve(listener)?;
        Ok(this)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it at once; components that keep beating are not heard until it is back.
    pub fn kill(&self) {
        if let Some(runtime) = lock(&self.running).take() {
            // Until its port is free; on a thread of its own, because a runtime may not end another one.
            let ended = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5)));
            let _ = ended.join();
        }
    }

    /// Starts it again on its port, as another process.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn restart(&self, memory: Memory) -> Result<()> {
        self.kill();
        match memory {
            Memory::Kept => {}
            Memory::Lost => self.shared.book().forget_everything(),
        }
        let listener = TcpListener::bind(self.address).map_err(Error::io("listen on the same port again"))?;
        self.serve(listener)
    }

    /// How it answers from now on.
    pub fn set_mood(&self, mood: Mood) {
        *lock(&self.shared.mood) = mood;
    }

    /// Sets its clock ahead of this machine's.
    pub fn set_clock_ahead(&self, ahead: Duration) {
        self.shared.book().clock_ahead = ahead;
    }

    /// Registers a component under this id, as a current client does; `address` is where it calls from.
    pub fn register(&self, id: &str, address: Option<IpAddr>) {
        self.register_named(id, "", address);
    }

    /// Likewise, with a name for people; gives the id that it beats with, which the server makes when there is none.
    pub fn register_named(&self, id: &str, name: &str, address: Option<IpAddr>) -> String {
        let request = RegisterRequest {
            component: Some(ComponentInfo {
                id: id.to_owned(),
                name: name.to_owned(),
                ..ComponentInfo::default()
            }),
            component_id: id.to_owned(),
        };
        self.shared.book().register(request, address)
    }

    /// Registers a service in the words of the legacy dialect; gives the id that it beats with.
    pub fn register_legacy(&self, info: ServiceInfo) -> String {
        self.shared.book().register_legacy(info, None)
    }

    /// Takes a component out.
    pub fn unregister(&self, id: &str) {
        lock(&self.shared.beating).remove(id);
        self.shared.book().unregister(id);
    }

    /// One beat. UNKNOWN is what most real clients say, and all of the legacy dialect.
    ///
    /// # Errors
    /// When nobody has registered under the id, with the server's words.
    pub fn beat(&self, id: &str, status: HealthStatus) -> Result<(), Status> {
        self.shared.book().beat(id, status, BTreeMap::new())
    }

    /// One beat with measurements.
    ///
    /// # Errors
    /// Likewise.
    pub fn beat_with(&self, id: &str, metrics: &[(&str, &str)]) -> Result<(), Status> {
        let pairs = metrics
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        self.shared.book().beat(id, HealthStatus::Unknown, pairs.collect())
    }

    /// From now on these beat by themselves, with this status, for as long as the server lives and knows them.
    pub fn keep_beating<S: Into<String>>(&self, ids: impl IntoIterator<Item = S>, status: HealthStatus) {
        let ids = ids.into_iter().map(|id| (id.into(), status));
        lock(&self.shared.beating).extend(ids);
    }

    /// From now on this one does not beat by itself.
    pub fn silence(&self, id: &str) {
        lock(&self.shared.beating).remove(id);
    }

    /// The ids that are registered.
    pub fn registered(&self) -> BTreeSet<String> {
        self.shared.book().services().keys().cloned().collect()
    }

    /// How often each call was made over the network, by its name; legacy Heartbeat is `legacy Heartbeat`.
    pub fn calls(&self) -> BTreeMap<&'static str, usize> {
        lock(&self.shared.calls).clone()
    }

    fn serve(&self, listener: TcpListener) -> Result<()> {
        self.shared.instance.fetch_add(1, Ordering::Relaxed);
        let mut routes = Routes::default().add_service(ControlPlaneServer::new(self.shared.clone()));
        match self.shared.dialect {
            Dialect::Legacy => {}
            Dialect::Go => routes = routes.add_service(ControlPlaneServiceServer::new(self.shared.clone())),
            Dialect::Ours => {
                routes = routes
                    .add_service(ControlPlaneServiceServer::new(self.shared.clone()))
                    .add_service(RegistryServiceServer::new(self.shared.clone()));
            }
        }
        let mut server = Server::builder();
        if let Some(tls) = &self.tls {
            let unusable =
                |error: tonic::transport::Error| Error::impossible(format!("cannot use these files: {error}"));
            server = server.tls_config(tls.clone()).map_err(unusable)?;
        }
        let server = server.add_routes(routes);
        listener
            .set_nonblocking(true)
            .map_err(Error::io("prepare the listener"))?;
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(Error::io("make a runtime"))?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(Error::io("prepare the listener"))?
        };
        runtime.spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await });
        let (shared, mut ticks) = (self.shared.clone(), {
            let _entered = runtime.enter();
            tokio::time::interval(self.beat_every)
        });
        runtime.spawn(async move {
            loop {
                ticks.tick().await;
                shared.beat_all();
            }
        });
        *lock(&self.running) = Some(runtime);
        Ok(())
    }
}

impl Drop for FakeControlPlane {
    fn drop(&mut self) {
        self.kill();
    }
}

// === impl Shared ===

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    fn mood(&self) -> Mood {
        *lock(&self.mood)
    }

    fn talks_rubbish(&self) -> bool {
        self.mood() == Mood::Rubbish
    }

    fn instance(&self) -> String {
        format!("process-{}", self.instance.load(Ordering::Relaxed))
    }

    /// Who is not registered is not heard, and does not mind.
    fn beat_all(&self) {
        let beating = lock(&self.beating).clone();
        let mut book = self.book();
        for (id, status) in beating {
            let _ = book.beat(&id, status, BTreeMap::new());
        }
    }

    /// Counts a call, and answers it as the server fares.
    async fn called(&self, name: &'static str) -> Result<(), Status> {
        *lock(&self.calls).entry(name).or_default() += 1;
        match self.mood() {
            Mood::Well | Mood::Rubbish => Ok(()),
            Mood::Hangs => pending().await,
            Mood::Refuses(code) => Err(Status::new(code, "refused")),
            Mood::Slow(delay) => {
                tokio::time::sleep(delay).await;
                Ok(())
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
