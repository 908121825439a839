//! The addresses behind an endpoint's name: resolved again and again, checked for health, and
//! handed out to calls. It knows nothing of messages.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::dialect::Dialect;
use crate::endpoint::{Endpoint, Scheme};
use crate::health::Gate;
use crate::metrics::StepMetrics;
use crate::peer::{Lease, Peer, URGENT_INTERVAL};
use crate::tls::{Material, TlsError, TlsFiles};

/// Names are resolved at least this often; the system's resolver does not tell a TTL.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// Longest wait for the system's resolver, which may try several servers for much longer.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest time between two rounds, however often they are asked for.
const SHORTEST_ROUND: Duration = Duration::from_millis(200);

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
    /// Held by whoever is the next to get a lease: first come, first served.
    door: tokio::sync::Mutex<()>,
    /// Told whenever a lease ends.
    room: Arc<Notify>,
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
            door: tokio::sync::Mutex::default(),
            room: Arc::default(),
        }
    }

    /// Whether the TLS files can be used at all; told at start, not at the first message.
    pub(crate) fn check_tls(&self) -> Result<(), TlsError> {
        let material = self.material()?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], self.endpoint.port()));
        Peer::new(&self.endpoint, nowhere, material.as_ref()).map(drop)
    }

    pub(crate) fn gate(&self) -> watch::Receiver<Gate> {
        self.gate.subscribe()
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.gate.borrow() == Gate::Open
    }

    /// Waits for a healthy peer that has room: the place where messages are held. Whoever came
    /// first gets the first one.
    pub(crate) async fn lease(&self) -> Lease {
        let _turn = self.door.lock().await;
        let mut gate = self.gate.subscribe();
        loop {
            gate.borrow_and_update();
            if let Some(lease) = self.pick() {
                return lease;
            }
            tokio::select! {
                () = self.room.notified() => {}
                // The sender is ours and outlives us: this never fails.
                _ = gate.changed() => {}
            }
        }
    }

    /// The serving peer with the fewest calls under way; equals take turns. None while all are
    /// full: an address that failed just now is no better than waiting for one that works.
    fn pick(&self) -> Option<Lease> {
        let now = Instant::now();
        let peers = self.peers();
        let serving: Vec<_> = peers.iter().filter(|peer| peer.is_serving()).collect();
        let count = serving.len().max(1);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % count;
        let (_, peer) = serving
            .iter()
            .enumerate()
            .min_by_key(|(index, peer)| (peer.preference(now), (index + count - turn) % count))?;
        (!peer.is_full()).then(|| Lease::new(peer, &self.room))
    }

    /// A connection to the peer failed or broke: look at names and health now.
    pub(crate) fn suspect(&self, lease: &Lease) {
        lease.suspect();
        self.look_again.notify_one();
    }

    /// Resolves and checks for as long as the step lives.
    pub(crate) async fn watch<D: Dialect>(&self, interval: Duration) {
        let mut loaded: Option<Material> = None;
        let mut resolved_at: Option<Instant> = None;
        let mut forced = true;
        loop {
            let due = resolved_at.is_none_or(|at| at.elapsed() >= RESOLVE_EVERY);
            if due || forced || self.serving() == 0 {
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
        let lookup = tokio::net::lookup_host((self.endpoint.host(), self.endpoint.port()));
        // Health checks wait for it.
        let found = tokio::time::timeout(LOOKUP_TIMEOUT, lookup)
            .await
            .unwrap_or_else(|late| Err(late.into()));
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
        self.adopt(&found, material.as_ref(), renewed);
    }

    /// Makes these addresses the peers; with new connections for all of them if TLS was renewed.
    fn adopt(&self, found: &BTreeSet<SocketAddr>, material: Option<&Material>, renewed: bool) {
        let mut peers = self.peers();
        peers.retain(|peer| found.contains(&peer.address));
        for address in found {
            let known = peers.iter().position(|peer| peer.address == *address);
            if known.is_some() && !renewed {
                continue;
            }
            match Peer::new(&self.endpoint, *address, material) {
                Ok(peer) => match known.and_then(|index| peers.get_mut(index)) {
                    Some(old) => *old = Arc::new(peer.succeeding(old)),
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

    /// Checks whoever is due. Each result is told at once: one silent address must not keep messages
    /// from the others.
    async fn check_due<D: Dialect>(&self, interval: Duration) {
        let now = Instant::now();
        let due: Vec<_> = self
            .peers()
            .iter()
            .filter(|peer| peer.next_probe() <= now)
            .cloned()
            .collect();
        let others_serve = self.serving() > 0;
        let mut checks: FuturesUnordered<_> = due
            .iter()
            .map(|peer| peer.check::<D>(&self.step, interval, others_serve))
            .collect();
        while checks.next().await.is_some() {
            self.publish();
        }
    }

    fn until_next_check(&self, interval: Duration) -> Duration {
        let now = Instant::now();
        let peers = self.peers();
        let next = peers.iter().map(|peer| peer.next_probe()).min();
        next.map_or(URGENT_INTERVAL.min(interval), |next| {
            next.saturating_duration_since(now)
        })
    }

    fn serving(&self) -> usize {
        self.peers().iter().filter(|peer| peer.is_serving()).count()
    }

    fn publish(&self) {
        let serving = self.serving();
        self.metrics.addresses(serving);
        let step = &self.step;
        let before = *self.gate.borrow();
        let after = match (serving, before) {
            (0, Gate::Waiting) => Gate::Waiting,
            (0, Gate::Open | Gate::Closed) => Gate::Closed,
            (_, Gate::Waiting | Gate::Open | Gate::Closed) => Gate::Open,
        };
        if before == Gate::Open && after == Gate::Closed {
            let complaints = self.complaints();
            warn!(step, endpoint = %self.endpoint, complaints, "no healthy peer; messages are held");
        }
        if before != Gate::Open && after == Gate::Open {
            info!(step, endpoint = %self.endpoint, serving, "messages flow");
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
        let complaints: Vec<String> = peers.iter().filter_map(|peer| peer.complaint()).collect();
        complaints.join("; ")
    }

    fn peers(&self) -> MutexGuard<'_, Vec<Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use futures::FutureExt;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 50051))
    }

    fn pool(addresses: &[u8]) -> Pool {
        let endpoint = Endpoint::parse("ttp:50051").expect("an endpoint");
        let metrics = Metrics::default().of("ttp", "ttp:50051");
        let pool = Pool::new("ttp", endpoint, TlsFiles::default(), metrics);
        pool.adopt(&addresses.iter().copied().map(address).collect(), None, false);
        pool.peers().iter().for_each(|peer| peer.assume_healthy());
        pool
    }

    fn picked(leases: &[Lease]) -> BTreeSet<SocketAddr> {
        leases.iter().map(Lease::address).collect()
    }

    #[tokio::test]
    async fn calls_spread_over_all_addresses() {
        let pool = pool(&[1, 2, 3]);
        let mut leases: Vec<Lease> = (0..3).filter_map(|_| pool.pick()).collect();
        assert_eq!(picked(&leases), [1, 2, 3].map(address).into());
        let free = leases.pop().expect("three").address();
        assert_eq!(
            pool.pick().expect("one").address(),
            free,
            "the one with the least to do"
        );
    }

    #[tokio::test]
    async fn an_address_that_failed_is_passed_over_while_others_serve() {
        let pool = pool(&[1, 2]);
        let bad = pool.pick().expect("one");
        let failed = bad.address();
        pool.suspect(&bad);
        drop(bad);
        let leases: Vec<Lease> = (0..4).filter_map(|_| pool.pick()).collect();
        assert!(!picked(&leases).contains(&failed));
        let rest: BTreeSet<SocketAddr> = [failed].into();
        pool.adopt(&rest, None, false);
        assert_eq!(pool.pick().expect("the last one").address(), failed);
    }

    #[tokio::test]
    async fn a_full_address_gets_more_only_when_a_call_ends_and_never_by_way_of_a_failed_one() {
        let pool = pool(&[1, 2]);
        let bad = pool.pick().expect("one");
        pool.suspect(&bad);
        let mut leases: Vec<Lease> = (0..4).filter_map(|_| pool.pick()).collect();
        assert_eq!(leases.len(), 4);
        let mut fifth = Box::pin(pool.lease());
        let mut sixth = Box::pin(pool.lease());
        assert!(fifth.as_mut().now_or_never().is_none());
        assert!(sixth.as_mut().now_or_never().is_none());
        leases.pop();
        assert!(sixth.as_mut().now_or_never().is_none(), "the fifth came first");
        let fifth = fifth.now_or_never().expect("room");
        assert_ne!(fifth.address(), bad.address());
    }

    #[tokio::test]
    async fn a_silent_address_keeps_nobody_from_the_others() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let good = listener.local_addr().expect("address");
        // Connections are taken by the system, and never answered.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
        let silent = (silent.local_addr().expect("address"), silent);
        let (_, health) = tonic_health::server::health_reporter();
        let server = tonic::transport::Server::builder()
            .add_service(health)
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        let _server = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(server));
        let pool = pool(&[]);
        pool.adopt(&[good, silent.0].into(), None, false);
        let mut gate = pool.gate();
        tokio::select! {
            biased;
            opened = gate.wait_for(|gate| *gate == Gate::Open) => drop(opened.expect("opens")),
            () = pool.check_due::<crate::dialect::Processor>(RESOLVE_EVERY) => panic!("waited for the silent one"),
        }
        assert_eq!(pool.pick().expect("one").address(), good);
    }

    #[tokio::test]
    async fn a_new_address_gets_nothing_before_it_is_healthy_and_a_gone_one_nothing_more() {
        let pool = pool(&[1]);
        pool.adopt(&[2].map(address).into(), None, false);
        assert!(pool.pick().is_none());
        pool.peers().iter().for_each(|peer| peer.assume_healthy());
        assert_eq!(pool.pick().expect("one").address(), address(2));
    }
}
