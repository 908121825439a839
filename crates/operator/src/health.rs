//! Whether the caches can be trusted: listed once, and every watch alive. It turns the watches' signs of life into the
//! `caches` check of `/readyz` and into gauges, and wakes the objects of a namespace that became known; it repairs
//! nothing, because watches repair themselves.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use flowctl_runtime::Check;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::{
    caches::{Cached, Caches},
    metrics::Metrics,
    places::{Places, Standing},
};

const PERIOD: Duration = Duration::from_secs(5);

/// Watches over the watches.
pub(crate) struct Health {
    pub(crate) places: Arc<Places>,
    pub(crate) changed: Arc<Notify>,
    pub(crate) check: Check,
    pub(crate) metrics: Metrics,
    pub(crate) caches: Arc<Caches>,
    /// Becomes true when one namespace is listed, and every other one too or refused.
    pub(crate) synced: watch::Sender<bool>,
}

/// What readiness makes of all namespaces.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Ready,
    NotReady(String),
}

// === impl Health ===

impl Health {
    /// Judges on every turn, and every few seconds, until it is dropped.
    pub(crate) async fn run(self) {
        let mut last = BTreeMap::new();
        loop {
            last = self.judge(&last);
            // Time over is the usual case.
            let _ = timeout(PERIOD, self.changed.notified()).await;
        }
    }

    fn judge(&self, last: &BTreeMap<Option<String>, Standing>) -> BTreeMap<Option<String>, Standing> {
        let standings = self.places.standings();
        match readiness(&standings) {
            Verdict::Ready => self.check.ready(),
            Verdict::NotReady(why) => self.check.not_ready(why),
        }
        for (namespace, standing) in &standings {
            self.turned(namespace.as_deref(), last.get(namespace), standing);
        }
        if is_synced(&standings) {
            self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
        }
        let unreadable = standings.values().filter(|standing| standing.complaint().is_some());
        let unreadable = i64::try_from(unreadable.count()).unwrap_or(i64::MAX);
        self.metrics.unreadable_namespaces.set(unreadable);
        self.measure();
        standings
    }

    /// Tells of a namespace that is lost or found, and wakes the objects of one whose lists are complete now: passes
    /// over them were refused until here.
    fn turned(&self, namespace: Option<&str>, last: Option<&Standing>, now: &Standing) {
        if now.is_listed() && !last.is_some_and(Standing::is_listed) {
            self.caches.wake_all(namespace);
        }
        let namespace = namespace.unwrap_or("(all)");
        let was_good = last.is_none_or(|last| !matches!(last, Standing::Refused(_) | Standing::Stale(_)));
        match now {
            Standing::Refused(why) | Standing::Stale(why) if was_good => {
                tracing::warn!(
                    namespace,
                    why,
                    "namespace cannot be read: its objects are left as they are"
                );
            }
            Standing::Good if !was_good => tracing::info!(namespace, "namespace can be read again"),
            Standing::Good | Standing::Waiting(_) | Standing::Refused(_) | Standing::Stale(_) => {}
        }
    }

    fn measure(&self) {
        let mut ages: BTreeMap<&'static str, Duration> = BTreeMap::new();
        for life in self.places.lives() {
            let age = ages.entry(life.kind).or_default();
            *age = life.age().max(*age);
        }
        for (kind, age) in ages {
            self.metrics.watch_age(kind, age);
        }
        self.count::<flowctl_api::Pipeline>();
        self.count::<flowctl_api::ExternalProcessor>();
    }

    fn count<K: Cached>(&self) {
        let (readable, unreadable) = K::store(&self.caches).count();
        self.metrics.objects(K::KIND, readable, unreadable);
    }
}

/// Passes may begin when nothing more can be expected soon, and there is something to work on.
fn is_synced(standings: &BTreeMap<Option<String>, Standing>) -> bool {
    let waiting = standings
        .values()
        .any(|standing| matches!(standing, Standing::Waiting(_)));
    !waiting && standings.values().any(Standing::is_listed)
}

/// A namespace that is lost takes readiness away only when no other one is left.
fn readiness(standings: &BTreeMap<Option<String>, Standing>) -> Verdict {
    let waiting = standings
        .values()
        .any(|standing| matches!(standing, Standing::Waiting(_)));
    if !waiting && standings.values().any(|standing| *standing == Standing::Good) {
        return Verdict::Ready;
    }
    let complaints: Vec<&str> = standings.values().filter_map(Standing::complaint).collect();
    Verdict::NotReady(complaints.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standings<const N: usize>(all: [Standing; N]) -> BTreeMap<Option<String>, Standing> {
        let named = all.into_iter().enumerate();
        named
            .map(|(number, standing)| (Some(number.to_string()), standing))
            .collect()
    }

    // One namespace that is deleted, or whose Role is, must not take the operator away from all others.
    #[test]
    fn a_lost_namespace_stops_nobody_else_and_an_unknown_one_is_waited_for() {
        let why = || "why".to_owned();
        let refused = standings([Standing::Good, Standing::Refused(why())]);
        assert!(is_synced(&refused));
        assert_eq!(readiness(&refused), Verdict::Ready);
        let stale = standings([Standing::Good, Standing::Stale(why())]);
        assert!(is_synced(&stale));
        assert_eq!(readiness(&stale), Verdict::Ready);
        let waiting = standings([Standing::Good, Standing::Waiting(why())]);
        assert!(!is_synced(&waiting));
        assert_eq!(readiness(&waiting), Verdict::NotReady(why()));
        let none = standings([Standing::Refused(why())]);
        assert!(!is_synced(&none));
        assert_eq!(readiness(&none), Verdict::NotReady(why()));
        assert_eq!(
            readiness(&standings([Standing::Stale(why())])),
            Verdict::NotReady(why())
        );
    }
}
