//! The proxy: plain HTTP/1.1 on loopback in front, the apiserver behind. It forwards everything, watches as streams, and
//! breaks what the armed rules select. It must not be used for what a test asks the apiserver itself: oracles go there
//! directly.

mod live;
mod serve;
mod stream;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use flowctl_testkit::{Error, Result};
use kube::Client;
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    rule::{Action, Rule, WatchFault},
    signature::{Pattern, Signature},
};
use live::Live;

/// A running proxy. Dropping it closes its port and all its connections.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    listening: Mutex<CancellationToken>,
}

/// One request as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub signature: Signature,
    /// Its number among those of this signature since the rules were armed, from 1.
    pub ordinal: u32,
    /// When it arrived, after the rules were armed.
    pub at: Duration,
    /// The HTTP status that the apiserver answered with; `None`: it was not asked, or has not answered.
    pub answered: Option<u16>,
    /// What was done to it.
    pub struck: Option<String>,
}

/// Where a request stands still for a [`Gate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has arrived; the apiserver does not have it.
    Arrived,
    /// The apiserver has answered; the client does not know.
    Answered,
}

/// Catches requests and holds each until it is told to go on. Dropping it lets everything pass.
#[derive(Debug)]
pub struct Gate {
    hits: mpsc::UnboundedReceiver<Hit>,
}

/// A request that stands still. Dropping it lets it go on.
#[derive(Debug)]
pub struct Hit {
    /// Which it is.
    pub signature: Signature,
    _go_on: oneshot::Sender<()>,
}

/// What connections share.
struct Shared {
    upstream: Client,
    /// Whether the upstream proves itself; else the client's own header is passed on.
    authenticates: bool,
    state: Mutex<State>,
}

struct State {
    armed_at: Instant,
    rules: Vec<Armed>,
    seen: Vec<Seen>,
    gates: Vec<(Pattern, Stage, mpsc::UnboundedSender<Hit>)>,
    live: Vec<Live>,
    token: Option<String>,
    victim: Option<Arc<dyn Fn() + Send + Sync>>,
}

struct Armed {
    rule: Rule,
    selected: u32,
    struck: u32,
}

// === impl Proxy ===

impl Proxy {
    /// Begins to listen on a free port of loopback. Who `upstream` says it is, the apiserver sees; if it says nothing, the
    /// client's own `Authorization` is passed on. Impersonation of the client is passed on too, unless `upstream` has some.
    ///
    /// # Errors
    ///
    /// When there is no port, or `upstream` cannot be used.
    pub async fn start(mut upstream: kube::Config) -> Result<Self> {
        upstream.default_retry = false;
        upstream.read_timeout = None;
        let identity = &upstream.auth_info;
        let authenticates = identity.token.is_some()
            || identity.token_file.is_some()
            || identity.client_certificate.is_some()
            || identity.client_certificate_data.is_some();
        let client = Client::try_from(upstream).map_err(Error::kube("make a client for the fault proxy"))?;
        let shared = Arc::new(Shared {
            upstream: client,
            authenticates,
            state: Mutex::new(State {
                armed_at: Instant::now(),
                rules: Vec::new(),
                seen: Vec::new(),
                gates: Vec::new(),
                live: Vec::new(),
                token: None,
                victim: None,
            }),
        });
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = TcpListener::bind(any)
            .await
            .map_err(Error::io("listen for the fault proxy"))?;
        let address = listener.local_addr().map_err(Error::io("read a port"))?;
        let listening = serve::listen(listener, Arc::clone(&shared));
        Ok(Self {
            shared,
            address,
            listening: Mutex::new(listening),
        })
    }

    /// Where a client finds it: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A configuration for a client in this process; it proves nothing about itself.
    ///
    /// # Errors
    ///
    /// Never, unless loopback has no URL.
    pub fn config(&self) -> Result<kube::Config> {
        let url = self
            .url()
            .parse()
            .map_err(|_| Error::impossible("loopback has no URL"))?;
        Ok(kube::Config::new(url))
    }

    /// The text of a kubeconfig for a client in another process, with a token if it needs one.
    pub fn kubeconfig(&self, token: Option<&str>) -> String {
        let name = "fault-proxy";
        let user = token.map_or_else(|| json!({}), |token| json!({"token": token}));
        let content = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{"name": name, "cluster": {"server": self.url()}}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        });
        format!("{content:#}\n")
    }

    /// Replaces the rules, and begins to count anew. Watches that were disturbed stay so.
    pub fn arm(&self, rules: impl IntoIterator<Item = Rule>) {
        let mut state = self.shared.state();
        state.armed_at = Instant::now();
        state.seen.clear();
        state.rules = rules
            .into_iter()
            .map(|rule| Armed {
                rule,
                selected: 0,
                struck: 0,
            })
            .collect();
    }

    /// Takes all rules away; what was counted stays.
    pub fn disarm(&self) {
        self.shared.state().rules.clear();
    }

    /// Every request since the rules were armed, in the order in which they arrived.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// How often each of the armed rules struck.
    pub fn struck(&self) -> Vec<u32> {
        self.shared.state().rules.iter().map(|armed| armed.struck).collect()
    }

    /// Whom rules kill: `kill` must have ended it, or made sure that it runs no further, when it returns.
    pub fn victim(&self, kill: impl Fn() + Send + Sync + 'static) {
        self.shared.state().victim = Some(Arc::new(kill));
    }

    /// Catches every such request at this stage from now on.
    pub fn gate(&self, on: Pattern, stage: Stage) -> Gate {
        let (sender, hits) = mpsc::unbounded_channel();
        self.shared.state().gates.push((on, stage, sender));
        Gate { hits }
    }

    /// How many watches of this kind are open.
    pub fn watches(&self, on: &Pattern) -> usize {
        self.shared.state().open(on).count()
    }

    /// Does this to all open watches that are meant, now; gives their number.
    pub fn disturb(&self, on: &Pattern, fault: WatchFault) -> usize {
        self.shared.state().open(on).filter(|live| live.disturb(fault)).count()
    }

    /// Requests must carry this bearer token from now on, and get a 401 otherwise; `None`: any will do. The apiserver
    /// never sees it.
    pub fn require_token(&self, token: Option<&str>) {
        self.shared.state().token = token.map(str::to_owned);
    }

    /// Breaks all connections and refuses new ones, as an apiserver that is gone.
    pub fn down(&self) {
        self.listening().cancel();
    }

    /// Listens again, on the same port, after [`Proxy::down`].
    ///
    /// # Errors
    ///
    /// When somebody else has the port by now.
    pub async fn up(&self) -> Result<()> {
        if !self.listening().is_cancelled() {
            return Ok(());
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                // The task that held it may be about to end.
                Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => return Err(Error::io(format!("listen on {} again", self.address))(error)),
            }
        };
        *self.listening() = serve::listen(listener, Arc::clone(&self.shared));
        Ok(())
    }

    fn listening(&self) -> MutexGuard<'_, CancellationToken> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.down();
    }
}

// === impl Gate ===

impl Gate {
    /// The next request that stands at the gate. Waits for ever: give it a deadline.
    ///
    /// # Errors
    ///
    /// When the proxy is gone.
    pub async fn reached(&mut self) -> Result<Hit> {
        let hit = self.hits.recv().await;
        hit.ok_or_else(|| Error::impossible("the fault proxy is gone, nothing will reach the gate"))
    }
}

// === impl Hit ===

impl Hit {
    /// Lets it go on.
    pub fn release(self) {}
}

// === impl Shared ===

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request down; gives its place in the log and what is to be done to it.
    fn arrived(&self, signature: &Signature) -> (Entry, Option<Action>) {
        let mut state = self.state();
        let mut action = None;
        for armed in &mut state.rules {
            if !armed.rule.on.matches(signature) {
                continue;
            }
            armed.selected += 1;
            if action.is_none() && armed.rule.strikes(armed.selected) {
                armed.struck += 1;
                action = Some(armed.rule.action.clone());
            }
        }
        let before = state.seen.iter().filter(|seen| seen.signature == *signature).count();
        let seen = Seen {
            signature: signature.clone(),
            ordinal: u32::try_from(before + 1).unwrap_or(u32::MAX),
            at: state.armed_at.elapsed(),
            answered: None,
            struck: action.as_ref().map(ToString::to_string),
        };
        state.seen.push(seen);
        let entry = Entry {
            armed_at: state.armed_at,
            index: state.seen.len() - 1,
        };
        (entry, action)
    }

    fn answered(&self, entry: &Entry, code: u16) {
        let mut state = self.state();
        // A log that was begun anew in between has another request in this place.
        if state.armed_at == entry.armed_at
            && let Some(seen) = state.seen.get_mut(entry.index)
        {
            seen.answered = Some(code);
        }
    }

    /// Stands at every gate of this stage that wants this request.
    async fn pass(&self, signature: &Signature, stage: Stage) {
        let mut waits = Vec::new();
        self.state().gates.retain(|(on, at, gate)| {
            if *at != stage || !on.matches(signature) {
                return !gate.is_closed();
            }
            let (go_on, wait) = oneshot::channel();
            let hit = Hit {
                signature: signature.clone(),
                _go_on: go_on,
            };
            waits.push(wait);
            gate.send(hit).is_ok()
        });
        for wait in waits {
            // An error is how it ends: the hit was dropped.
            let _ = wait.await;
        }
    }

    fn kill(&self) {
        let victim = self.state().victim.clone();
        if let Some(kill) = victim {
            kill();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A place in the log.
struct Entry {
    armed_at: Instant,
    index: usize,
}

// === impl State ===

impl State {
    fn open(&mut self, on: &Pattern) -> impl Iterator<Item = &Live> {
        self.live.retain(Live::is_open);
        self.live.iter().filter(|live| on.matches(live.signature()))
    }
}

#[cfg(test)]
#[path = "proxy/tests.rs"]
mod tests;
