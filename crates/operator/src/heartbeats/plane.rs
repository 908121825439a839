//! One control plane and what was heard of it: decoded messages go in, objects whose evidence turned are woken. What a
//! message means is decided in `plan::heartbeat`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use flowctl_plan::heartbeat::{Evidence, Expectation, Heard, ObjectEvidence, PlaneState, Tick, Turned};
use tokio::time::{Instant, sleep};

use super::{
    address::Address,
    translate::{Keys, MOST_NUMBERS, Numbers},
};
use crate::{queue::Queue, subject::Subject};

/// How long a pass waits for a control plane that was opened just now: one that is there answers at once.
const FIRST_ANSWER: Duration = Duration::from_millis(500);
const A_MOMENT: Duration = Duration::from_millis(20);

/// What is kept of a control plane.
#[derive(Debug)]
pub(super) struct Plane {
    pub(super) address: Address,
    /// The administrator's, and not one that an object names.
    pub(super) is_default: bool,
    pub(super) keys: Arc<Keys>,
    begun: Instant,
    opened: Instant,
    queue: Queue<Subject>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    evidence: Evidence<Subject>,
    /// What components measure, by their id; of those that somebody expects.
    numbers: BTreeMap<String, Numbers>,
}

// === impl Plane ===

impl Plane {
    /// Nothing is known of it yet. `begun` is when the process began.
    pub(super) fn new(
        address: Address,
        is_default: bool,
        keys: Arc<Keys>,
        begun: Instant,
        queue: Queue<Subject>,
    ) -> Self {
        let state = State {
            evidence: Evidence::new(Tick(begun.elapsed())),
            numbers: BTreeMap::new(),
        };
        Self {
            address,
            is_default,
            keys,
            begun,
            opened: Instant::now(),
            queue,
            state: Mutex::new(state),
        }
    }

    /// Waits for its first answer, if it was opened just now. Tells whether that took time.
    pub(super) async fn first_answer(&self) -> bool {
        let until = self.opened + FIRST_ANSWER;
        let waits = || self.state() == PlaneState::Connecting && Instant::now() < until;
        let has_to = waits();
        while waits() {
            sleep(A_MOMENT).await;
            self.pass_time();
        }
        has_to
    }

    /// One thing that was said.
    pub(super) fn hear(&self, heard: Heard) {
        let now = self.now();
        let mut state = self.lock();
        if let Heard::Removed { id } = &heard {
            state.numbers.remove(id);
        }
        let turned = state.evidence.hear(heard, now);
        drop(state);
        self.wake(turned);
    }

    /// Everything that a list said, at one instant.
    pub(super) fn hear_all(&self, all: Vec<Heard>) {
        let now = self.now();
        let mut state = self.lock();
        let turns: Vec<_> = all.into_iter().map(|heard| state.evidence.hear(heard, now)).collect();
        drop(state);
        for turned in turns {
            self.wake(turned);
        }
    }

    /// What components measure now, instead of whatever was known.
    pub(super) fn replace_numbers(&self, all: impl IntoIterator<Item = (String, Numbers)>) {
        let mut state = self.lock();
        state.numbers.clear();
        for (id, numbers) in all {
            state.measure(&id, numbers);
        }
    }

    /// What a component measures now, beside what else was known of it.
    pub(super) fn measure(&self, id: &str, numbers: Numbers) {
        if !numbers.is_empty() {
            self.lock().measure(id, numbers);
        }
    }

    /// Time alone may turn something.
    pub(super) fn pass_time(&self) {
        let now = self.now();
        let turned = self.lock().evidence.pass_time(now);
        self.wake(turned);
    }

    /// What an object expects from now on, and the evidence of it.
    pub(super) fn look(&self, subject: &Subject, expectation: Expectation) -> ObjectEvidence {
        let now = self.now();
        let mut state = self.lock();
        state.evidence.expect(subject.clone(), expectation, now);
        state.evidence.of(subject, now)
    }

    pub(super) fn forget(&self, subject: &Subject) {
        self.lock().evidence.forget(subject);
    }

    pub(super) fn state(&self) -> PlaneState {
        self.lock().evidence.state().clone()
    }

    /// Since the last beat of each component that is expected, in seconds.
    pub(super) fn ages(&self) -> Vec<f64> {
        let now = self.now();
        let state = self.lock();
        state.evidence.ages(now).map(|(_, _, age)| age.as_secs_f64()).collect()
    }

    /// Only these ids are known yet, so nothing is measured by any other.
    pub(super) fn keep_numbers_of(&self, is_named: impl Fn(&str) -> bool) {
        self.lock().numbers.retain(|id, _| is_named(id));
    }

    /// Looks at what each object's components measure, in the order of their ids, as long as they are heard: what a silent
    /// one measured last is no longer true.
    pub(super) fn each_number(&self, mut look: impl FnMut(&Subject, &str, &str, f64)) {
        let state = self.lock();
        for (id, numbers) in &state.numbers {
            for subject in state.evidence.heard_by(id) {
                for (key, value) in numbers {
                    look(subject, id, key, *value);
                }
            }
        }
    }

    fn wake(&self, turned: Turned<Subject>) {
        for subject in turned.owners {
            self.queue.wake(subject);
        }
    }

    fn now(&self) -> Tick {
        Tick(self.begun.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// Only of those that somebody expects: a server may list any number of others.
    fn measure(&mut self, id: &str, numbers: Numbers) {
        if self.evidence.owners_of(id).next().is_some() {
            let known = self.numbers.entry(id.to_owned()).or_default();
            for (key, value) in numbers {
                // A component that measures something else each time would fill the memory.
                if known.len() < MOST_NUMBERS || known.contains_key(&key) {
                    known.insert(key, value);
                }
            }
        }
    }
}
