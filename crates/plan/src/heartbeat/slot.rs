//! What one object may conclude about one id that it expects. Silence is believed at the second look, signs of life at the
//! second move: one late beat, or one beat of a dying process, turns nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{
    HEAD_START, LOOK, SLACK, Sign, Tick,
    expect::{ExpectedPod, Pace},
    track::{Loss, Now, Presence, Track},
};

/// Moves after silence that make an id fresh.
const MOVES: u64 = 2;

/// One id of one object.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pods: Vec<Known>,
    standing: Standing,
    /// Moves that came before the standing.
    baseline: u64,
    /// Since when it has been silent for too long, in time that was listened to.
    late_since: Option<Duration>,
    pub(super) sign: Sign,
    pub(super) verified: Option<bool>,
}

/// A pod that should beat under the id.
#[derive(Clone, Debug)]
struct Known {
    pod: ExpectedPod,
    /// Since when it is expected in the place of another; `None`: since the beginning.
    succeeds: Option<Tick>,
}

/// What was concluded last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing yet.
    Undecided,
    Fresh,
    Stale,
    /// It is silent with so many others that nothing is concluded.
    Held,
}

/// What the whole control plane allows to conclude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Footing {
    /// It was not listened to for a whole stale time.
    Young,
    Firm,
    Unreachable,
}

// === impl Slot ===

impl Slot {
    /// `was_stale`: so it was published.
    pub(super) fn new(pods: Vec<ExpectedPod>, was_stale: bool, track: Option<&Track>, pace: Pace, now: Now) -> Self {
        // What moved before anybody asked counts, unless that was long ago.
        let silent = track.filter(|track| was_stale || now.silence(track.silent_since) >= pace.stale_after);
        Self {
            pods: pods.into_iter().map(|pod| Known { pod, succeeds: None }).collect(),
            standing: if was_stale {
                Standing::Stale
            } else {
                Standing::Undecided
            },
            baseline: silent.map_or(0, |track| track.moves),
            late_since: None,
            sign: Sign::Undecided,
            verified: None,
        }
    }

    /// Takes the pods as they are now. One that is new beside or instead of another must register for itself.
    pub(super) fn set_pods(&mut self, pods: Vec<ExpectedPod>, tick: Tick) {
        let before: BTreeMap<String, Option<Tick>> = self
            .pods
            .drain(..)
            .map(|known| (known.pod.uid, known.succeeds))
            .collect();
        self.pods = pods
            .into_iter()
            .map(|pod| Known {
                succeeds: before.get(&pod.uid).copied().unwrap_or(Some(tick)),
                pod,
            })
            .collect();
    }

    /// What runs elsewhere has no pod that could say no.
    pub(super) fn is_pod_ready(&self) -> bool {
        self.pods.is_empty() || self.pods.iter().any(|known| known.pod.is_ready)
    }

    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.pods
            .iter()
            .flat_map(|known| &known.pod.addresses)
            .copied()
            .collect()
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = &ExpectedPod> {
        self.pods.iter().map(|known| &known.pod)
    }

    /// Begins anew: what is concluded from now on rests on what is heard from now on. Who was silent before is not
    /// believed to have been healthy.
    pub(super) fn restart(&mut self, track: &Track) {
        if self.standing != Standing::Stale {
            self.standing = Standing::Undecided;
        }
        self.baseline = track.moves;
        self.late_since = None;
    }

    /// Believes signs of life.
    pub(super) fn see_moves(&mut self, track: &Track) {
        let moves = track.moves.saturating_sub(self.baseline);
        let is_alive = track.presence == Presence::Registered && track.has_beaten && moves >= MOVES;
        if is_alive && self.standing != Standing::Fresh {
            self.standing = Standing::Fresh;
            self.late_since = None;
        }
    }

    /// Whether it would be stale by now: the second look in a row at which it was silent for too long.
    pub(super) fn is_due(&mut self, track: &Track, pace: Pace, now: Now) -> bool {
        let is_late = now.silence(track.silent_since) + SLACK >= pace.stale_after;
        if !is_late || track.presence != Presence::Registered {
            self.late_since = None;
            return false;
        }
        let since = *self.late_since.get_or_insert(now.listened);
        self.is_presumed_healthy() && now.silence(since) >= LOOK
    }

    /// Whether nothing speaks against it so far.
    pub(super) fn is_presumed_healthy(&self) -> bool {
        matches!(self.standing, Standing::Undecided | Standing::Fresh)
    }

    pub(super) fn is_held(&self) -> bool {
        self.standing == Standing::Held
    }

    pub(super) fn set_stale(&mut self, track: &Track) {
        self.standing = Standing::Stale;
        self.baseline = track.moves;
    }

    pub(super) fn hold(&mut self, track: &Track) {
        self.standing = Standing::Held;
        self.baseline = track.moves;
    }

    /// What is proved now, with `stranger` to be asked for one who registers in the id's place.
    pub(super) fn read(
        &self,
        track: Option<&Track>,
        footing: Footing,
        is_shared: bool,
        others: &BTreeMap<IpAddr, BTreeSet<String>>,
        stranger: impl FnOnce() -> Option<String>,
    ) -> Sign {
        if footing == Footing::Unreachable {
            return Sign::Unreachable;
        }
        let Some(track) = track.filter(|track| self.is_own(track)) else {
            return match stranger() {
                Some(id) => Sign::Elsewhere { id },
                None if track.is_some() => Sign::OfPredecessor,
                None if footing == Footing::Young => Sign::Undecided,
                None => Sign::Absent,
            };
        };
        match track.presence {
            // It was dead before its registration went.
            Presence::Gone(..) if self.standing == Standing::Stale => return Sign::Stale,
            Presence::Gone(Loss::Alone, _) => return Sign::Lost,
            Presence::Gone(Loss::WithOthers, _) => return Sign::Reset,
            Presence::Registered => {}
        }
        if self.is_used_by_another(track, is_shared, others) {
            return Sign::UsedByAnother;
        }
        match self.standing {
            Standing::Held => Sign::Suspect,
            Standing::Stale if footing == Footing::Firm => Sign::Stale,
            Standing::Stale | Standing::Undecided => Sign::Undecided,
            Standing::Fresh => {
                let (reported, is_doubtful) = track.report();
                Sign::Fresh { reported, is_doubtful }
            }
        }
    }

    /// Whether the registration can be of a pod that lives: one that was made before the pod that is there succeeded another
    /// is that other one's, which may beat on.
    fn is_own(&self, track: &Track) -> bool {
        self.pods.is_empty()
            || self.pods.iter().any(|known| {
                let made = track.registered_tick.0.saturating_add(HEAD_START);
                known.succeeds.is_none_or(|since| made >= since.0)
                    || known
                        .pod
                        .addresses
                        .iter()
                        .any(|address| track.address == Some(*address))
                    || track.pod_uid.as_ref() == Some(&known.pod.uid)
            })
    }

    /// Whether the registration is proved to be of another pod. An address that is no pod's says nothing: it may be a
    /// gateway's.
    fn is_used_by_another(&self, track: &Track, is_shared: bool, others: &BTreeMap<IpAddr, BTreeSet<String>>) -> bool {
        if self.pods.is_empty() {
            return false;
        }
        let is_ours = |uid: &String| self.pods.iter().any(|known| known.pod.uid == *uid);
        match &track.pod_uid {
            // The pod that registered a shared id last may have ended since, and the others beat on.
            Some(uid) if !is_shared => return !is_ours(uid),
            Some(_) | None => {}
        }
        let there = track.address.and_then(|address| others.get(&address));
        there.is_some_and(|uids| !uids.iter().any(is_ours))
    }
}
