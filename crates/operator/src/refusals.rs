//! What the apiserver refused. A pass is made whenever anything about an object changes, and a roll-out that hangs
//! changes things every second; the same request would be refused each time. So the answer stands for as long as the
//! status says that it will be tried again after, and the passes until then only repeat it. Silence counts as an answer: a webhook that
//! hangs would otherwise hold a worker with every event. What is remembered is small, bounded in time, and lost without harm: then it is sent once more.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use flowctl_plan::{ChildRef, FailureKind};
use tokio::time::Instant;

/// No answer stands for longer: whoever repaired something and touches the object to say so must not wait for minutes.
const LONGEST: Duration = Duration::from_secs(30);

/// Answers, by uid of the owner and child.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    answers: Mutex<HashMap<(String, ChildRef), Answer>>,
}

#[derive(Debug)]
struct Answer {
    seal: String,
    kind: FailureKind,
    given: Instant,
    /// `None`: until the pass in which it was given says for how long.
    until: Option<Instant>,
}

// === impl Refusals ===

impl Refusals {
    /// The answer to what has this hash, if it still stands.
    pub(crate) fn stands(&self, owner: &str, child: &ChildRef, seal: &str) -> Option<FailureKind> {
        let answers = self.lock();
        let answer = answers.get(&(owner.to_owned(), child.clone()))?;
        let stands = answer.seal == seal && answer.until.is_some_and(|until| Instant::now() < until);
        stands.then(|| answer.kind.clone())
    }

    /// What has this hash was refused.
    pub(crate) fn refused(&self, owner: &str, child: &ChildRef, seal: &str, kind: &FailureKind) {
        let mut answers = self.lock();
        answers.retain(|_, answer| answer.given.elapsed() <= LONGEST);
        let answer = Answer {
            seal: seal.to_owned(),
            kind: kind.clone(),
            given: Instant::now(),
            until: None,
        };
        answers.insert((owner.to_owned(), child.clone()), answer);
    }

    /// It was written.
    pub(crate) fn taken(&self, owner: &str, child: &ChildRef) {
        self.lock().remove(&(owner.to_owned(), child.clone()));
    }

    /// The pass over this owner ends, and it is tried again after this time: so long the answers of the pass stand. Gives
    /// when to look again: an answer that was only repeated is asked for anew when it stands no more, because whoever woke
    /// the object may have done so to say that something was repaired.
    pub(crate) fn stand_for(&self, owner: &str, pause: Option<Duration>) -> Option<Duration> {
        let pause = pause?;
        let now = Instant::now();
        let mut answers = self.lock();
        let of_owner = answers.iter_mut().filter(|((uid, _), _)| uid == owner);
        let mut look = pause;
        for (_, answer) in of_owner {
            match answer.until {
                None => answer.until = Some(now + pause.min(LONGEST)),
                Some(until) if until > now => look = look.min(until - now),
                Some(_) => {}
            }
        }
        Some(look)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, ChildRef), Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use flowctl_plan::ChildKind;

    use super::*;

    // What a user wants anew must be tried at once, and what was repaired must not wait for long.
    #[tokio::test(start_paused = true)]
    async fn an_answer_stands_for_its_time_and_for_the_same_only() {
        let refusals = Refusals::default();
        let child = ChildRef {
            kind: ChildKind::Deployment,
            name: "x".to_owned(),
        };
        let refused = FailureKind::Refused {
            code: 403,
            message: "no".to_owned(),
        };
        let stands = |owner: &str, seal: &str| refusals.stands(owner, &child, seal).is_some();
        refusals.refused("u", &child, "a", &refused);
        assert!(!stands("u", "a"), "the pass has not ended");
        refusals.stand_for("v", Some(Duration::from_secs(5)));
        refusals.stand_for("u", Some(Duration::from_secs(5)));
        assert!(stands("u", "a") && !stands("u", "b") && !stands("v", "a"));
        tokio::time::advance(Duration::from_secs(4)).await;
        // Later passes that only repeat it do not make it last.
        refusals.stand_for("u", Some(Duration::from_secs(5)));
        assert!(stands("u", "a"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!stands("u", "a"));

        refusals.refused("u", &child, "a", &refused);
        refusals.stand_for("u", Some(Duration::from_secs(300)));
        tokio::time::advance(LONGEST).await;
        assert!(!stands("u", "a"), "minutes are too long");
        refusals.refused("u", &child, "a", &refused);
        refusals.stand_for("u", Some(Duration::from_secs(5)));
        refusals.taken("u", &child);
        assert!(!stands("u", "a") && refusals.lock().is_empty());
        refusals.refused("u", &child, "a", &refused);
        tokio::time::advance(LONGEST * 2).await;
        refusals.refused("v", &child, "a", &refused);
        assert_eq!(refusals.lock().len(), 1, "what is old is forgotten");
    }

    // Whoever repaired something and touches the object a moment too early would otherwise wait for five minutes.
    #[tokio::test(start_paused = true)]
    async fn a_repeated_answer_is_asked_for_again_when_it_stands_no_more() {
        let refusals = Refusals::default();
        let child = ChildRef {
            kind: ChildKind::Deployment,
            name: "x".to_owned(),
        };
        let refused = FailureKind::Refused {
            code: 403,
            message: "no".to_owned(),
        };
        let (long, short) = (Duration::from_secs(300), Duration::from_secs(5));
        refusals.refused("u", &child, "a", &refused);
        assert_eq!(refusals.stand_for("u", Some(long)), Some(long), "it was just asked for");
        tokio::time::advance(Duration::from_secs(12)).await;
        assert!(refusals.stands("u", &child, "a").is_some());
        assert_eq!(refusals.stand_for("v", Some(long)), Some(long), "another object");
        assert_eq!(refusals.stand_for("u", Some(short)), Some(short));
        let look = refusals.stand_for("u", Some(long)).expect("a time");
        assert_eq!(look, Duration::from_secs(18));
        tokio::time::advance(look).await;
        assert!(refusals.stands("u", &child, "a").is_none(), "it is sent again then");
    }
}
