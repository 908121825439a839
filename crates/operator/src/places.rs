//! Which namespaces the caches know completely. A namespace whose lists are not complete must never be taken for an
//! empty one: a second copy of what runs there could be started. One that cannot be read stops nobody but itself.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::watch::Life;

/// Without a sign of life for this long a cache is stale. A live watch shows one at least every 70 s: it ends after 60,
/// and its connection counts as dead 10 s later; the next one may take 30 s to begin.
const STALE: Duration = Duration::from_secs(100);

/// The watches, by namespace; `None`: all namespaces at once.
#[derive(Debug, Default)]
pub(crate) struct Places {
    lives: BTreeMap<Option<String>, Vec<Arc<Life>>>,
}

/// How far the watches of one namespace are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Listed, and every watch is alive.
    Good,
    /// A first list is not complete yet: why.
    Waiting(String),
    /// A first list was refused: the namespace or its Role is missing. Why.
    Refused(String),
    /// Listed, but a watch has not been heard of for long: why.
    Stale(String),
}

// === impl Places ===

impl Places {
    /// One more watch.
    pub(crate) fn add(&mut self, life: Arc<Life>) {
        self.lives.entry(life.namespace.clone()).or_default().push(life);
    }

    /// All watches.
    pub(crate) fn lives(&self) -> impl Iterator<Item = &Arc<Life>> {
        self.lives.values().flatten()
    }

    /// How every namespace stands.
    pub(crate) fn standings(&self) -> BTreeMap<Option<String>, Standing> {
        let places = self.lives.iter();
        places
            .map(|(namespace, lives)| (namespace.clone(), standing(lives)))
            .collect()
    }

    /// Whether everything in this namespace was listed once.
    pub(crate) fn knows(&self, namespace: &str) -> bool {
        let lives = self
            .lives
            .get(&None)
            .or_else(|| self.lives.get(&Some(namespace.to_owned())));
        lives.is_some_and(|lives| lives.iter().all(|life| life.is_listed()))
    }
}

// === impl Standing ===

impl Standing {
    /// Whether the first lists were complete.
    pub(crate) const fn is_listed(&self) -> bool {
        match self {
            Self::Good | Self::Stale(_) => true,
            Self::Waiting(_) | Self::Refused(_) => false,
        }
    }

    /// Why the caches of the namespace cannot be trusted.
    pub(crate) fn complaint(&self) -> Option<&str> {
        match self {
            Self::Good => None,
            Self::Waiting(why) | Self::Refused(why) | Self::Stale(why) => Some(why),
        }
    }
}

fn standing(lives: &[Arc<Life>]) -> Standing {
    let complaints: Vec<String> = lives.iter().filter_map(|life| complaint(life)).collect();
    let why = complaints.join("; ");
    if lives.iter().any(|life| !life.is_listed() && life.is_forbidden()) {
        Standing::Refused(why)
    } else if lives.iter().any(|life| !life.is_listed()) {
        Standing::Waiting(why)
    } else if why.is_empty() {
        Standing::Good
    } else {
        Standing::Stale(why)
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
