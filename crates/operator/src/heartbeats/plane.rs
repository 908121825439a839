//! One control plane and what was heard of it: decoded messages go in, objects whose evidence turned are woken. What a
//! message means is decided in `plan::heartbeat`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use flowctl_plan::heartbeat::{Evidence, Expectation, Heard, ObjectEvidence, PlaneState, Tick, Turned};
use tokio::time::Instant;

use super::{
    address::Address,
    translate::{Keys, Numbers},
};
use crate::{queue::Queue, subject::Subject};

/// What is kept of a control plane.
#[derive(Debug)]
pub(super) struct Plane {
    pub(super) address: Address,
    /// The administrator's, and not one that an object names.
    pub(super) is_default: bool,
    pub(super) keys: Arc<Keys>,
    begun: Instant,
    queue: Queue<Subject>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    evidence: Evidence<Subject>,
    /// What components measure, by their id; of those that somebody expects.
    numbers: HashMap<String, Numbers>,
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
            numbers: HashMap::new(),
        };
        Self {
            address,
            is_default,
            keys,
            begun,
            queue,
            state: Mutex::new(state),
        }
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

    /// Since the last beat of each component that is expected, in seconds, sorted.
    pub(super) fn ages(&self) -> Vec<f64> {
        let now = self.now();
        let state = self.lock();
        let mut ages: Vec<f64> = state.evidence.ages(now).map(|(_, _, age)| age.as_secs_f64()).collect();
        ages.sort_unstable_by(f64::total_cmp);
        ages
    }

    /// Looks at what each object's components measure.
    pub(super) fn each_number(&self, mut look: impl FnMut(&Subject, &str, &str, f64)) {
        let state = self.lock();
        for (id, numbers) in &state.numbers {
            for subject in state.evidence.owners_of(id) {
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
            self.numbers.entry(id.to_owned()).or_default().extend(numbers);
        }
    }
}
