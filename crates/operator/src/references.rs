//! Who refers to which ExternalProcessor: kept from watch events, so that a change of one wakes those who refer to it
//! without looking at anybody else, and only when it is a change of something that they look at. It must hold what the
//! objects say, granted or not; whether a reference counts is decided where it is used.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, MutexGuard, PoisonError},
};

use flowctl_api::ExternalProcessor;
use flowctl_plan::{Key, references::looked_at};

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
    /// Hash of what referrers look at, for each processor that exists.
    shown: HashMap<Key, u64>,
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

    /// This processor is as it is now, or gone: gives who refers to it, if it looks otherwise to them.
    pub(crate) fn show(&self, target: &Key, now: Option<&ExternalProcessor>) -> Vec<Subject> {
        let now = now.map(|processor| {
            let mut hasher = DefaultHasher::new();
            looked_at(processor).to_string().hash(&mut hasher);
            hasher.finish()
        });
        let mut state = self.lock();
        let before = match now {
            Some(now) => state.shown.insert(target.clone(), now),
            None => state.shown.remove(target),
        };
        drop(state);
        if before == now { Vec::new() } else { self.of(target) }
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
    use serde_json::{Value, json};

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

    // A processor that a thousand Pipelines use would cost a thousand passes with each step of each of its pods.
    #[test]
    fn referrers_hear_of_what_they_look_at_and_of_nothing_else() {
        let index = References::default();
        let (key, referrer) = (Key::new("ns", "x"), Subject::pipeline(Key::new("ns", "a")));
        index.set(&referrer, keys(["x"]));
        let processor = |status: Value, image: &str| -> ExternalProcessor {
            serde_json::from_value(
                json!({"apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor",
                "metadata": {"namespace": "ns", "name": "x", "uid": "u"}, "status": status,
                "spec": {"role": "Processor", "port": 1, "workload": {"image": image}}}),
            )
            .expect("an ExternalProcessor")
        };
        let hear = |now: Option<&ExternalProcessor>| index.show(&key, now) == [referrer.clone()];
        let condition = |type_: &str, status: &str| {
            json!({"type": type_, "status": status, "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        assert!(hear(Some(&processor(json!({"pods": "0/1"}), "i"))), "it exists");
        assert!(!hear(Some(&processor(json!({"pods": "0/1"}), "i"))));
        let moves = json!({"pods": "0/1", "replicas": 1, "usedBy": 7, "observedGeneration": 2, "selector": "a=b",
            "revision": {"current": "a"}, "effective": {"image": "i"}, "conditions": [condition("Reconciling", "True")]});
        assert!(!hear(Some(&processor(moves.clone(), "i"))));
        let mut last = moves;
        for (field, value) in [
            ("pods", json!("1/1")),
            ("why", json!("it crashes")),
            ("endpoint", json!("x:1")),
            ("conditions", json!([condition("Ready", "True")])),
            ("conditions", json!([condition("Ready", "False")])),
            (
                "conditions",
                json!([condition("Ready", "False"), condition("Healthy", "False")]),
            ),
        ] {
            last[field] = value;
            assert!(hear(Some(&processor(last.clone(), "i"))), "{field}");
        }
        assert!(hear(Some(&processor(last, "j"))), "its spec");
        assert!(hear(None) && !hear(None), "it is gone");
        assert!(index.lock().shown.is_empty());
    }
}
