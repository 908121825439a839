//! Three clients of one apiserver: watches, reconcile writes and the lease must not wait for each other's connections.
//! Here are all time limits, the name under which the audit log shows this replica, and the memory of an apiserver that
//! asked to be left alone. It retries nothing: a failed request is for the next pass.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{RETRY_AFTER, USER_AGENT},
};
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
    /// What the apiserver asked of passes.
    pub(crate) pushback: Pushback,
    /// What the apiserver asked of watches: it counts their requests in another queue.
    pub(crate) watch_pushback: Pushback,
}

/// Until when the apiserver asked us to send nothing (`Retry-After` of a 429 or 503).
#[derive(Clone, Debug, Default)]
pub(crate) struct Pushback(Arc<Mutex<Option<Instant>>>);

// === impl Clients ===

impl Clients {
    /// Clients that differ from `config` in their limits, and in their name with that of this instance.
    pub(crate) fn new(mut config: Config, instance: Option<&str>) -> Result<Self, kube::Error> {
        config.connect_timeout = Some(CONNECT);
        // Waiting is limited for each request where it is sent: a limit here would count a pooled connection's idle
        // time, and end quiet watches.
        config.read_timeout = None;
        config.write_timeout = Some(WRITE);
        config.default_retry = false;
        config.headers.push((USER_AGENT, user_agent(instance)));
        let (pushback, watch_pushback) = (Pushback::default(), Pushback::default());
        Ok(Self {
            watches: listening(config.clone(), &watch_pushback)?,
            writes: listening(config.clone(), &pushback)?,
            lease: Client::try_from(config)?,
            pushback,
            watch_pushback,
        })
    }
}

/// A client whose answers are looked through for a `Retry-After`.
fn listening(config: Config, pushback: &Pushback) -> Result<Client, kube::Error> {
    let heard = pushback.clone();
    let listen = MapResponseLayer::new(move |response: http::Response<_>| {
        heard.hear(response.status(), response.headers());
        response
    });
    Ok(ClientBuilder::try_from(config)?.with_layer(&listen).build())
}

/// `flowctl-operator/0.1.0 (the pod's name)`: replicas have one service account, and must be told apart in the audit log.
fn user_agent(instance: Option<&str>) -> HeaderValue {
    const NAME: &str = concat!("flowctl-operator/", env!("CARGO_PKG_VERSION"));
    let named = instance.and_then(|instance| HeaderValue::try_from(format!("{NAME} ({instance})")).ok());
    named.unwrap_or(HeaderValue::from_static(NAME))
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
    /// How long to wait before the next request, if at all.
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

    /// Listens to an answer.
    pub(crate) fn hear(&self, status: StatusCode, headers: &HeaderMap) {
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

    #[test]
    fn replicas_have_names_and_a_strange_one_is_left_out() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            user_agent(Some("pod-1")),
            *format!("flowctl-operator/{version} (pod-1)")
        );
        assert_eq!(user_agent(Some("a\nb")), *format!("flowctl-operator/{version}"));
        assert_eq!(user_agent(None), *format!("flowctl-operator/{version}"));
    }

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
