//! Children that the apiserver keeps otherwise than they were sent: a value that it rounds, a field that a webhook sets
//! back. Sending the same again would change nothing and cost a request in every pass, so it is remembered until the
//! child moves. What is remembered is bounded, and lost without harm: then the same is sent once more.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// How many are remembered. Beyond that all are forgotten, which costs one write for each.
const LIMIT: usize = 10_000;

/// What was sent without effect, by uid of the child.
#[derive(Debug, Default)]
pub(crate) struct Unmoved {
    sent: Mutex<HashMap<String, Sent>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Sent {
    seal: String,
    version: String,
}

// === impl Unmoved ===

impl Unmoved {
    /// Whether the child at this resource version was sent what has this hash, without effect.
    pub(crate) fn knows(&self, uid: &str, seal: &str, version: &str) -> bool {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.get(uid)
            .is_some_and(|sent| sent.seal == seal && sent.version == version)
    }

    /// What has this hash was sent, and the child stayed as it was at this resource version.
    pub(crate) fn stayed(&self, uid: &str, seal: &str, version: &str) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.len() >= LIMIT && !sent.contains_key(uid) {
            sent.clear();
        }
        let (seal, version) = (seal.to_owned(), version.to_owned());
        sent.insert(uid.to_owned(), Sent { seal, version });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Whoever moves the child, or wants something else, must be answered with a write.
    #[test]
    fn only_the_very_same_is_not_sent_again() {
        let unmoved = Unmoved::default();
        assert!(!unmoved.knows("u", "a", "1"));
        unmoved.stayed("u", "a", "1");
        assert!(unmoved.knows("u", "a", "1"));
        assert!(!unmoved.knows("u", "b", "1") && !unmoved.knows("u", "a", "2") && !unmoved.knows("v", "a", "1"));
        for number in 0..=LIMIT {
            unmoved.stayed(&format!("other {number}"), "a", "1");
        }
        assert!(unmoved.sent.lock().expect("no panic").len() <= LIMIT);
    }
}
