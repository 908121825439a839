//! Who refers to which ExternalProcessor: kept from watch events, so that a change of one wakes those who refer to it
//! without looking at anybody else. It must hold what the objects say, granted or not; whether a reference counts is
//! decided where it is used.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use flowctl_plan::Key;

use crate::subject::Subject;

/// The reverse index.
#[derive(Debug, Default)]
pub(crate) struct References {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    targets: HashMap<Subject, BTreeSet<Key>>,
    referrers: HashMap<Key, BTreeSet<Subject>>,
}

// === impl References ===

impl References {
    /// What `referrer` refers to now; nothing when it is gone. Gives the processors that it began or ceased to refer to.
    pub(crate) fn set(&self, referrer: &Subject, targets: BTreeSet<Key>) -> Vec<Key> {
        let mut state = self.lock();
        let before = state.targets.remove(referrer).unwrap_or_default();
        let changed: Vec<Key> = before.symmetric_difference(&targets).cloned().collect();
        for key in &changed {
            let referrers = state.referrers.entry(key.clone()).or_default();
            if targets.contains(key) {
                referrers.insert(referrer.clone());
            } else {
                referrers.remove(referrer);
            }
            if referrers.is_empty() {
                state.referrers.remove(key);
            }
        }
        if !targets.is_empty() {
            state.targets.insert(referrer.clone(), targets);
        }
        changed
    }

    /// Who refers to this processor, whether it exists or not.
    pub(crate) fn of(&self, target: &Key) -> Vec<Subject> {
        self.lock()
            .referrers
            .get(target)
            .map(|set| set.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Who refers to processors of a namespace.
    pub(crate) fn that_lead_to(&self, namespace: &str) -> BTreeSet<Subject> {
        let state = self.lock();
        let referrers = state.referrers.iter().filter(|(key, _)| key.namespace == namespace);
        referrers.flat_map(|(_, referrers)| referrers.iter().cloned()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys<const N: usize>(names: [&str; N]) -> BTreeSet<Key> {
        names.iter().map(|name| Key::new("ns", *name)).collect()
    }

    // A Pipeline waits for a processor that does not exist yet: it must be woken when that one appears.
    #[test]
    fn referrers_are_known_before_their_target_and_forgotten_with_themselves() {
        let index = References::default();
        let (a, b) = (
            Subject::pipeline(Key::new("ns", "a")),
            Subject::processor(Key::new("ns", "b")),
        );
        assert_eq!(index.set(&a, keys(["x", "y"])).len(), 2);
        assert_eq!(index.set(&b, keys(["y"])), [Key::new("ns", "y")]);
        assert_eq!(index.of(&Key::new("ns", "y")), [a.clone(), b.clone()]);

        assert_eq!(
            index.set(&a, keys(["x", "z"])),
            [Key::new("ns", "y"), Key::new("ns", "z")]
        );
        assert_eq!(index.of(&Key::new("ns", "y")), std::slice::from_ref(&b));
        assert_eq!(index.set(&a, keys(["x", "z"])), []);

        assert_eq!(index.that_lead_to("ns"), BTreeSet::from([a.clone(), b.clone()]));
        assert_eq!(index.that_lead_to("other"), BTreeSet::new());

        index.set(&a, BTreeSet::new());
        index.set(&b, BTreeSet::new());
        let state = index.lock();
        assert!(state.targets.is_empty() && state.referrers.is_empty(), "{state:?}");
    }
}
