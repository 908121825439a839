//! Fights over a field: another manager that sets back what we set, again and again. Twice we take the field back; the
//! third time we ask without force, so that the apiserver names the other one, and leave the child as it is. If it names
//! nobody, the write is done, and how often that happens is for `mends` to judge. The
//! apiserver names it for ever, also when it was uninstalled: so the field is taken back once more after an hour, and if it is set back
//! then, after twice the time. What is remembered here is small, bounded in time, and lost without harm: then the fight has two
//! more rounds.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use flowctl_plan::FailureKind;
use kube::core::Status;
use tokio::time::Instant;

use crate::{mends::Mends, write::Force};

/// How often we take a field back within [`MEMORY`].
const ROUNDS: u32 = 2;
/// How long a fight is remembered after its first round, or after the other manager was last found to insist. A person who edits by hand is overruled more often than twice
/// only if they keep at it.
const MEMORY: Duration = Duration::from_secs(600);
/// After what time the field is taken back once more: at first, and at most. Each try may cost a roll-out, and so does each
/// answer to it.
const FIRST_TRY: Duration = Duration::from_secs(3600);
const LAST_TRY: Duration = Duration::from_secs(86_400);

/// Rounds by uid of the child, and what is undone by nobody who has a name.
#[derive(Debug, Default)]
pub(crate) struct Fights {
    rounds: Mutex<HashMap<String, Round>>,
    pub(crate) mends: Mends,
}

#[derive(Debug)]
struct Round {
    seal: String,
    count: u32,
    since: Instant,
    /// How often it was taken back once more, and when it will be next; counted from the last round.
    tries: u32,
    next_try: Instant,
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
            Some(round) if round.seal == seal && round.is_over() && Instant::now() < round.next_try => Force::No,
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
            Some(round) if round.seal == seal => round.again(),
            _ => {
                let now = Instant::now();
                let round = Round {
                    seal: seal.to_owned(),
                    count: u32::from(reason == Reason::Drift),
                    since: now,
                    tries: 0,
                    next_try: now,
                };
                rounds.insert(uid.to_owned(), round);
            }
        }
    }
}

// === impl Round ===

impl Round {
    /// Whether we have taken the field back often enough.
    const fn is_over(&self) -> bool {
        self.count >= ROUNDS
    }

    fn again(&mut self) {
        let now = Instant::now();
        if self.is_over() && now >= self.next_try {
            // Once more. Whether the other one is still there shows soon.
            self.since = now;
            self.tries = self.tries.saturating_add(1);
        }
        self.count = self.count.saturating_add(1);
        if self.is_over() && now >= self.next_try {
            let pause = FIRST_TRY.saturating_mul(1 << self.tries.min(8)).min(LAST_TRY);
            self.next_try = now + pause;
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

    // A controller that was uninstalled stays named in the object for ever: the field must not stay its for ever.
    #[tokio::test(start_paused = true)]
    async fn a_fight_ends_some_time_after_the_other_manager_has_left() {
        /// Passes every minute; gives after how many minutes each write with force came.
        async fn fight(fights: &Fights, minutes: u64, is_there: impl Fn(u64) -> bool) -> Vec<u64> {
            let mut forced = Vec::new();
            let mut is_set_back = true;
            for minute in 0..minutes {
                if is_set_back {
                    match fights.force("u", "a") {
                        Force::Yes => {
                            fights.wrote("u", "a", Reason::Drift);
                            forced.push(minute);
                            is_set_back = false;
                        }
                        Force::No => fights.refused("u", "a"),
                    }
                }
                is_set_back |= is_there(minute);
                tokio::time::advance(Duration::from_secs(60)).await;
            }
            forced
        }
        let fights = Fights::default();
        let stays = fight(&fights, 3 * 24 * 60, |_| true).await;
        assert_eq!(
            stays[..5],
            [0, 1, 61, 181, 421],
            "a manager that stays gets less and less of it"
        );
        assert!(stays.len() <= 9, "{stays:?}");

        let fights = Fights::default();
        let leaves = fight(&fights, 24 * 60, |minute| minute < 30).await;
        assert_eq!(leaves, [0, 1, 61]);
        assert_eq!(fights.force("v", "b"), Force::Yes);
        assert!(
            fights.rounds.lock().expect("no panic").is_empty(),
            "it is over and forgotten"
        );
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
