//! One address behind an endpoint: its two connections, one for messages and one for health checks
//! (a slow stream must not make its peer look dead), its health, and how busy it is.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::transport::Channel;
use tracing::info;

use crate::dialect::Dialect;
use crate::endpoint::Endpoint;
use crate::health::{Health, Probe, probe};
use crate::tls::{Material, TlsError};

/// Pace of checks while something is about to change.
pub(crate) const URGENT_INTERVAL: Duration = Duration::from_secs(1);
/// How long an address that refused a connection is passed over while others serve.
const COOL_DOWN: Duration = Duration::from_secs(5);
/// Calls under way at one address. A peer that shares its cores among all of them must get through
/// this many within one timeout; more would wait inside it, with their timeouts running.
pub(crate) const MOST_UNDER_WAY: u32 = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// gRPC servers punish pings that come more often than every five minutes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(310);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// One address.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    messages: Channel,
    control: Channel,
    under_way: AtomicU32,
    state: Mutex<PeerState>,
}

#[derive(Clone, Debug)]
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
    /// Told when the lease ends.
    room: Arc<Notify>,
}

// === impl Peer ===

impl Peer {
    /// Connects when it is first used.
    pub(crate) fn new(endpoint: &Endpoint, address: SocketAddr, material: Option<&Material>) -> Result<Self, TlsError> {
        Ok(Self {
            address,
            messages: channel(endpoint, address, material)?,
            control: channel(endpoint, address, material)?,
            under_way: AtomicU32::new(0),
            state: Mutex::new(PeerState {
                health: Health::default(),
                next_probe: Instant::now(),
                cool_until: None,
                last_answer: None,
                complaint: None,
            }),
        })
    }

    /// The same peer over new connections: what is known about its health stays true.
    pub(crate) fn succeeding(mut self, old: &Self) -> Self {
        let state = PeerState {
            next_probe: Instant::now(),
            ..old.state().clone()
        };
        self.state = Mutex::new(state);
        self
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.state().health.is_serving()
    }

    /// What to prefer: what did not fail just now, then what has less to do.
    pub(crate) fn preference(&self, now: Instant) -> (bool, u32) {
        let is_cooling = self.state().cool_until.is_some_and(|until| until > now);
        (is_cooling, self.under_way.load(Ordering::Relaxed))
    }

    /// Whether it has as much to do as it is given at once.
    pub(crate) fn is_full(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) >= MOST_UNDER_WAY
    }

    pub(crate) fn next_probe(&self) -> Instant {
        self.state().next_probe
    }

    /// What is wrong with it, if anything is.
    pub(crate) fn complaint(&self) -> Option<String> {
        let complaint = self.state().complaint.clone()?;
        Some(format!("{}: {complaint}", self.address))
    }

    /// Checks its health. `others_serve`: nobody waits for this one.
    pub(crate) async fn check<D: Dialect>(&self, step: &str, interval: Duration, others_serve: bool) {
        let asked = Instant::now();
        let result = probe::<D>(self.control.clone()).await;
        let mut state = self.state();
        match result {
            Probe::Up => {
                state.health.hit();
                state.complaint = None;
                state.cool_until = None;
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
        let is_urgent = state.health.is_unsettled(others_serve);
        let pace = if is_urgent {
            interval.min(URGENT_INTERVAL)
        } else {
            interval
        };
        state.next_probe = Instant::now() + pace;
    }

    fn state(&self) -> MutexGuard<'_, PeerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Lease ===

impl Lease {
    /// `room` is told when the lease ends.
    pub(crate) fn new(peer: &Arc<Peer>, room: &Arc<Notify>) -> Self {
        peer.under_way.fetch_add(1, Ordering::Relaxed);
        Self {
            peer: Arc::clone(peer),
            room: Arc::clone(room),
        }
    }

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

    /// When the peer last answered any message.
    pub(crate) fn last_answer(&self) -> Option<Instant> {
        self.peer.state().last_answer
    }

    /// A connection to the peer failed or broke: others are better for now, and a check is due.
    pub(crate) fn suspect(&self) {
        let now = Instant::now();
        let mut state = self.peer.state();
        state.cool_until = Some(now + COOL_DOWN);
        state.next_probe = now;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.peer.under_way.fetch_sub(1, Ordering::Relaxed);
        self.room.notify_one();
    }
}

/// A connection to an address, made when it is first used. Certificates are checked against the
/// endpoint's host, not the address.
fn channel(endpoint: &Endpoint, address: SocketAddr, material: Option<&Material>) -> Result<Channel, TlsError> {
    let unusable = |reason: String| TlsError::Unusable {
        endpoint: endpoint.to_string(),
        reason,
    };
    let host = endpoint.host();
    let shown_host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let scheme = material.map_or("http", |_| "https");
    let origin = format!("{scheme}://{shown_host}:{}", endpoint.port())
        .parse()
        .map_err(|error: http::uri::InvalidUri| unusable(error.to_string()))?;
    let refuse = |error: tonic::transport::Error| unusable(chain(&error));
    let mut target = tonic::transport::Endpoint::from_shared(format!("{scheme}://{address}"))
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
        target = target.tls_config(material.client_config(host)).map_err(refuse)?;
    }
    Ok(target.connect_lazy())
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

#[cfg(test)]
impl Peer {
    /// Makes it healthy without asking it.
    pub(crate) fn assume_healthy(&self) {
        self.state().health.hit();
    }
}
