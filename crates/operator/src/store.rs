//! The cache of one kind: what the watch told, indexed by the object of ours that each belongs to, overlaid with the
//! answers to our own writes until the watch has caught up. The overlay only saves work: it is bounded in time, and
//! without it everything converges to the same end, a pass later. It must not talk to anybody.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use flowctl_plan::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, core::error_boundary::DeserializeGuard};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use crate::{
    kept::{Kept, Readable},
    subject::{Subject, key_of},
};

/// How long the answer to a write outranks the watch. A watch is rarely a second behind; after a restored backup, where
/// versions go back, the watch must win in the end.
const OVERLAY: Duration = Duration::from_secs(30);

/// The cache of one kind.
#[derive(Debug)]
pub(crate) struct Store<K> {
    belongs: fn(&K) -> Option<Subject>,
    state: RwLock<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    entries: HashMap<Key, Entry<K>>,
    groups: HashMap<Subject, BTreeSet<Key>>,
    /// Uids of what is gone, with the version at which it went: no older event and no late answer may bring it back. A
    /// newer one does: what lost the label that the watch selects by is gone, too, and may get it again.
    gone: HashMap<String, u64>,
    /// The same uids, with the time until which each is remembered, in order.
    gone_until: VecDeque<(Instant, String)>,
    /// Versions of the last lists, by namespace; `None`: of all namespaces.
    lists: HashMap<Option<String>, u64>,
}

#[derive(Debug)]
struct Entry<K> {
    object: Kept<K>,
    uid: Option<String>,
    version: Option<u64>,
    group: Option<Subject>,
    /// Set while the entry is our own write's answer: until when it outranks older events.
    ours_until: Option<Instant>,
}

/// An object of a list, ready for the cache.
#[derive(Debug)]
pub(crate) struct Listed<K> {
    key: Key,
    entry: Entry<K>,
}

/// What an event did to the cache.
#[derive(Debug)]
pub(crate) struct Change {
    /// Whom the object belongs to, before and after.
    pub(crate) belongs: BTreeSet<Subject>,
    /// The object's key.
    pub(crate) key: Key,
}

// === impl Store ===

impl<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned> Store<K> {
    /// An empty cache; `belongs` tells whose pass an object is for.
    pub(crate) fn new(belongs: fn(&K) -> Option<Subject>) -> Self {
        let state = State {
            entries: HashMap::new(),
            groups: HashMap::new(),
            gone: HashMap::new(),
            gone_until: VecDeque::new(),
            lists: HashMap::new(),
        };
        Self {
            belongs,
            state: RwLock::new(state),
        }
    }

    /// The object of this name.
    pub(crate) fn get(&self, key: &Key) -> Option<Readable<K>> {
        let kept = self.read().entries.get(key)?.object.clone();
        kept.get()
    }

    /// Everything readable that belongs to this object of ours, by name.
    pub(crate) fn of(&self, subject: &Subject) -> Vec<Arc<K>> {
        let kept: Vec<_> = {
            let state = self.read();
            let keys = state.groups.get(subject).into_iter().flatten();
            keys.filter_map(|key| Some(state.entries.get(key)?.object.clone()))
                .collect()
        };
        kept.iter().filter_map(|kept| kept.get()?.ok()).collect()
    }

    /// The names of all objects in a namespace, or in all of them.
    pub(crate) fn keys(&self, namespace: Option<&str>) -> Vec<Key> {
        let state = self.read();
        let keys = state.entries.keys();
        keys.filter(|key| namespace.is_none_or(|namespace| namespace == key.namespace))
            .cloned()
            .collect()
    }

    /// Looks at everything readable, one after the other.
    pub(crate) fn each(&self, mut look: impl FnMut(&K)) {
        let kept: Vec<_> = self.read().entries.values().map(|entry| entry.object.clone()).collect();
        for object in kept.iter().filter_map(|kept| kept.get()?.ok()) {
            look(&object);
        }
    }

    /// How many objects are readable and how many are not.
    pub(crate) fn count(&self) -> (usize, usize) {
        let state = self.read();
        let readable = state
            .entries
            .values()
            .filter(|entry| entry.object.is_readable())
            .count();
        (readable, state.entries.len() - readable)
    }

    /// The watch told of an object.
    pub(crate) fn observed(&self, object: DeserializeGuard<K>) -> Option<Change> {
        let now = Instant::now();
        let entry = self.entry(object)?;
        let mut state = self.write();
        state.forget_old(now);
        state.put(entry, now)
    }

    /// The watch told that an object is gone.
    pub(crate) fn gone(&self, object: &DeserializeGuard<K>) -> Option<Change> {
        let (key, now) = (key_of(object.meta())?, Instant::now());
        let mut state = self.write();
        state.forget_old(now);
        if let Some(uid) = &object.meta().uid {
            state.bury(uid, version_of(object.meta()).unwrap_or(u64::MAX), now);
        }
        // A successor of the same name is not gone.
        if state
            .entries
            .get(&key)
            .is_some_and(|entry| entry.uid != object.meta().uid)
        {
            return None;
        }
        state.remove(&key)
    }

    /// Objects of one page of a list, small at once: a whole list as values of its type is the most memory that an
    /// operator ever needs.
    pub(crate) fn listed(&self, page: Vec<DeserializeGuard<K>>) -> impl Iterator<Item = Listed<K>> {
        let entries = page.into_iter().filter_map(|object| self.entry(object));
        entries.map(|(key, entry)| Listed { key, entry })
    }

    /// A list of a namespace (or of all) at this version: gives what changed by it.
    pub(crate) fn replace(&self, namespace: Option<&str>, list: Vec<Listed<K>>, version: Option<u64>) -> Vec<Change> {
        let now = Instant::now();
        let mut state = self.write();
        state.forget_old(now);
        let listed: BTreeSet<Key> = list.iter().map(|listed| listed.key.clone()).collect();
        let vanished: Vec<Key> = state
            .entries
            .iter()
            .filter(|(key, _)| namespace.is_none_or(|namespace| namespace == key.namespace))
            .filter(|(key, entry)| !listed.contains(key) && !entry.outranks(version, now))
            .map(|(key, _)| key.clone())
            .collect();
        match version {
            Some(version) => state.lists.insert(namespace.map(str::to_owned), version),
            None => state.lists.remove(&namespace.map(str::to_owned)),
        };
        let mut changes: Vec<_> = vanished.iter().filter_map(|key| state.remove(key)).collect();
        for Listed { key, entry } in list {
            let known = state.entries.get(&key);
            // An answer of ours is not known to anybody until something tells of it: it may bring what others wrote before.
            let same = known.is_some_and(|known| {
                known.uid == entry.uid && known.version == entry.version && known.ours_until.is_none()
            });
            if !same {
                changes.extend(state.put((key, entry), now));
            }
        }
        changes
    }

    /// The answer to a write of ours. One that comes after the watch told of something newer is no news, and no event
    /// would ever correct it; nor one of an object that a newer list did not have.
    pub(crate) fn wrote(&self, object: Arc<K>) {
        let now = Instant::now();
        let Some((key, mut entry)) = self.entry_of(&Ok(object)) else {
            return;
        };
        entry.ours_until = Some(now + OVERLAY);
        let mut state = self.write();
        state.forget_old(now);
        let known = state.entries.get(&key).filter(|known| known.uid == entry.uid);
        let newer = known.map_or_else(|| state.list_of(&key), |known| known.version);
        if !matches!((newer, entry.version), (Some(newer), Some(ours)) if newer > ours) {
            state.put((key, entry), now);
        }
    }

    /// We deleted the object of this uid.
    pub(crate) fn deleted(&self, key: &Key, uid: &str) {
        let now = Instant::now();
        let mut state = self.write();
        state.forget_old(now);
        state.bury(uid, u64::MAX, now);
        if state
            .entries
            .get(key)
            .is_some_and(|entry| entry.uid.as_deref() == Some(uid))
        {
            state.remove(key);
        }
    }

    fn entry(&self, DeserializeGuard(object): DeserializeGuard<K>) -> Option<(Key, Entry<K>)> {
        let object = match object {
            Ok(mut object) => {
                prune(&mut object);
                Ok(Arc::new(object))
            }
            Err(mut invalid) => {
                invalid.metadata.managed_fields = None;
                Err(Arc::new(invalid))
            }
        };
        self.entry_of(&object)
    }

    fn entry_of(&self, object: &Readable<K>) -> Option<(Key, Entry<K>)> {
        let (meta, group) = match object {
            Ok(object) => (object.meta(), (self.belongs)(object)),
            Err(invalid) => (&invalid.metadata, None),
        };
        let version = version_of(meta);
        let (key, uid) = (key_of(meta)?, meta.uid.clone());
        Some((
            key,
            Entry {
                object: Kept::new(object)?,
                uid,
                version,
                group,
                ours_until: None,
            },
        ))
    }

    fn read(&self) -> RwLockReadGuard<'_, State<K>> {
        self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<K>> {
        self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The version, where it is a number, as every apiserver has it.
fn version_of(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_deref()?.parse().ok()
}

/// Takes out what nobody reads: managed fields are half of a cached object's size.
pub(crate) fn prune<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

// === impl State ===

impl<K> State<K> {
    /// Puts an entry in unless a newer one is there. Even then whoever it belongs to is told: their pass is cheap, and
    /// a pass that never comes is not.
    fn put(&mut self, (key, entry): (Key, Entry<K>), now: Instant) -> Option<Change> {
        let mut belongs: BTreeSet<Subject> = entry.group.iter().cloned().collect();
        if let Some(known) = self.entries.get(&key) {
            belongs.extend(known.group.clone());
            if known.uid == entry.uid && known.outranks(entry.version, now) {
                return Some(Change { belongs, key });
            }
        }
        let gone_at = entry.uid.as_ref().and_then(|uid| self.gone.get(uid));
        if gone_at.is_some_and(|gone_at| entry.version.is_none_or(|version| version <= *gone_at)) {
            return None;
        }
        self.remove(&key);
        if let Some(group) = &entry.group {
            self.groups.entry(group.clone()).or_default().insert(key.clone());
        }
        self.entries.insert(key.clone(), entry);
        Some(Change { belongs, key })
    }

    fn remove(&mut self, key: &Key) -> Option<Change> {
        let entry = self.entries.remove(key)?;
        if let Some(group) = &entry.group
            && let Some(keys) = self.groups.get_mut(group)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.groups.remove(group);
            }
        }
        Some(Change {
            belongs: entry.group.into_iter().collect(),
            key: key.clone(),
        })
    }

    /// The version of the last list in which an object of this name would have been.
    fn list_of(&self, key: &Key) -> Option<u64> {
        let list = self
            .lists
            .get(&None)
            .or_else(|| self.lists.get(&Some(key.namespace.clone())));
        list.copied()
    }

    fn bury(&mut self, uid: &str, version: u64, now: Instant) {
        if self.gone.insert(uid.to_owned(), version).is_none() {
            self.gone_until.push_back((now + OVERLAY, uid.to_owned()));
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((_, uid)) = self.gone_until.pop_front_if(|(until, _)| *until <= now) {
            self.gone.remove(&uid);
        }
    }
}

// === impl Entry ===

impl<K> Entry<K> {
    /// Whether this is our own write's answer and `version` is of before it.
    fn outranks(&self, version: Option<u64>, now: Instant) -> bool {
        let ours = self.ours_until.is_some_and(|until| until > now);
        ours && matches!((self.version, version), (Some(ours), Some(other)) if ours > other)
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
