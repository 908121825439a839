//! Whether the caches can be trusted: listed, and every watch alive. It turns the watches' signs of life into the word
//! that passes go by, the `caches` check of `/readyz` and gauges, and wakes the objects of a namespace that can be read
//! now; it repairs nothing, because watches repair themselves.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use flowctl_runtime::Check;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::{
    caches::{Cached, Caches},
    metrics::Metrics,
    places::{Places, Standing, Verdict},
};

const PERIOD: Duration = Duration::from_secs(5);

/// Watches over the watches.
pub(crate) struct Health {
    pub(crate) places: Arc<Places>,
    pub(crate) changed: Arc<Notify>,
    pub(crate) check: Check,
    pub(crate) metrics: Metrics,
    pub(crate) caches: Arc<Caches>,
    /// Whether this replica could work: as the check says.
    pub(crate) fit: watch::Sender<bool>,
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
        let (before, standings) = self.places.judge();
        let verdict = Verdict::of(&standings);
        self.fit.send_if_modified(|fit| {
            let is_ready = verdict == Verdict::Ready;
            std::mem::replace(fit, is_ready) != is_ready
        });
        match verdict {
            Verdict::Ready => self.check.ready(),
            Verdict::NotReady(why) => self.check.not_ready(why),
        }
        for (namespace, standing) in &standings {
            self.turned(namespace.as_deref(), before.get(namespace), standing);
        }
        let unreadable = standings.values().filter(|standing| standing.complaint().is_some());
        let unreadable = i64::try_from(unreadable.count()).unwrap_or(i64::MAX);
        self.metrics.unreadable_namespaces.set(unreadable);
        self.measure();
    }

    /// Tells of a namespace that is lost or found, and wakes the objects of one that can be read now: passes over them were
    /// refused until here.
    fn turned(&self, namespace: Option<&str>, last: Option<&Standing>, now: &Standing) {
        if *now == Standing::Good && last != Some(&Standing::Good) {
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

#[cfg(test)]
mod tests {
    use flowctl_api::Pipeline;
    use flowctl_runtime::{Metrics as Registry, Readiness};
    use kube::core::error_boundary::DeserializeGuard;
    use serde_json::json;

    use super::*;
    use crate::{
        places::tests::{life, places_of},
        queue::Queue,
    };

    // Passes over a namespace whose watches are dead are refused: if nobody woke its objects when it can be read again, they
    // would be left alone until they change or the operator is restarted.
    #[tokio::test(start_paused = true)]
    async fn objects_are_woken_whenever_their_namespace_can_be_read_again() {
        let places = Arc::new(places_of(&["ns", "other"]));
        let caches = Arc::new(Caches::new(Queue::new()));
        let pipeline = json!({
            "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline",
            "metadata": {"namespace": "ns", "name": "a", "uid": "u", "resourceVersion": "1"},
            "spec": {"source": {"type": "A"}, "consumers": [{"type": "B"}]},
        });
        let pipeline: Pipeline = serde_json::from_value(pipeline).expect("a Pipeline");
        caches.pipelines.observed(DeserializeGuard(Ok(pipeline)));
        let (fit, is_fit) = watch::channel(false);
        let health = Health {
            places: Arc::clone(&places),
            changed: Arc::default(),
            check: Readiness::new().check("caches", "not yet"),
            metrics: Metrics::register(&Registry::new("test", "0")),
            caches: Arc::clone(&caches),
            fit,
        };
        let woken = || {
            health.judge();
            let work = futures::FutureExt::now_or_never(caches.queue.next()).flatten();
            work.is_some()
        };
        let list = |namespace: &str| life(&places, namespace).listed(life(&places, namespace).wanted());

        assert!(!woken() && !*is_fit.borrow());
        list("other");
        assert!(!woken() && !*is_fit.borrow(), "the rest may come soon");
        list("ns");
        assert!(woken() && *is_fit.borrow());
        assert!(!woken(), "once");
        places.list_again();
        list("ns");
        assert!(woken(), "although nobody judged between");
        assert!(!*is_fit.borrow());
        list("other");
        assert!(!woken() && *is_fit.borrow());
        tokio::time::advance(Duration::from_secs(101)).await;
        life(&places, "other").seen();
        assert!(!woken() && !places.knows("ns") && *is_fit.borrow());
        life(&places, "ns").seen();
        assert!(woken() && places.knows("ns"));
    }
}
