//! How often the status of one object may be written. A roll-out makes a new picture several times a second; what a
//! person or a program waits for (a condition that turns, a generation that is taken in) is published at once, and the
//! rest once in two seconds.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use flowctl_api::Status;
use tokio::time::Instant;

/// Between two statuses of one object in which nothing turned.
const BETWEEN: Duration = Duration::from_secs(2);

/// When statuses were last written, by uid. Older entries than [`BETWEEN`] are forgotten.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    written: Mutex<HashMap<String, Instant>>,
}

// === impl Pace ===

impl Pace {
    /// Whether this status may be written now, or after what time.
    pub(crate) fn ask(&self, uid: &str, published: Option<&Status>, wanted: &Status) -> Result<(), Duration> {
        if published.is_none_or(|published| turns(published, wanted)) {
            return Ok(());
        }
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = written.get(uid).map(Instant::elapsed);
        match passed.and_then(|passed| BETWEEN.checked_sub(passed)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// A status was written.
    pub(crate) fn wrote(&self, uid: &str) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.retain(|_, at| at.elapsed() < BETWEEN);
        written.insert(uid.to_owned(), Instant::now());
    }
}

/// Whether a condition turns, or another generation of the spec is taken in.
fn turns(published: &Status, wanted: &Status) -> bool {
    fn told(status: &Status) -> impl Iterator<Item = (&str, &str)> {
        status
            .conditions
            .iter()
            .map(|condition| (condition.type_.as_str(), condition.status.as_str()))
    }
    let moved = told(wanted).any(|condition| !told(published).any(|published| published == condition));
    moved || published.observed_generation != wanted.observed_generation
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(ready: &str, why: &str) -> Status {
        let condition = json!({"type": "Ready", "status": ready, "reason": "R", "message": why,
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({"observedGeneration": 1, "why": why, "conditions": [condition]}))
            .expect("a status")
    }

    // `kubectl wait` must not wait for our comfort, and a roll-out must not cost a write for each of its pods' steps.
    #[tokio::test(start_paused = true)]
    async fn what_turns_is_written_at_once_and_the_rest_is_gathered() {
        let pace = Pace::default();
        let published = status("False", "0/3");
        assert_eq!(pace.ask("u", None, &published), Ok(()));
        pace.wrote("u");
        assert_eq!(pace.ask("u", Some(&published), &status("False", "1/3")), Err(BETWEEN));
        assert_eq!(pace.ask("other", Some(&published), &status("False", "1/3")), Ok(()));
        assert_eq!(pace.ask("u", Some(&published), &status("True", "")), Ok(()));
        tokio::time::advance(BETWEEN).await;
        assert_eq!(pace.ask("u", Some(&published), &status("False", "2/3")), Ok(()));
        pace.wrote("other");
        assert_eq!(pace.written.lock().expect("no panic").len(), 1);
    }
}
