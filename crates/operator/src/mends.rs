//! What we put right again and again although nobody is named who could be asked: a child that is deleted whenever it
//! appears, a field that is dropped by whoever writes the whole object, a value that is changed on its way. A few times
//! it is put right at once; then it is left as it is for a while after each time, ever longer, and the status says so. It ends by
//! itself: what the other one has left alone is put right once more, and stays. What is remembered is bounded in time, and
//! lost without harm: then it is put right a few more times at once.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use flowctl_plan::ChildRef;
use tokio::time::Instant;

use crate::fights::Reason;

/// How often a child is put right before it is left alone for the first time. A person who deletes something twice finds it back at once.
const AT_ONCE: u32 = 3;
/// How long it is left alone: at first, and at most. Putting it right may cost a roll-out each time.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LAST_PAUSE: Duration = Duration::from_secs(3600);
/// What stayed right for so long, and for as long as it was left alone, is a new matter.
const MEMORY: Duration = Duration::from_secs(600);
/// Between two looks for what does not count any more.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(60);

/// What was written lately, by uid of the owner and child: a child that was deleted comes back with another uid.
#[derive(Debug, Default)]
pub(crate) struct Mends {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    mends: HashMap<(String, ChildRef), Mend>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Mend {
    seal: String,
    /// How often it was put right.
    count: u32,
    /// The last time.
    at: Instant,
    /// For how long it is left alone after that.
    pause: Duration,
}

// === impl Mends ===

impl Mends {
    /// Whether the child is left as it is for now, although it should be what has this hash.
    pub(crate) fn rests(&self, owner: &str, child: &ChildRef, seal: &str) -> bool {
        let state = self.lock();
        let mend = state.mends.get(&(owner.to_owned(), child.clone()));
        mend.is_some_and(|mend| mend.seal == seal && mend.at.elapsed() < mend.pause)
    }

    /// It was created or changed. The same hash twice means that somebody undid it, whatever the reason seems to be.
    pub(crate) fn wrote(&self, owner: &str, child: &ChildRef, seal: &str, reason: Reason) {
        let now = Instant::now();
        let mut state = self.lock();
        state.sweep(now);
        let key = (owner.to_owned(), child.clone());
        let before = state
            .mends
            .get(&key)
            .filter(|mend| mend.seal == seal && mend.counts(now));
        let count = match (before, reason) {
            (Some(before), _) => before.count.saturating_add(1),
            (None, Reason::News) => 0,
            (None, Reason::Drift) => 1,
        };
        let pause = match count.checked_sub(AT_ONCE) {
            None => Duration::ZERO,
            Some(times) => FIRST_PAUSE.saturating_mul(1 << times.min(16)).min(LAST_PAUSE),
        };
        let mend = Mend {
            seal: seal.to_owned(),
            count,
            at: now,
            pause,
        };
        state.mends.insert(key, mend);
    }

    /// We deleted it ourselves.
    pub(crate) fn removed(&self, owner: &str, child: &ChildRef) {
        self.lock().mends.remove(&(owner.to_owned(), child.clone()));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_none_or(|swept| now >= swept + BETWEEN_SWEEPS) {
            self.mends.retain(|_, mend| mend.counts(now));
            self.swept = Some(now);
        }
    }
}

// === impl Mend ===

impl Mend {
    fn counts(&self, now: Instant) -> bool {
        now < self.at + self.pause + self.pause.max(MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use flowctl_plan::ChildKind;

    use super::*;

    fn child(name: &str) -> ChildRef {
        ChildRef {
            kind: ChildKind::Service,
            name: name.to_owned(),
        }
    }

    /// A look every second at what is undone at once while the other one is there; gives the seconds of the writes.
    async fn undone(mends: &Mends, seconds: u64, is_there: impl Fn(u64) -> bool) -> Vec<u64> {
        let mut written = Vec::new();
        let mut is_right = true;
        for second in 0..seconds {
            is_right &= !is_there(second);
            if !is_right && !mends.rests("o", &child("a"), "s") {
                mends.wrote("o", &child("a"), "s", Reason::Drift);
                written.push(second);
                is_right = true;
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        written
    }

    // A janitor that deletes a Service whenever it appears would cost as many writes as the apiserver takes, for ever.
    #[tokio::test(start_paused = true)]
    async fn what_is_undone_for_ever_is_put_right_ever_more_rarely() {
        let mends = Mends::default();
        let written = undone(&mends, 86_400, |_| true).await;
        assert_eq!(written[..6], [0, 1, 2, 12, 32, 72]);
        let pauses: Vec<u64> = written.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(
            pauses.iter().all(|pause| *pause <= LAST_PAUSE.as_secs()),
            "it is found within the hour when the other one has left: {pauses:?}"
        );
        assert!(written.len() <= 35, "{} in a day", written.len());
    }

    // What a person does once or twice is put right at once, and a fight that is over leaves nothing behind.
    #[tokio::test(start_paused = true)]
    async fn it_ends_when_the_other_one_leaves() {
        let mends = Mends::default();
        let written = undone(&mends, 3000, |second| second < 100).await;
        assert_eq!(written, [0, 1, 2, 12, 32, 72, 152]);
        assert_eq!(undone(&mends, 3, |_| true).await, [0, 1, 2], "another matter");
        tokio::time::advance(LAST_PAUSE).await;
        mends.wrote("p", &child("b"), "s", Reason::News);
        assert_eq!(mends.lock().mends.len(), 1, "what is over is forgotten");
    }

    // What a user wants anew must be written at once, and what we delete and make again ourselves is nobody's mischief.
    #[tokio::test(start_paused = true)]
    async fn only_the_same_of_the_same_child_counts() {
        let mends = Mends::default();
        let (a, b) = (child("a"), child("b"));
        for _ in 0..4 {
            assert!(!mends.rests("o", &a, "s"));
            mends.wrote("o", &a, "s", Reason::News);
        }
        assert!(mends.rests("o", &a, "s"), "made once, and three times again");
        assert!(!mends.rests("o", &a, "t") && !mends.rests("o", &b, "s") && !mends.rests("p", &a, "s"));
        mends.removed("o", &a);
        assert!(!mends.rests("o", &a, "s"));
        for _ in 0..10 {
            mends.wrote("o", &b, "s", Reason::News);
            mends.wrote("o", &b, "t", Reason::News);
        }
        assert!(!mends.rests("o", &b, "t"), "a user who changes a spec to and fro");
    }
}
