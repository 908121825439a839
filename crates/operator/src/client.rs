//! Three clients of one apiserver: watches, reconcile writes and the lease must not wait for each other's connections.
//! Here are all time limits, and the one memory of an apiserver that asked to be left alone. It retries nothing: a
//! failed request is for the next pass.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use kube::{Client, Config, client::ClientBuilder};
use tokio::time::Instant;
use tower::util::MapResponseLayer;

/// To open a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// For one GET.
pub(crate) const READ: Duration = Duration::from_secs(10);
/// For one page of a list, or for a watch to begin.
pub(crate) const LIST: Duration = Duration::from_secs(30);
/// For one mutating request.
pub(crate) const WRITE: Duration = Duration::from_secs(15);
/// For one request about the lease: a leader can try a renewal twice before it gives up.
pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// No `Retry-After` stops us for longer.
const LONGEST_PUSHBACK: Duration = Duration::from_secs(60);

/// The clients.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) watches: Client,
    pub(crate) writes: Client,
    pub(crate) lease: Client,
    pub(crate) pushback: Pushback,
}

/// Until when the apiserver asked us to send no reconcile requests (`Retry-After` of a 429 or 503).
#[derive(Clone, Debug, Default)]
pub(crate) struct Pushback(Arc<Mutex<Option<Instant>>>);

// === impl Clients ===

impl Clients {
    /// Clients that differ from `config` in their limits only.
    pub(crate) fn new(mut config: Config) -> Result<Self, kube::Error> {
        config.connect_timeout = Some(CONNECT);
        // Waiting is limited for each request where it is sent: a limit here would count a pooled connection's idle
        // time, and end quiet watches.
        config.read_timeout = None;
        config.write_timeout = Some(WRITE);
        config.default_retry = false;
        let pushback = Pushback::default();
        let heard = pushback.clone();
        let listen = MapResponseLayer::new(move |response: http::Response<_>| {
            heard.hear(response.status(), response.headers());
            response
        });
        let writes = ClientBuilder::try_from(config.clone())?.with_layer(&listen).build();
        let watches = Client::try_from(config.clone())?;
        let lease = Client::try_from(config)?;
        Ok(Self {
            watches,
            writes,
            lease,
            pushback,
        })
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("pushback", &self.pushback)
            .finish_non_exhaustive()
    }
}

// === impl Pushback ===

impl Pushback {
    /// How long to wait before the next reconcile request, if at all.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = until
            .and_then(|until| until.checked_duration_since(Instant::now()))
            .filter(|wait| !wait.is_zero());
        if wait.is_none() {
            *until = None;
        }
        wait
    }

    fn hear(&self, status: StatusCode, headers: &HeaderMap) {
        if status != StatusCode::TOO_MANY_REQUESTS && status != StatusCode::SERVICE_UNAVAILABLE {
            return;
        }
        // The date form is not used by apiservers.
        let seconds = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let Some(seconds) = seconds else { return };
        let wait = Duration::from_secs(seconds).min(LONGEST_PUSHBACK);
        let until = Instant::now() + wait;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(known.map_or(until, |known| known.max(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(pushback: &Pushback, status: StatusCode, after: &'static str) {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, http::HeaderValue::from_static(after))]);
        pushback.hear(status, &headers);
    }

    // An overloaded apiserver that asks for five seconds must get them.
    #[tokio::test(start_paused = true)]
    async fn retry_after_is_kept_and_bounded() {
        let pushback = Pushback::default();
        answer(&pushback, StatusCode::OK, "5");
        answer(&pushback, StatusCode::TOO_MANY_REQUESTS, "soon");
        assert_eq!(pushback.wait(), None);
        answer(&pushback, StatusCode::TOO_MANY_REQUESTS, "5");
        answer(&pushback, StatusCode::SERVICE_UNAVAILABLE, "1");
        assert_eq!(pushback.wait(), Some(Duration::from_secs(5)));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(pushback.wait(), None);
        answer(&pushback, StatusCode::TOO_MANY_REQUESTS, "86400");
        assert_eq!(pushback.wait(), Some(LONGEST_PUSHBACK));
    }
}
