//! Whether the caches can be trusted: all listed once, and every watch alive. It turns the watches' signs of life into
//! the `caches` check of `/readyz` and into gauges; it repairs nothing, because watches repair themselves.

use std::{sync::Arc, time::Duration};

use flowctl_runtime::Check;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::{
    caches::{Cached, Caches},
    metrics::Metrics,
    watch::Life,
};

/// Without a sign of life for this long a cache is stale. A live watch shows one at least every 70 s: it ends after 60,
/// and its connection counts as dead 10 s later.
const STALE: Duration = Duration::from_secs(150);
const PERIOD: Duration = Duration::from_secs(5);

/// Watches over the watches.
pub(crate) struct Health {
    pub(crate) lives: Vec<Arc<Life>>,
    pub(crate) changed: Arc<Notify>,
    pub(crate) check: Check,
    pub(crate) metrics: Metrics,
    pub(crate) caches: Arc<Caches>,
    /// Becomes true when every first list is complete.
    pub(crate) synced: watch::Sender<bool>,
}

// === impl Health ===

impl Health {
    /// Judges on every turn, and every few seconds, until it is dropped.
    pub(crate) async fn run(self) {
        loop {
            self.judge();
            // Time over is the usual case.
            let _ = timeout(PERIOD, self.changed.notified()).await;
        }
    }

    fn judge(&self) {
        let waiting: Vec<String> = self.lives.iter().filter_map(|life| complaint(life)).collect();
        if waiting.is_empty() {
            self.check.ready();
        } else {
            self.check.not_ready(waiting.join("; "));
        }
        if self.lives.iter().all(|life| life.is_listed()) {
            self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
        }
        self.measure();
    }

    fn measure(&self) {
        let mut kinds: Vec<&'static str> = self.lives.iter().map(|life| life.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let ages = self
                .lives
                .iter()
                .filter(|life| life.kind == kind)
                .map(|life| life.age());
            self.metrics.watch_age(kind, ages.max().unwrap_or_default());
        }
        self.count::<flowctl_api::Pipeline>();
        self.count::<flowctl_api::ExternalProcessor>();
        let depth = i64::try_from(self.caches.queue.depth()).unwrap_or(i64::MAX);
        self.metrics.queue_depth.set(depth);
        let in_work = i64::try_from(self.caches.queue.in_work()).unwrap_or(i64::MAX);
        self.metrics.in_work.set(in_work);
    }

    fn count<K: Cached>(&self) {
        let (readable, unreadable) = K::store(&self.caches).count();
        self.metrics.objects(K::KIND, readable, unreadable);
    }
}

/// Why this watch's cache cannot be trusted.
fn complaint(life: &Life) -> Option<String> {
    let place = life
        .namespace
        .as_deref()
        .map(|namespace| format!(" in {namespace}"))
        .unwrap_or_default();
    let why = life
        .problem()
        .map(|problem| format!(" ({problem})"))
        .unwrap_or_default();
    if !life.is_listed() {
        return Some(format!("{}{place} not listed yet{why}", life.kind));
    }
    let age = life.age();
    (age > STALE).then(|| format!("{}{place} not heard of for {} s{why}", life.kind, age.as_secs()))
}
