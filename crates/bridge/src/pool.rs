//! The addresses behind an endpoint's name: resolved again and again, checked for health, and
//! handed out to calls. Each address has two connections, one for messages and one for health
//! checks, so that a slow stream cannot make its peer look dead. It knows nothing of messages.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tonic::transport::Channel;
use tracing::{info, warn};

use crate::dialect::Dialect;
use crate::endpoint::{Endpoint, Scheme};
use crate::health::{Gate, Health, Probe, probe};
use crate::metrics::StepMetrics;
use crate::tls::{Material, TlsError, TlsFiles};

/// Names are resolved at least this often; the system's resolver does not tell a TTL.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// Pace of checks while a peer is not settled.
const UNSETTLED_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two rounds, however often they are asked for.
const SHORTEST_ROUND: Duration = Duration::from_millis(200);
/// How long an address that refused a connection is passed over while others serve.
const COOL_DOWN: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// gRPC servers punish pings that come more often than every five minutes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(310);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The peers of one external step.
#[derive(Debug)]
pub(crate) struct Pool {
    step: String,
    endpoint: Endpoint,
    files: TlsFiles,
    metrics: StepMetrics,
    peers: Mutex<Vec<Arc<Peer>>>,
    turn: AtomicUsize,
    gate: watch::Sender<Gate>,
    look_again: Notify,
}

/// One address.
#[derive(Debug)]
pub(crate) struct Peer {
    address: SocketAddr,
    messages: Channel,
    control: Channel,
    under_way: AtomicUsize,
    state: Mutex<PeerState>,
}

#[derive(Debug)]
struct PeerState {
    health: Health,
    next_probe: Instant,
    cool_until: Option<Instant>,
    last_answer: Option<Instant>,
    complaint: Option<String>,
}

/// A peer that was picked for a call or a stream; dropping it says that the call is over.
#[derive(Debug)]
pub(crate) struct Lease {
    peer: Arc<Peer>,
}

// === impl Pool ===

impl Pool {
    pub(crate) fn new(step: &str, endpoint: Endpoint, files: TlsFiles, metrics: StepMetrics) -> Self {
        Self {
            step: step.to_owned(),
            endpoint,
            files,
            metrics,
            peers: Mutex::default(),
            turn: AtomicUsize::new(0),
            gate: watch::Sender::new(Gate::Waiting),
            look_again: Notify::new(),
        }
    }

    /// Whether the TLS files can be used at all; told at start, not at the first message.
    pub(crate) fn check_tls(&self) -> Result<(), TlsError> {
        let material = self.material()?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], self.endpoint.port()));
        self.channel(nowhere, material.as_ref()).map(drop)
    }

    pub(crate) fn gate(&self) -> watch::Receiver<Gate> {
        self.gate.subscribe()
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.gate.borrow() == Gate::Open
    }

    /// Waits for a healthy peer: the place where messages are held.
    pub(crate) async fn lease(&self) -> Lease {
        let mut gate = self.gate.subscribe();
        loop {
            gate.borrow_and_update();
            if let Some(lease) = self.pick() {
                return lease;
            }
            if gate.changed().await.is_err() {
                // The sender is ours and outlives us; never reached.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The serving peer with the fewest calls under way; equals take turns.
    fn pick(&self) -> Option<Lease> {
        let now = Instant::now();
        let peers = self.peers();
        let serving: Vec<_> = peers.iter().filter(|peer| peer.state().health.is_serving()).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = serving.len().max(1);
        let (_, peer) = serving.iter().enumerate().min_by_key(|(index, peer)| {
            let cooling = peer.state().cool_until.is_some_and(|until| until > now);
            let busy = peer.under_way.load(Ordering::Relaxed);
            (cooling, busy, (index + count - turn % count) % count)
        })?;
        peer.under_way.fetch_add(1, Ordering::Relaxed);
        Some(Lease { peer: Arc::clone(peer) })
    }

    /// A connection to the peer failed or broke: look at names and health now.
    pub(crate) fn suspect(&self, lease: &Lease) {
        let now = Instant::now();
        let mut state = lease.peer.state();
        state.cool_until = Some(now + COOL_DOWN);
        state.next_probe = now;
        drop(state);
        self.look_again.notify_one();
    }

    /// Resolves and checks for as long as the step lives.
    pub(crate) async fn watch<D: Dialect>(&self, interval: Duration) {
        let mut loaded: Option<Material> = None;
        let mut resolved_at: Option<Instant> = None;
        let mut forced = true;
        loop {
            let due = resolved_at.is_none_or(|at| at.elapsed() >= RESOLVE_EVERY);
            if due || forced || self.peers().is_empty() {
                self.resolve(&mut loaded).await;
                resolved_at = Some(Instant::now());
            }
            self.check_due::<D>(interval).await;
            self.publish();
            let round = Instant::now();
            forced = tokio::select! {
                () = tokio::time::sleep(self.until_next_check(interval)) => false,
                () = self.look_again.notified() => true,
            };
            tokio::time::sleep_until(round + SHORTEST_ROUND).await;
        }
    }

    async fn resolve(&self, loaded: &mut Option<Material>) {
        let found = tokio::net::lookup_host((self.endpoint.host(), self.endpoint.port())).await;
        let found: BTreeSet<SocketAddr> = match found {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                // What was known before stays in use: a resolver that hiccups is not a dead peer.
                warn!(step = self.step, endpoint = %self.endpoint, %error, "cannot resolve the endpoint's name; will try again");
                return;
            }
        };
        let material = match self.material() {
            Ok(material) => material,
            Err(error) => {
                warn!(step = self.step, %error, "keeping the TLS files that were read before");
                loaded.clone()
            }
        };
        let renewed = *loaded != material;
        loaded.clone_from(&material);
        let mut peers = self.peers();
        peers.retain(|peer| found.contains(&peer.address));
        for address in found {
            let known = peers.iter().position(|peer| peer.address == address);
            if known.is_some() && !renewed {
                continue;
            }
            match Peer::connect(self, address, material.as_ref()) {
                Ok(mut peer) => match known.and_then(|index| peers.get_mut(index)) {
                    Some(old) => {
                        // New certificates, same peer: what is known about its health stays true.
                        peer.state = Mutex::new(old.state().renewed());
                        *old = Arc::new(peer);
                    }
                    None => peers.push(Arc::new(peer)),
                },
                Err(error) => warn!(step = self.step, %address, %error, "cannot use an address"),
            }
        }
    }

    fn material(&self) -> Result<Option<Material>, TlsError> {
        match self.endpoint.scheme() {
            Scheme::Plain => Ok(None),
            Scheme::Tls => self.files.load().map(Some),
        }
    }

    fn channel(&self, address: SocketAddr, material: Option<&Material>) -> Result<Channel, TlsError> {
        let unusable = |reason: String| TlsError::Unusable {
            endpoint: self.endpoint.to_string(),
            reason,
        };
        let host = self.endpoint.host();
        let shown_host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let scheme = material.map_or("http", |_| "https");
        let origin = format!("{scheme}://{shown_host}:{}", self.endpoint.port())
            .parse()
            .map_err(|error: http::uri::InvalidUri| unusable(error.to_string()))?;
        let refuse = |error: tonic::transport::Error| unusable(chain(&error));
        let mut endpoint = tonic::transport::Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(refuse)?
            .origin(origin)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            // A ledger is a megabyte; the default window would stop it sixteen times.
            .initial_stream_window_size(4 * 1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024);
        if let Some(material) = material {
            endpoint = endpoint.tls_config(material.client_config(host)).map_err(refuse)?;
        }
        Ok(endpoint.connect_lazy())
    }

    async fn check_due<D: Dialect>(&self, interval: Duration) {
        let now = Instant::now();
        let due: Vec<_> = self
            .peers()
            .iter()
            .filter(|peer| peer.state().next_probe <= now)
            .cloned()
            .collect();
        let checks = due.iter().map(|peer| peer.check::<D>(&self.step, interval));
        join_all(checks).await;
    }

    fn until_next_check(&self, interval: Duration) -> Duration {
        let now = Instant::now();
        let peers = self.peers();
        let next = peers.iter().map(|peer| peer.state().next_probe).min();
        next.map_or(UNSETTLED_INTERVAL.min(interval), |next| {
            next.saturating_duration_since(now)
        })
    }

    fn publish(&self) {
        let serving = self
            .peers()
            .iter()
            .filter(|peer| peer.state().health.is_serving())
            .count();
        self.metrics.addresses(serving);
        let step = &self.step;
        let before = *self.gate.borrow();
        let after = match (serving, before) {
            (0, Gate::Waiting) => Gate::Waiting,
            (0, Gate::Open | Gate::Closed) => Gate::Closed,
            (_, Gate::Waiting | Gate::Open | Gate::Closed) => Gate::Open,
        };
        match (before, after) {
            (Gate::Open, Gate::Closed) => {
                let complaints = self.complaints();
                warn!(step, endpoint = %self.endpoint, complaints, "no healthy peer; messages are held");
            }
            (Gate::Waiting | Gate::Closed, Gate::Open) => {
                info!(step, endpoint = %self.endpoint, serving, "messages flow");
            }
            _ => {}
        }
        // Sent even when equal: a new peer may have appeared for whoever waits.
        self.gate.send_replace(after);
    }

    /// Why nothing is serving, for people.
    pub(crate) fn complaints(&self) -> String {
        let peers = self.peers();
        if peers.is_empty() {
            return format!("the name {} has no addresses", self.endpoint.host());
        }
        let complaints: Vec<String> = peers
            .iter()
            .filter_map(|peer| {
                let complaint = peer.state().complaint.clone()?;
                Some(format!("{}: {complaint}", peer.address))
            })
            .collect();
        complaints.join("; ")
    }

    fn peers(&self) -> MutexGuard<'_, Vec<Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with its causes: transports hide the reason behind "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

// === impl Peer ===

impl Peer {
    fn connect(pool: &Pool, address: SocketAddr, material: Option<&Material>) -> Result<Self, TlsError> {
        Ok(Self {
            address,
            messages: pool.channel(address, material)?,
            control: pool.channel(address, material)?,
            under_way: AtomicUsize::new(0),
            state: Mutex::new(PeerState {
                health: Health::default(),
                next_probe: Instant::now(),
                cool_until: None,
                last_answer: None,
                complaint: None,
            }),
        })
    }

    async fn check<D: Dialect>(&self, step: &str, interval: Duration) {
        let asked = Instant::now();
        let result = probe::<D>(self.control.clone()).await;
        let mut state = self.state();
        match result {
            Probe::Up => {
                state.health.hit();
                state.complaint = None;
                if state.cool_until.is_some_and(|until| until > asked) {
                    state.cool_until = None;
                }
            }
            // A peer whose threads are all busy cannot answer a check, but it answers messages.
            Probe::Silent if state.last_answer.is_some_and(|at| at >= asked) => {}
            Probe::Silent => {
                state.health.miss();
                state.complaint = Some("no answer to the health check".to_owned());
            }
            Probe::Down(reason) => {
                state.health.miss();
                if state.complaint.as_ref() != Some(&reason) {
                    info!(step, address = %self.address, reason, "health check failed");
                }
                state.complaint = Some(reason);
            }
        }
        let pace = if state.health.is_unsettled() {
            interval.min(UNSETTLED_INTERVAL)
        } else {
            interval
        };
        state.next_probe = Instant::now() + pace;
    }

    fn state(&self) -> MutexGuard<'_, PeerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl PeerState ===

impl PeerState {
    fn renewed(&self) -> Self {
        Self {
            health: self.health,
            next_probe: Instant::now(),
            cool_until: self.cool_until,
            last_answer: self.last_answer,
            complaint: self.complaint.clone(),
        }
    }
}

// === impl Lease ===

impl Lease {
    pub(crate) fn channel(&self) -> Channel {
        self.peer.messages.clone()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.peer.address
    }

    /// The peer answered a message: it lives, whatever health checks say.
    pub(crate) fn answered(&self) {
        self.peer.state().last_answer = Some(Instant::now());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.peer.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
