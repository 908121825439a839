//! Fights over a field: another manager that sets back what we set, again and again. Twice we take the field back; the
//! third time we ask without force, so that the apiserver names the other one, and leave the child as it is. What is
//! remembered here is small, bounded in time, and lost without harm: then the fight has two more rounds.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use flowctl_plan::FailureKind;
use kube::core::Status;
use tokio::time::Instant;

use crate::write::Force;

/// How often we take a field back within [`MEMORY`].
const ROUNDS: u32 = 2;
/// How long a fight is remembered after its first round, or after the other manager was last found to insist. A person who edits by hand is overruled more often than twice
/// only if they keep at it.
const MEMORY: Duration = Duration::from_secs(600);

/// Rounds by uid of the child.
#[derive(Debug, Default)]
pub(crate) struct Fights {
    rounds: Mutex<HashMap<String, Round>>,
}

#[derive(Debug)]
struct Round {
    seal: String,
    count: u32,
    since: Instant,
}

/// Why a child is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It was last written with something else than what is wanted now.
    News,
    /// It was last written with just this, and does not hold it any more.
    Drift,
}

// === impl Fights ===

impl Fights {
    /// Whether to insist when the child `uid` is written with what has this hash.
    pub(crate) fn force(&self, uid: &str, seal: &str) -> Force {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        rounds.retain(|_, round| round.since.elapsed() < MEMORY);
        match rounds.get(uid) {
            Some(round) if round.seal == seal && round.count >= ROUNDS => Force::No,
            _ => Force::Yes,
        }
    }

    /// Asked without force, the apiserver named the other manager: as long as that is so, the fight is not over.
    pub(crate) fn refused(&self, uid: &str, seal: &str) {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(round) = rounds.get_mut(uid).filter(|round| round.seal == seal) {
            round.since = Instant::now();
        }
    }

    /// It was written. The same hash twice is drift, whatever the reason seems to be: somebody took it away.
    pub(crate) fn wrote(&self, uid: &str, seal: &str, reason: Reason) {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        match rounds.get_mut(uid) {
            Some(round) if round.seal == seal => round.count = round.count.saturating_add(1),
            _ => {
                let round = Round {
                    seal: seal.to_owned(),
                    count: u32::from(reason == Reason::Drift),
                    since: Instant::now(),
                };
                rounds.insert(uid.to_owned(), round);
            }
        }
    }
}

/// The other manager, when this answer to a write without force names one.
pub(crate) fn conflict(status: &Status) -> Option<FailureKind> {
    let causes = &status.details.as_ref()?.causes;
    let cause = causes.iter().find(|cause| cause.reason == "FieldManagerConflict")?;
    // `conflict with "kubectl-edit" using apps/v1`
    let manager = cause.message.split('"').nth(1).unwrap_or(&cause.message).to_owned();
    Some(FailureKind::FieldConflict {
        manager,
        message: format!("{}: {}", cause.field, cause.message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // Two controllers that overrule each other would write for ever.
    #[tokio::test(start_paused = true)]
    async fn two_rounds_then_a_question_and_after_a_while_again() {
        let fights = Fights::default();
        let write = |uid: &str, seal: &str, reason: Reason| {
            let force = fights.force(uid, seal);
            if force == Force::Yes {
                fights.wrote(uid, seal, reason);
            }
            force
        };
        let rounds = |seal: &str| [(); 4].map(|()| write("u", seal, Reason::Drift));
        let fight = [Force::Yes, Force::Yes, Force::No, Force::No];
        assert_eq!(rounds("a"), fight);
        assert_eq!(
            write("v", "a", Reason::Drift),
            Force::Yes,
            "another child is another fight"
        );
        assert_eq!(
            write("u", "b", Reason::News),
            Force::Yes,
            "what is wanted anew is tried with force"
        );
        assert_eq!(rounds("b"), fight);
        tokio::time::advance(MEMORY).await;
        assert_eq!(rounds("b"), fight);
        assert_eq!(fights.rounds.lock().expect("no panic").len(), 1);
    }

    // A manager that stays would otherwise get its field back every ten minutes, for ever.
    #[tokio::test(start_paused = true)]
    async fn a_fight_lasts_as_long_as_the_other_manager_insists() {
        let fights = Fights::default();
        fights.wrote("u", "a", Reason::Drift);
        fights.wrote("u", "a", Reason::Drift);
        for _ in 0..10 {
            assert_eq!(fights.force("u", "a"), Force::No);
            fights.refused("u", "a");
            tokio::time::advance(MEMORY / 2).await;
        }
        fights.refused("u", "b");
        tokio::time::advance(MEMORY / 2).await;
        assert_eq!(fights.force("u", "a"), Force::Yes, "nobody insisted on this any more");
    }

    #[test]
    fn the_other_manager_is_named() {
        let cause = json!({"reason": "FieldManagerConflict", "field": ".spec.replicas",
            "message": "conflict with \"autoscaler\" using apps/v1"});
        let status =
            json!({"code": 409, "message": "Apply failed", "reason": "Conflict", "details": {"causes": [cause]}});
        let status: Status = serde_json::from_value(status).expect("a status");
        let Some(FailureKind::FieldConflict { manager, message }) = conflict(&status) else {
            panic!("no conflict")
        };
        assert_eq!(manager, "autoscaler");
        assert!(message.contains(".spec.replicas"), "{message}");
        assert_eq!(conflict(&Status::failure("the uid changed", "Conflict")), None);
    }
}
