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
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn next(queue: &Queue<u8>) -> Option<u8> {
        // Ended work is put back by forgetting nothing: the guard is dropped at once.
        queue.next().now_or_never().flatten().map(|work| *work.key())
    }

    // A burst of events about one object must cost one pass, not one each.
    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_look() {
        let queue = Queue::new();
        for key in [1, 2, 1, 1, 2] {
            queue.wake(key);
        }
        assert_eq!(queue.depth(), 2);
        assert_eq!([next(&queue), next(&queue), next(&queue)], [Some(1), Some(2), None]);
    }

    // A replica that waits for months must neither grow with every object that ever was, nor call work late that it could
    // not have done.
    #[tokio::test(start_paused = true)]
    async fn who_may_not_work_keeps_nothing() {
        let queue = Queue::idle();
        queue.wake(1);
        queue.wake_after(2, Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((queue.depth(), next(&queue)), (0, None));
        queue.begin();
        assert_eq!(next(&queue), None);
        queue.wake(1);
        let work = queue.next().await.expect("open");
        assert_eq!((*work.key(), work.waited()), (1, Duration::ZERO));
    }

    // Two passes over one object at a time would race with each other; a change during a pass must not be lost.
    #[tokio::test(start_paused = true)]
    async fn a_key_in_work_waits_and_is_looked_at_again() {
        let queue = Queue::new();
        queue.wake(1);
        let work = queue.next().await.expect("open");
        queue.wake(1);
        queue.wake(1);
        assert_eq!(next(&queue), None);
        assert_eq!((queue.depth(), queue.in_work()), (1, 1));
        drop(work);
        assert_eq!([next(&queue), next(&queue)], [Some(1), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_delays_the_earliest_counts_and_a_look_forgets_both() {
        let queue = Queue::new();
        let start = Instant::now();
        queue.wake_after(1, Duration::from_secs(30));
        queue.wake_after(1, Duration::from_secs(10));
        queue.wake_after(1, Duration::from_secs(20));
        drop(queue.next().await.expect("open"));
        assert_eq!(start.elapsed().as_secs(), 10);
        queue.wake_after(1, Duration::from_secs(10));
        queue.wake(1);
        drop(queue.next().await.expect("open"));
        let nothing = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
        assert!(nothing.is_err());
    }

    // An operator that may not write for a while must show what waits for it, begin with what waited longest, and hear the
    // end.
    #[tokio::test(start_paused = true)]
    async fn what_is_held_keeps_its_place_and_is_seen() {
        let queue = Queue::new();
        let until = Instant::now() + Duration::from_secs(30);
        let hold = move || {
            until
                .checked_duration_since(Instant::now())
                .filter(|wait| !wait.is_zero())
        };
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    let mut seen = Vec::new();
                    while let Some(work) = queue.next_unless(hold).await {
                        seen.push((*work.key(), work.waited().as_secs()));
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    seen
                })
            })
            .collect();
        for key in 0..5 {
            queue.wake(key);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        queue.wake_after(9, Duration::from_secs(1));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!((queue.depth(), queue.in_work()), (6, 0));
        tokio::time::sleep(Duration::from_secs(60)).await;
        queue.close();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.await.expect("no panic"));
        }
        all.sort_unstable();
        assert_eq!(all, [(0, 30), (1, 29), (2, 28), (3, 28), (4, 27), (9, 25)]);

        let queue = Queue::<u8>::new();
        let held = queue.next_unless(|| Some(Duration::from_secs(3600)));
        let closed = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            queue.close();
        };
        let (work, ()) = tokio::time::timeout(Duration::from_secs(2), async { tokio::join!(held, closed) })
            .await
            .expect("the end is heard");
        assert!(work.is_none());
    }

    // The first sign of an operator that is too slow is how long its work waits; what is put off on purpose does not.
    #[tokio::test(start_paused = true)]
    async fn waiting_counts_from_when_a_key_is_due() {
        let queue = Queue::new();
        let after = async |seconds| tokio::time::advance(Duration::from_secs(seconds)).await;
        queue.wake(1);
        after(2).await;
        queue.wake(1);
        after(1).await;
        let work = queue.next().await.expect("open");
        assert_eq!(work.waited().as_secs(), 3);
        queue.wake(1);
        after(4).await;
        queue.wake(1);
        drop(work);
        assert_eq!(
            queue.next().await.expect("open").waited().as_secs(),
            4,
            "woken while in work"
        );
        queue.wake_after(1, Duration::from_secs(10));
        after(15).await;
        assert_eq!(
            queue.next().await.expect("open").waited().as_secs(),
            5,
            "due five seconds ago"
        );
    }

    // An idle worker must not sleep through work that arrives while all others are busy.
    #[tokio::test(start_paused = true)]
    async fn every_waiting_worker_gets_work_and_hears_the_end() {
        let queue = Queue::new();
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    let mut seen = Vec::new();
                    while let Some(work) = queue.next().await {
                        seen.push(*work.key());
                        tokio::time::sleep(Duration::from_secs(10)).await;
                    }
                    seen
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let start = Instant::now();
        queue.wake_after(3, Duration::from_secs(1));
        queue.wake(1);
        queue.wake(2);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(queue.in_work(), 3);
        queue.close();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.await.expect("no panic"));
        }
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
        assert_eq!(start.elapsed().as_secs(), 11);
    }
}
