//! What an alert has found out about each service, and what of it was told. Pure: the time is an argument.
//!
//! It is a state and not a queue: a change that was not told yet is still there at the next look, one that was undone
//! before it was told is told to nobody, and a receiver that is down costs no memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::clock::Now;

/// The instances of one alert, by service id. Services of which there is nothing to say are not in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Instances(BTreeMap<String, Instance>);

/// An alert for one service.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    phase: Phase,
    /// Of the phase, for people.
    since: SystemTime,
    /// Whether the receiver believes that it fires.
    told: Verdict,
    sending: Sending,
    delivered_at: Option<SystemTime>,
    failure: Option<String>,
}

/// Whether the condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Firing,
    Resolved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It does not hold.
    Quiet,
    /// It holds, but not for long enough.
    Waiting(Instant),
    /// It holds.
    Firing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    No,
    UnderWay,
    /// The receiver did not take this verdict; the next one is tried again.
    GivenUp(Verdict),
}

/// What is kept of an instance over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptInstance {
    service_id: String,
    is_firing: bool,
    since: SystemTime,
    told: Verdict,
    delivered_at: Option<SystemTime>,
}

/// What somebody who lists alerts sees of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown<'a> {
    pub(crate) service_id: &'a str,
    pub(crate) is_firing: bool,
    pub(crate) since: SystemTime,
    pub(crate) delivered_at: Option<SystemTime>,
    pub(crate) failure: Option<&'a str>,
}

/// An alert about every service tells of so many at a time: when everything is down, more would help nobody.
const MOST: usize = 500;

// === impl Instances ===

impl Instances {
    pub(crate) fn restore(kept: Vec<KeptInstance>) -> Self {
        let restored = kept.into_iter().map(|kept| {
            let instance = Instance {
                phase: if kept.is_firing { Phase::Firing } else { Phase::Quiet },
                since: kept.since,
                told: kept.told,
                sending: Sending::No,
                delivered_at: kept.delivered_at,
                failure: None,
            };
            (kept.service_id, instance)
        });
        Self(restored.collect())
    }

    pub(crate) fn keep(&self) -> Vec<KeptInstance> {
        let worth_keeping = self.0.iter().filter(|(_, instance)| instance.is_known());
        worth_keeping
            .map(|(service_id, instance)| KeptInstance {
                service_id: service_id.clone(),
                is_firing: instance.phase == Phase::Firing,
                since: instance.since,
                told: instance.told,
                delivered_at: instance.delivered_at,
            })
            .collect()
    }

    pub(crate) fn shown(&self) -> impl Iterator<Item = Shown<'_>> {
        self.0.iter().map(|(service_id, instance)| Shown {
            service_id,
            is_firing: instance.phase == Phase::Firing,
            since: instance.since,
            delivered_at: instance.delivered_at,
            failure: instance.failure.as_deref(),
        })
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn firing(&self) -> usize {
        self.0
            .values()
            .filter(|instance| instance.phase == Phase::Firing)
            .count()
    }

    /// Takes in whether the condition holds of a service; `true` when what is kept has changed.
    pub(crate) fn see(&mut self, service_id: &str, holds: bool, hold: Duration, now: Now) -> bool {
        let Some(instance) = self.0.get_mut(service_id) else {
            if !holds || self.0.len() >= MOST {
                return false;
            }
            let instance = Instance {
                phase: if hold.is_zero() {
                    Phase::Firing
                } else {
                    Phase::Waiting(now.steady)
                },
                since: now.wall,
                told: Verdict::Resolved,
                sending: Sending::No,
                delivered_at: None,
                failure: None,
            };
            self.0.insert(service_id.to_owned(), instance);
            return hold.is_zero();
        };
        let next = match (instance.phase, holds) {
            (Phase::Firing, true) | (Phase::Quiet, false) => return false,
            (Phase::Waiting(since), true) if now.steady.duration_since(since) < hold => return false,
            (Phase::Quiet, true) if !hold.is_zero() => Phase::Waiting(now.steady),
            (Phase::Waiting(_) | Phase::Quiet, true) => Phase::Firing,
            (Phase::Waiting(_) | Phase::Firing, false) => Phase::Quiet,
        };
        let before = instance.phase;
        instance.phase = next;
        instance.since = now.wall;
        self.forget_if_nothing_is_left(service_id);
        before == Phase::Firing || next == Phase::Firing
    }

    /// What is to be told and is not being told already, at most `most`.
    pub(crate) fn untold(&mut self, most: usize) -> Vec<(String, Verdict, SystemTime)> {
        let mut untold = Vec::new();
        for (service_id, instance) in &mut self.0 {
            if untold.len() == most {
                break;
            }
            let verdict = instance.verdict();
            let is_due = instance.told != verdict
                && match instance.sending {
                    Sending::No => true,
                    Sending::UnderWay => false,
                    Sending::GivenUp(given_up) => given_up != verdict,
                };
            if is_due {
                instance.sending = Sending::UnderWay;
                untold.push((service_id.clone(), verdict, instance.since));
            }
        }
        untold
    }

    /// The receiver took the verdict.
    pub(crate) fn delivered(&mut self, service_id: &str, verdict: Verdict, at: SystemTime) {
        if let Some(instance) = self.0.get_mut(service_id) {
            instance.told = verdict;
            instance.sending = Sending::No;
            instance.delivered_at = Some(at);
            instance.failure = None;
        }
        self.forget_if_nothing_is_left(service_id);
    }

    /// An attempt failed; there may be more of them.
    pub(crate) fn failed(&mut self, service_id: &str, why: String) {
        if let Some(instance) = self.0.get_mut(service_id) {
            instance.failure = Some(why);
        }
    }

    /// There will be no more attempts to tell this.
    pub(crate) fn given_up(&mut self, service_id: &str, verdict: Verdict) {
        if let Some(instance) = self.0.get_mut(service_id) {
            instance.sending = Sending::GivenUp(verdict);
        }
        self.forget_if_nothing_is_left(service_id);
    }

    fn forget_if_nothing_is_left(&mut self, service_id: &str) {
        let is_over = self.0.get(service_id).is_some_and(|instance| {
            instance.phase == Phase::Quiet
                && match instance.sending {
                    Sending::No => instance.told == Verdict::Resolved,
                    Sending::UnderWay => false,
                    Sending::GivenUp(verdict) => verdict == Verdict::Resolved || instance.told == Verdict::Resolved,
                }
        });
        if is_over {
            self.0.remove(service_id);
        }
    }
}

// === impl Instance ===

impl Instance {
    fn verdict(&self) -> Verdict {
        match self.phase {
            Phase::Firing => Verdict::Firing,
            Phase::Quiet | Phase::Waiting(_) => Verdict::Resolved,
        }
    }

    fn is_known(&self) -> bool {
        self.phase == Phase::Firing || self.told == Verdict::Firing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        // One base for all, so that differences are exact.
        thread_local!(static BASE: Instant = Instant::now());
        Now {
            steady: BASE.with(|base| *base + Duration::from_secs(seconds)),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds),
        }
    }

    fn told(instances: &mut Instances) -> Vec<Verdict> {
        let untold = instances.untold(10);
        for (service, verdict, _) in &untold {
            instances.delivered(service, *verdict, at(0).wall);
        }
        untold.into_iter().map(|(_, verdict, _)| verdict).collect()
    }

    // A receiver is told when something changes, not every second while it lasts.
    #[test]
    fn only_changes_are_told() {
        let mut instances = Instances::default();
        assert!(!instances.see("a", false, Duration::ZERO, at(0)));
        assert!(instances.see("a", true, Duration::ZERO, at(1)));
        assert_eq!(told(&mut instances), [Verdict::Firing]);
        assert!(!instances.see("a", true, Duration::ZERO, at(2)));
        assert_eq!(told(&mut instances), []);
        assert!(instances.see("a", false, Duration::ZERO, at(3)));
        assert_eq!(told(&mut instances), [Verdict::Resolved]);
        assert_eq!(instances.services().count(), 0);
    }

    // `for 1m` is there so that a short trouble wakes nobody.
    #[test]
    fn a_condition_must_hold_without_a_break() {
        let minute = Duration::from_secs(60);
        let mut instances = Instances::default();
        instances.see("a", true, minute, at(0));
        instances.see("a", true, minute, at(59));
        instances.see("a", false, minute, at(60));
        instances.see("a", true, minute, at(61));
        instances.see("a", true, minute, at(120));
        assert_eq!(told(&mut instances), []);
        assert!(instances.see("a", true, minute, at(121)));
        assert_eq!(told(&mut instances), [Verdict::Firing]);
    }

    // While a receiver is down, what comes and goes again is no news; what lasts is told when it is back.
    #[test]
    fn what_was_undone_before_it_was_told_is_told_to_nobody() {
        let mut instances = Instances::default();
        instances.see("a", true, Duration::ZERO, at(0));
        instances.see("a", false, Duration::ZERO, at(1));
        assert_eq!(told(&mut instances), []);

        instances.see("a", true, Duration::ZERO, at(2));
        assert_eq!(instances.untold(10).len(), 1);
        // Resolved while the first is under way: told after it, never before.
        instances.see("a", false, Duration::ZERO, at(3));
        assert_eq!(instances.untold(10), []);
        instances.delivered("a", Verdict::Firing, at(4).wall);
        assert_eq!(told(&mut instances), [Verdict::Resolved]);
    }

    #[test]
    fn what_was_given_up_is_not_tried_until_it_changes() {
        let mut instances = Instances::default();
        instances.see("a", true, Duration::ZERO, at(0));
        instances.untold(10);
        instances.failed("a", "no connection".to_owned());
        instances.given_up("a", Verdict::Firing);
        assert_eq!(instances.untold(10), []);
        assert_eq!(
            instances.shown().next().and_then(|shown| shown.failure),
            Some("no connection")
        );
        // The receiver never heard of it, so there is nothing to take back.
        instances.see("a", false, Duration::ZERO, at(1));
        assert_eq!(instances.services().count(), 0);
    }

    // After a restart nobody is woken a second time, and nobody is left believing that it still burns.
    #[test]
    fn what_was_told_survives_a_restart() {
        let mut instances = Instances::default();
        instances.see("told", true, Duration::ZERO, at(0));
        told(&mut instances);
        instances.see("untold", true, Duration::ZERO, at(0));
        let mut restored = Instances::restore(instances.keep());
        restored.see("told", true, Duration::ZERO, at(9));
        assert_eq!(
            restored
                .untold(10)
                .iter()
                .map(|(id, ..)| id.as_str())
                .collect::<Vec<_>>(),
            ["untold"]
        );
        restored.see("told", false, Duration::ZERO, at(10));
        assert_eq!(
            restored.untold(10),
            [("told".to_owned(), Verdict::Resolved, at(10).wall)]
        );
    }
}
