//! What to look at next: keys, each at most once in the queue and at most once in work, with delayed wake-ups. A key
//! that is woken while it is in work is looked at once more afterwards, however often it was woken. It must not know
//! what a key is, and it keeps nothing about a key that is neither queued, in work nor delayed.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque, hash_map::Entry},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// A queue of keys, shared by clones.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    shared: Arc<Shared<T>>,
}

/// A key in work; dropping it ends the work.
#[derive(Debug)]
pub(crate) struct InWork<T: Clone + Eq + Ord + Hash> {
    key: T,
    waited: Duration,
    queue: Queue<T>,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<T> {
    ready: VecDeque<T>,
    /// What is in `ready`, and since when.
    queued: HashMap<T, Instant>,
    in_work: HashSet<T>,
    /// Woken while in work, and when first.
    again: HashMap<T, Instant>,
    later: HashMap<T, Instant>,
    /// `later` by time.
    timeline: BTreeSet<(Instant, T)>,
    /// Nobody works: who is woken is forgotten.
    is_idle: bool,
    closed: bool,
}

// === impl Queue ===

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T: Clone + Eq + Ord + Hash> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Ord + Hash> Queue<T> {
    /// An empty queue.
    pub(crate) fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            queued: HashMap::new(),
            in_work: HashSet::new(),
            again: HashMap::new(),
            later: HashMap::new(),
            timeline: BTreeSet::new(),
            is_idle: false,
            closed: false,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Notify::new(),
            }),
        }
    }

    /// An empty queue for somebody who may not work yet, perhaps never: it forgets every key until [`Queue::begin`]. A
    /// replica that does not lead would otherwise remember whatever there ever was.
    pub(crate) fn idle() -> Self {
        let queue = Self::new();
        queue.lock().is_idle = true;
        queue
    }

    /// From now on keys are kept. Whoever calls this wakes everything afterwards.
    pub(crate) fn begin(&self) {
        self.lock().is_idle = false;
    }

    /// Asks for a look at this key as soon as possible.
    pub(crate) fn wake(&self, key: T) {
        {
            let mut state = self.lock();
            if state.is_idle {
                return;
            }
            state.push(key, Instant::now());
        }
        self.shared.changed.notify_one();
    }

    /// Asks for a look at this key after `delay` at the latest: of several delays the earliest counts.
    pub(crate) fn wake_after(&self, key: T, delay: Duration) {
        let at = Instant::now() + delay;
        {
            let mut state = self.lock();
            if state.is_idle || state.later.get(&key).is_some_and(|earlier| *earlier <= at) {
                return;
            }
            if let Some(before) = state.later.insert(key.clone(), at) {
                state.timeline.remove(&(before, key.clone()));
            }
            state.timeline.insert((at, key));
        }
        self.shared.changed.notify_one();
    }

    /// The next key to look at, when there is one and `hold` gives no time to wait; its delayed wake-up is forgotten, because
    /// the look that begins now decides anew. `None`: the queue is closed.
    pub(crate) async fn next_unless(&self, hold: impl Fn() -> Option<Duration>) -> Option<InWork<T>> {
        loop {
            let changed = self.shared.changed.notified();
            let until = {
                let mut state = self.lock();
                if state.closed {
                    // Pass it on: one permit wakes one waiter.
                    self.shared.changed.notify_one();
                    return None;
                }
                let now = Instant::now();
                state.promote(now);
                if let Some(wait) = hold() {
                    // What becomes due meanwhile waits with the others, and is seen to.
                    let due = state.timeline.first().map(|(at, _)| *at);
                    Some(due.map_or(now + wait, |due| due.min(now + wait)))
                } else if let Some((key, since)) = state.take() {
                    let more = !state.ready.is_empty() || !state.timeline.is_empty();
                    drop(state);
                    if more {
                        self.shared.changed.notify_one();
                    }
                    return Some(InWork {
                        key,
                        waited: now.saturating_duration_since(since),
                        queue: self.clone(),
                    });
                } else {
                    state.timeline.first().map(|(at, _)| *at)
                }
            };
            match until {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// The next key to look at.
    #[cfg(test)]
    pub(crate) async fn next(&self) -> Option<InWork<T>> {
        self.next_unless(|| None).await
    }

    /// Hands out nothing more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.shared.changed.notify_one();
    }

    /// How many keys wait for a look, without the delayed ones.
    pub(crate) fn depth(&self) -> usize {
        let state = self.lock();
        state.ready.len() + state.again.len()
    }

    /// How many keys are in work.
    pub(crate) fn in_work(&self) -> usize {
        self.lock().in_work.len()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl<T: Clone + Eq + Ord + Hash> State<T> {
    fn push(&mut self, key: T, since: Instant) {
        if self.in_work.contains(&key) {
            self.again.entry(key).or_insert(since);
        } else if let Entry::Vacant(vacant) = self.queued.entry(key.clone()) {
            vacant.insert(since);
            self.ready.push_back(key);
        }
    }

    fn promote(&mut self, now: Instant) {
        while let Some((at, key)) = self.timeline.first().cloned() {
            if at > now {
                return;
            }
            self.timeline.pop_first();
            self.later.remove(&key);
            self.push(key, at);
        }
    }

    fn take(&mut self) -> Option<(T, Instant)> {
        let key = self.ready.pop_front()?;
        let since = self.queued.remove(&key)?;
        if let Some(at) = self.later.remove(&key) {
            self.timeline.remove(&(at, key.clone()));
        }
        self.in_work.insert(key.clone());
        Some((key, since))
    }
}

// === impl InWork ===

impl<T: Clone + Eq + Ord + Hash> InWork<T> {
    /// The key.
    pub(crate) fn key(&self) -> &T {
        &self.key
    }

    /// How long it was due.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }
}

impl<T: Clone + Eq + Ord + Hash> Drop for InWork<T> {
    fn drop(&mut self) {
        {
            let mut state = self.queue.lock();
            state.in_work.remove(&self.key);
            if let Some(since) = state.again.remove(&self.key) {
                state.push(self.key.clone(), since);
            }
        }
        self.queue.shared.changed.notify_one();
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
