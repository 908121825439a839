//! Signs of life of one watch, for whoever judges it: whether its list is complete, when it was last heard of, and what
//! went wrong; and the other way round, the wish that it lists again. It must not know what is watched.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Signs of life of one watch.
#[derive(Debug)]
pub(crate) struct Life {
    /// The kind that is watched.
    pub(crate) kind: &'static str,
    /// The namespace, unless it is all of them.
    pub(crate) namespace: Option<String>,
    state: Mutex<State>,
    changed: Arc<Notify>,
    again: Notify,
}

#[derive(Debug)]
struct State {
    seen: Instant,
    problem: Option<Problem>,
    /// Which list is wanted, and which is complete.
    wanted: ListNumber,
    listed: ListNumber,
}

/// Which of the lists that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ListNumber(u64);

/// What the last attempt failed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// There is no rule for it, or no such namespace any more.
    Forbidden(String),
    /// Anything else.
    Other(String),
}

// === impl Life ===

impl Life {
    /// A watch that is to list; `changed` is notified when its life takes a turn.
    pub(crate) fn new(kind: &'static str, namespace: Option<String>, changed: Arc<Notify>) -> Self {
        let state = State {
            seen: Instant::now(),
            problem: None,
            wanted: ListNumber(1),
            listed: ListNumber(0),
        };
        Self {
            kind,
            namespace,
            state: Mutex::new(state),
            changed,
            again: Notify::new(),
        }
    }

    /// Whether a list is complete that began after it was last asked for.
    pub(crate) fn is_listed(&self) -> bool {
        let state = self.state();
        state.listed >= state.wanted
    }

    /// Time since the last sign of life.
    pub(crate) fn age(&self) -> Duration {
        self.state().seen.elapsed()
    }

    /// What the last attempt failed with.
    pub(crate) fn problem(&self) -> Option<Problem> {
        self.state().problem.clone()
    }

    /// Asks for a list that begins from now on: what was listed before does not count any more.
    pub(crate) fn list_again(&self) {
        self.state().wanted.0 += 1;
        self.again.notify_one();
        self.changed.notify_one();
    }

    /// Waits until a list is asked for.
    pub(crate) async fn asked_again(&self) {
        loop {
            self.again.notified().await;
            // Perhaps it was answered since.
            if !self.is_listed() {
                return;
            }
        }
    }

    /// Which list one that begins now is.
    pub(crate) fn wanted(&self) -> ListNumber {
        self.state().wanted
    }

    /// A list is complete; which, was asked when it began.
    pub(crate) fn listed(&self, number: ListNumber) {
        self.seen();
        self.state().listed = number;
        self.changed.notify_one();
    }

    /// A sign of life.
    pub(crate) fn seen(&self) {
        let mut state = self.state();
        state.seen = Instant::now();
        state.problem = None;
    }

    /// An attempt failed.
    pub(crate) fn failed(&self, problem: Problem) {
        self.state().problem = Some(problem);
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Problem ===

impl Problem {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Forbidden(text) | Self::Other(text) => text,
        }
    }
}
