//! One watch: list in pages, then follow, for ever. Written over the client's own `list` and `watch` because the
//! library's `watcher` hides bookmarks (so a quiet watch cannot be told from a dead one) and never lists again after an
//! HTTP 410 (only after a 410 event). Every watch of the operator begins here; it must not know what a kind means.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::StreamExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
    core::error_boundary::DeserializeGuard,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use crate::{
    backoff::jittered,
    caches::{Cached, Caches},
    client::{LIST, Pushback},
    life::{Life, Problem},
    metrics::Metrics,
};

/// Objects in one page of a list.
const PAGE: u32 = 500;
/// How long the apiserver keeps a watch, in seconds: well below the four minutes after which load balancers forget an
/// idle connection, and jittered so that watches do not begin anew all at once.
const WATCH_SECONDS: std::ops::RangeInclusive<u32> = 45..=60;
/// Silence beyond the watch's own time after which its connection counts as dead.
const SILENCE: Duration = Duration::from_secs(10);
/// Failures in a row after which the resource version itself is suspected, and the list taken anew.
const SUSPECT: u32 = 3;
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// A watch that stood for longer began well.
const LIVED: Duration = Duration::from_secs(1);

/// A watch and what it needs.
pub(crate) struct Watch<K> {
    api: Api<DeserializeGuard<K>>,
    pushback: Pushback,
    caches: Arc<Caches>,
    life: Arc<Life>,
    metrics: Metrics,
}

/// Why a list or a watch ended before its time.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the resource version is too old")]
    Expired,
    #[error("no answer within {0:?}")]
    Silent(Duration),
    #[error("{0}")]
    Refused(Box<kube::core::Status>),
    #[error("{0}")]
    Broken(kube::Error),
    #[error("the answer has no resource version")]
    NoVersion,
}

// === impl Watch ===

impl<K: Cached> Watch<K> {
    /// A watch over one namespace or all; `changed` is notified when its life takes a turn.
    pub(crate) fn new(
        client: Client,
        pushback: Pushback,
        namespace: Option<&str>,
        caches: Arc<Caches>,
        metrics: Metrics,
        changed: Arc<Notify>,
    ) -> Self {
        let api = match namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        let life = Arc::new(Life::new(K::KIND, namespace.map(str::to_owned), changed));
        Self {
            api,
            pushback,
            caches,
            life,
            metrics,
        }
    }

    /// Its signs of life.
    pub(crate) fn life(&self) -> Arc<Life> {
        Arc::clone(&self.life)
    }

    /// Lists and follows until it is dropped; lists anew when its life is asked for it.
    pub(crate) async fn run(self) {
        // In a row, and since the last list: the second decides about the next one. A list that succeeds says nothing about
        // whether what follows does.
        let (mut failures, mut since_list) = (0_u32, 0_u32);
        let mut position = None;
        loop {
            let begun = Instant::now();
            let (next, progress, end) = match position.take() {
                None => match self.list().await {
                    Ok(version) => (Some(version), Progress::Listed, Ok(())),
                    Err(failure) => (None, Progress::None, Err(failure)),
                },
                Some(version) => tokio::select! {
                    biased;
                    // What it told so far is in the list as well.
                    () = self.life.asked_again() => (None, Progress::Made, Ok(())),
                    followed = self.follow(version) => followed,
                },
            };
            position = next;
            // A watch that stood for a while is life, however it ended.
            let lived = match progress {
                Progress::Begun | Progress::Made => begun.elapsed() > LIVED,
                Progress::None | Progress::Listed => false,
            };
            let wait = match (end, progress) {
                (Ok(()), Progress::Listed) => {
                    since_list = 0;
                    Duration::ZERO
                }
                // Perhaps nothing happened and it ended at its time.
                (Ok(()), progress) if lived || matches!(progress, Progress::Made) => {
                    (failures, since_list) = (0, 0);
                    Duration::ZERO
                }
                // One that ends at once is a failure.
                (Ok(()), _) => {
                    (failures, since_list) = (failures + 1, since_list + 1);
                    pause(failures)
                }
                (Err(failure), _) => {
                    failures = if lived { 1 } else { failures + 1 };
                    since_list += 1;
                    self.life.failed(failure.problem());
                    self.metrics.watch_failed(K::KIND, failure.reason());
                    tracing::warn!(kind = K::KIND, namespace = self.life.namespace, %failure, failures, "watch failed");
                    let expired = matches!(failure, Failure::Expired);
                    if expired || since_list >= SUSPECT {
                        position = None;
                    }
                    if expired && failures == 1 {
                        Duration::ZERO
                    } else {
                        pause(failures)
                    }
                }
            };
            // Whoever asked us to wait hears nothing of us before.
            let asked = self.pushback.wait().map(|asked| asked + wait / 2);
            tokio::select! {
                () = sleep(wait.max(asked.unwrap_or_default())) => {}
                () = self.life.asked_again(), if asked.is_none() => position = None,
            }
        }
    }

    /// Lists everything and gives the version to follow from.
    async fn list(&self) -> Result<String, Failure> {
        let mut params = ListParams {
            limit: Some(PAGE),
            ..ListParams::default()
        };
        params.label_selector = K::SELECTOR.map(str::to_owned);
        let (number, mut objects) = (self.life.wanted(), Vec::new());
        let version = loop {
            let answer = timeout(LIST, self.api.list(&params))
                .await
                .map_err(|_| Failure::Silent(LIST))?;
            let page = answer.map_err(Failure::from)?;
            self.life.seen();
            page.items.iter().for_each(complain::<K>);
            objects.extend(K::store(&self.caches).listed(page.items));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => break page.metadata.resource_version.filter(|version| !version.is_empty()),
            }
        };
        let version = version.ok_or(Failure::NoVersion)?;
        let listed = K::store(&self.caches).replace(self.life.namespace.as_deref(), objects, version.parse().ok());
        for change in listed {
            K::changed(&self.caches, change);
        }
        self.life.listed(number);
        Ok(version)
    }

    /// Follows from a version to the end of the watch; gives the last version that it saw.
    async fn follow(&self, version: String) -> (Option<String>, Progress, Result<(), Failure>) {
        let mut version = version;
        let mut progress = Progress::None;
        let end = self.events(&mut version, &mut progress).await;
        (Some(version), progress, end)
    }

    async fn events(&self, version: &mut String, progress: &mut Progress) -> Result<(), Failure> {
        let seconds = fastrand::u32(WATCH_SECONDS);
        let mut params = WatchParams::default().timeout(seconds);
        params.label_selector = K::SELECTOR.map(str::to_owned);
        let begin = timeout(LIST, self.api.watch(&params, version))
            .await
            .map_err(|_| Failure::Silent(LIST))?;
        let mut events = pin!(begin.map_err(Failure::from)?);
        *progress = Progress::Begun;
        self.life.seen();
        let patience = Duration::from_secs(seconds.into()) + SILENCE;
        loop {
            let next = timeout(patience, events.next())
                .await
                .map_err(|_| Failure::Silent(patience))?;
            let Some(event) = next else { return Ok(()) };
            let event = event.map_err(Failure::from)?;
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    *version = object.resource_version().ok_or(Failure::NoVersion)?;
                    complain(&object);
                    if let Some(change) = K::store(&self.caches).observed(object) {
                        K::changed(&self.caches, change);
                    }
                }
                WatchEvent::Deleted(object) => {
                    *version = object.resource_version().ok_or(Failure::NoVersion)?;
                    if let Some(change) = K::store(&self.caches).gone(&object) {
                        K::changed(&self.caches, change);
                    }
                }
                WatchEvent::Bookmark(bookmark) => *version = bookmark.metadata.resource_version,
                WatchEvent::Error(status) => return Err(Failure::from(kube::Error::Api(status))),
            }
            *progress = Progress::Made;
            self.life.seen();
        }
    }
}

/// An object that this version cannot read is told once for each of its versions.
fn complain<K: Cached>(object: &DeserializeGuard<K>) {
    if let Err(invalid) = &object.0 {
        let (namespace, name) = (&invalid.metadata.namespace, &invalid.metadata.name);
        tracing::warn!(kind = K::KIND, ?namespace, ?name, error = %invalid.error, "object cannot be read");
    }
}

fn pause(failures: u32) -> Duration {
    let wait = Duration::from_millis(500).saturating_mul(1 << failures.saturating_sub(1).min(10));
    jittered(wait.min(LONGEST_WAIT))
}

/// What came of a list or a watch.
#[derive(Clone, Copy)]
enum Progress {
    /// No answer.
    None,
    /// A watch began, and told nothing.
    Begun,
    /// A watch told something.
    Made,
    /// There is a version to follow from.
    Listed,
}

// === impl Failure ===

impl Failure {
    fn problem(&self) -> Problem {
        match self {
            Self::Refused(status) if status.code == 403 => Problem::Forbidden(self.to_string()),
            _ => Problem::Other(self.to_string()),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Silent(_) => "silent",
            Self::Refused(status) if status.code == 403 => "forbidden",
            Self::Refused(status) if status.code == 404 => "not_served",
            Self::Refused(_) => "refused",
            Self::Broken(_) => "broken",
            Self::NoVersion => "no_version",
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            // As an event and as an HTTP status; `Expired` is how newer apiservers spell the reason.
            kube::Error::Api(status) if status.code == 410 || status.reason == "Expired" => Self::Expired,
            kube::Error::Api(status) => Self::Refused(status),
            other => Self::Broken(other),
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
