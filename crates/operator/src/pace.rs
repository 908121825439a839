//! How often the status of one object may be written. A roll-out makes a new picture several times a second; what a
//! person or a program waits for (a condition that turns, a generation that is taken in) is published at once, and the
//! rest once in two seconds. What goes on like that is told once in ten, and what was refused is left alone for longer
//! each time.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{backoff::jittered, publish::News};

/// Between two statuses of one object in which nothing turned.
const BETWEEN: Duration = Duration::from_secs(2);
/// So many statuses of one object, and of each sort of news, are as quick as they can be; more must be earned.
const QUICK: f64 = 5.0;
/// How long it takes to earn one: the pace of an object that flaps.
const FLAPPING: Duration = Duration::from_secs(10);
/// How long an object is left alone whose status was refused: at first, and at most.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);

/// What was written lately, by uid. What does not count any more is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    written: Mutex<HashMap<String, Written>>,
}

#[derive(Debug)]
struct Written {
    at: Instant,
    turns: Allowance,
    details: Allowance,
    refused: Option<Refused>,
}

/// How many more may be quick.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    left: f64,
    at: Instant,
}

/// The last statuses were refused, in a row.
#[derive(Debug)]
struct Refused {
    /// Of the spec that they were about: another one is tried at once.
    generation: Option<i64>,
    times: u32,
    until: Instant,
}

// === impl Pace ===

impl Pace {
    /// Whether a status of this object with this news may be written now, or after what time.
    pub(crate) fn ask(&self, uid: &str, generation: Option<i64>, news: News) -> Result<(), Duration> {
        let written = self.lock();
        let Some(last) = written.get(uid) else { return Ok(()) };
        let now = Instant::now();
        let from = match news {
            News::Spec => now,
            News::Ready | News::Turn => last.turns.next(),
            News::Detail => last.details.next().max(last.at + BETWEEN),
        };
        let rest = last.refused.as_ref().filter(|refused| refused.generation == generation);
        let from = rest.map_or(from, |rest| from.max(rest.until));
        match from.saturating_duration_since(now) {
            Duration::ZERO => Ok(()),
            wait => Err(wait),
        }
    }

    /// A status with this news is written now.
    pub(crate) fn wrote(&self, uid: &str, news: News) {
        let now = Instant::now();
        let mut written = self.lock();
        written.retain(|_, written| written.counts(now));
        let last = written.entry(uid.to_owned()).or_insert_with(|| Written::at(now));
        last.at = now;
        match news {
            News::Spec => {}
            News::Ready | News::Turn => last.turns.take(now),
            News::Detail => last.details.take(now),
        }
    }

    /// The status that was just written about this generation of the spec was refused, or nobody knows.
    pub(crate) fn refused(&self, uid: &str, generation: Option<i64>) {
        let now = Instant::now();
        let mut written = self.lock();
        let last = written.entry(uid.to_owned()).or_insert_with(|| Written::at(now));
        let before = last.refused.take().filter(|before| before.generation == generation);
        let times = before.map_or(0, |before| before.times).saturating_add(1);
        let rest = FIRST_REST.saturating_mul(1 << (times - 1).min(16)).min(LONGEST_REST);
        last.refused = Some(Refused {
            generation,
            times,
            until: now + jittered(rest),
        });
    }

    /// It was taken.
    pub(crate) fn taken(&self, uid: &str) {
        if let Some(last) = self.lock().get_mut(uid) {
            last.refused = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Written ===

impl Written {
    fn at(now: Instant) -> Self {
        let all = Allowance { left: QUICK, at: now };
        Self {
            at: now,
            turns: all,
            details: all,
            refused: None,
        }
    }

    /// Whether it makes a difference to have kept this. A refusal counts for a while after its rest, so that one that stands is
    /// known again.
    fn counts(&self, now: Instant) -> bool {
        let rested = self.refused.as_ref().map(|refused| refused.until + LONGEST_REST * 10);
        let earned = self.at + FLAPPING.mul_f64(QUICK);
        rested.map_or(earned, |rested| rested.max(earned)) > now
    }
}

// === impl Allowance ===

impl Allowance {
    /// When there is one.
    fn next(&self) -> Instant {
        self.at + FLAPPING.mul_f64((1.0 - self.left).max(0.0))
    }

    fn take(&mut self, now: Instant) {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() / FLAPPING.as_secs_f64();
        // What is taken before its time is not owed: asking decides, taking counts.
        self.left = ((self.left + earned).min(QUICK) - 1.0).max(0.0);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn after(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    // `kubectl wait` must not wait for our comfort, and a roll-out must not cost a write for each of its pods' steps.
    #[tokio::test(start_paused = true)]
    async fn what_turns_is_written_at_once_and_the_rest_is_gathered() {
        let pace = Pace::default();
        let ask = |uid: &str, news: News| pace.ask(uid, Some(1), news);
        assert_eq!(ask("u", News::Detail), Ok(()));
        pace.wrote("u", News::Detail);
        assert_eq!(ask("u", News::Detail), Err(BETWEEN));
        assert_eq!(ask("other", News::Detail), Ok(()));
        for news in [News::Spec, News::Ready, News::Turn] {
            assert_eq!(ask("u", news), Ok(()));
        }
        after(2).await;
        assert_eq!(ask("u", News::Detail), Ok(()));
        after(60).await;
        pace.wrote("other", News::Detail);
        assert_eq!(pace.lock().len(), 1, "what is old is forgotten");
    }

    // An object that flaps for ever would use up what all others need, and wear down whoever watches it.
    #[tokio::test(start_paused = true)]
    async fn what_flaps_is_told_once_in_ten_seconds() {
        for news in [News::Ready, News::Turn, News::Detail] {
            let pace = Pace::default();
            let mut written = 0;
            for second in 0..600 {
                // As often as it likes in a second.
                for _ in 0..3 {
                    if pace.ask("u", Some(1), news).is_ok() {
                        pace.wrote("u", news);
                        written += 1;
                    }
                }
                if second == 20 {
                    assert!((5..=7).contains(&written), "{news:?}: {written} at first");
                }
                after(1).await;
            }
            assert!((60..=65).contains(&written), "{news:?}: {written} in ten minutes");
            assert_eq!(pace.ask("u", Some(1), News::Spec), Ok(()), "a spec is taken in at once");
            after(60).await;
            assert_eq!(pace.ask("u", Some(1), news), Ok(()));
        }
    }

    // A status that the apiserver refuses would be sent again with every event about the object: each step of each pod.
    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_left_alone_for_longer_each_time() {
        let pace = Pace::default();
        let mut sent = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(600) {
            // Never published, so that it always turns, or is the first.
            if pace.ask("u", Some(1), News::Spec).is_ok() {
                pace.wrote("u", News::Spec);
                pace.refused("u", Some(1));
                sent.push(begun.elapsed().as_secs());
            }
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert!((20..=35).contains(&sent.len()), "{sent:?}");
        assert!(sent[1] <= 2 && sent[2] <= 4, "quickly at first: {sent:?}");
        assert!(sent.windows(2).all(|pair| pair[1] - pair[0] <= 38), "{sent:?}");
        assert_eq!(
            pace.ask("u", Some(2), News::Spec),
            Ok(()),
            "another spec is another question"
        );
        pace.taken("u");
        assert_eq!(pace.ask("u", Some(1), News::Spec), Ok(()));
    }
}
