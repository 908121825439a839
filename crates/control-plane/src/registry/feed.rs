//! Who changed: for watchers. A subscription holds the *names* of what changed, not how; the watcher reads the registry when it
//! gets round to it. So changes that come faster than a watcher reads fold into one, and a storm costs no more memory than
//! there are services.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

/// Something that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Rises with every change; 0 until it is published.
    pub revision: u64,
    /// What changed.
    pub subject: Subject,
    /// Why it is gone, if it is gone. It may be back when the change is read: the registry's answer counts.
    pub removal: Option<RemovalReason>,
}

/// What can change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A service, by its id.
    Service(Arc<str>),
    /// A pipeline run, by its id.
    Run(Arc<str>),
}

/// Why a service is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalReason {
    /// It, or somebody for it, unregistered.
    Unregistered,
    /// It was expired for longer than the retention.
    Retention,
}

/// What changed since one last asked.
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<Queue>,
    since: u64,
}

/// The subscriber was so slow that not even the names of what changed were kept: it must read everything anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("changes were lost, because they were not read for too long; begin anew")]
pub struct Lost;

#[derive(Debug)]
pub(super) struct Feed {
    state: Mutex<State>,
    /// Subjects that may wait for one subscriber. Those that are gone count, too: without a bound, ids that come and go would fill
    /// the memory behind a reader that has stopped.
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    revision: u64,
    queues: Vec<Weak<Queue>>,
}

#[derive(Debug)]
struct Queue {
    /// `None` when there were too many.
    pending: Mutex<Option<HashMap<Subject, Change>>>,
    notify: Notify,
}

// === impl Change ===

impl Change {
    pub(super) fn service(id: &str) -> Self {
        Self::of(Subject::Service(id.into()), None)
    }

    pub(super) fn removed(id: &str, reason: RemovalReason) -> Self {
        Self::of(Subject::Service(id.into()), Some(reason))
    }

    pub(super) fn run(id: &str) -> Self {
        Self::of(Subject::Run(id.into()), None)
    }

    fn of(subject: Subject, removal: Option<RemovalReason>) -> Self {
        Self {
            revision: 0,
            subject,
            removal,
        }
    }
}

// === impl Subject ===

impl Subject {
    /// The id of the service or of the run.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Service(id) | Self::Run(id) => id,
        }
    }
}

// === impl Feed ===

impl Feed {
    pub(super) fn new(most: usize) -> Self {
        let state = Mutex::default();
        Self { state, most }
    }

    pub(super) fn subscribe(&self) -> Subscription {
        let queue = Arc::new(Queue {
            pending: Mutex::new(Some(HashMap::new())),
            notify: Notify::new(),
        });
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.queues.push(Arc::downgrade(&queue));
        Subscription {
            queue,
            since: state.revision,
        }
    }

    /// Tells every subscription, in the order of revisions.
    pub(super) fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let first = state.revision;
        let changes: Vec<_> = changes
            .into_iter()
            .map(|change| {
                state.revision += 1;
                let revision = state.revision;
                Change { revision, ..change }
            })
            .collect();
        if state.revision == first {
            return;
        }
        state.queues.retain(|queue| {
            let Some(queue) = queue.upgrade() else {
                return false;
            };
            let mut pending = queue.pending.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(waiting) = &mut *pending {
                waiting.extend(changes.iter().map(|change| (change.subject.clone(), change.clone())));
                if waiting.len() > self.most {
                    *pending = None;
                }
            }
            drop(pending);
            queue.notify.notify_one();
            true
        });
    }
}

// === impl Queue ===

impl Queue {
    fn take(&self) -> Option<HashMap<Subject, Change>> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.replace(HashMap::new())
    }
}

// === impl Subscription ===

impl Subscription {
    /// The revision at which it began: what is read from the registry afterwards is at least that new.
    #[must_use]
    pub fn since(&self) -> u64 {
        self.since
    }

    /// Waits until something has changed, and returns all of it, by revision; each subject once, with its last change.
    /// Nothing is lost if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`Lost`], once, when too much has changed since the last call. What changes afterwards is told again.
    pub async fn changed(&mut self) -> Result<Vec<Change>, Lost> {
        loop {
            let waiting = self.queue.take().ok_or(Lost)?;
            if !waiting.is_empty() {
                let mut changes: Vec<_> = waiting.into_values().collect();
                changes.sort_by_key(|change| change.revision);
                return Ok(changes);
            }
            self.queue.notify.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A watcher that is slow in a storm must still learn the last state of every service, once, without eating memory.
    #[tokio::test]
    async fn changes_fold_while_nobody_reads() {
        let feed = Feed::new(2);
        feed.publish([Change::service("before")]);
        let mut subscription = feed.subscribe();
        assert_eq!(subscription.since(), 1);
        for _ in 0..1000 {
            feed.publish([Change::service("a"), Change::removed("b", RemovalReason::Unregistered)]);
        }
        feed.publish([Change::service("b")]);
        let changes = subscription.changed().await.expect("two subjects");
        let seen: Vec<_> = changes.iter().map(|change| (change.revision, change.removal)).collect();
        assert_eq!(seen, [(2000, None), (2002, None)]);
    }

    // Ids that come and go behind a reader that has stopped must not fill the memory; and it must learn that it missed some.
    #[tokio::test]
    async fn what_is_not_read_for_too_long_is_lost_and_told() {
        let feed = Feed::new(2);
        let (mut slow, mut quick) = (feed.subscribe(), feed.subscribe());
        for id in ["a", "b", "c", "d"] {
            feed.publish([Change::removed(id, RemovalReason::Unregistered)]);
            assert_eq!(quick.changed().await.map(|changes| changes.len()), Ok(1));
        }
        assert_eq!(slow.changed().await, Err(Lost));
        feed.publish([Change::service("e")]);
        assert_eq!(slow.changed().await.map(|changes| changes.len()), Ok(1));
    }
}
