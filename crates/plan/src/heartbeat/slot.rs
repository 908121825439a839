//! What one object may conclude about one id that it expects. Silence is believed at the second look, signs of life at the
//! second move: one late beat, or one beat of a dying process, turns nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{
    DOUBT, LOOK, SLACK, Sign, Tick,
    expect::{ExpectedPod, Pace},
    track::{Loss, Now, Presence, Track},
};

/// Moves after silence that make an id fresh.
const MOVES: u64 = 2;

/// One id of one object.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pods: Vec<Occupant>,
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
pub(super) struct Occupant {
    pub(super) pod: ExpectedPod,
    pub(super) arrival: Arrival,
}

/// When a pod came. What was registered under a shared id before it is another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It was there when its object was looked at first, or no other pod ever had its id.
    First,
    /// It was there at that first look, and had not registered by what was published.
    Unheard(Tick),
    /// It came between two looks.
    Between {
        /// It was not there yet.
        before: Tick,
        /// It was there.
        seen: Tick,
    },
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
    pub(super) fn new(pods: Vec<Occupant>, was_stale: bool, track: Option<&Track>, pace: Pace, now: Now) -> Self {
        // What moved before anybody asked counts, unless that was long ago.
        let silent = track.filter(|track| was_stale || now.silence(track.silent_since) >= pace.stale_after);
        Self {
            pods,
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

    /// Takes the pods as they are now.
    pub(super) fn set_pods(&mut self, pods: Vec<Occupant>) {
        self.pods = pods;
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
        if !self.is_own(track) {
            // What another said is no word of this one; the next one that counts as its own is the second.
            self.standing = Standing::Undecided;
            self.baseline = track.moves.saturating_sub(MOVES - 1);
            self.late_since = None;
            return;
        }
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

    /// Whether it was heard to beat, by us or by the control plane before us, and has not been called silent since.
    pub(super) fn is_known_healthy(&self, track: &Track) -> bool {
        match self.standing {
            Standing::Fresh => true,
            Standing::Undecided => track.was_heard(),
            Standing::Stale | Standing::Held => false,
        }
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

    /// Whether the registration can be of a pod that lives: one that was made before the pod came is another's, which may
    /// beat on.
    pub(super) fn is_own(&self, track: &Track) -> bool {
        self.pods.is_empty()
            || self.pods.iter().any(|Occupant { pod, arrival }| {
                arrival.allows(track)
                    || pod.addresses.iter().any(|address| track.address == Some(*address))
                    || track.pod_uid.as_ref() == Some(&pod.uid)
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

// === impl Arrival ===

impl Arrival {
    /// Whether the registration can be of the pod.
    fn allows(self, track: &Track) -> bool {
        let (before, seen) = match self {
            Arrival::First => return true,
            Arrival::Unheard(seen) => (None, seen),
            Arrival::Between { before, seen } => (Some(before), seen),
        };
        let made = track.registered_tick;
        let is_later = |than: Tick| track.is_registered_then && made > than;
        if is_later(seen) || before.is_some_and(|before| seen.since(before) < DOUBT && is_later(before)) {
            return true;
        }
        let is_before = seen.since(made) >= DOUBT && before.is_some_and(|before| made <= before);
        if track.tells_registration() && is_before {
            return false;
        }
        // It cannot be told: who beats on is not who was there before.
        track.moved_tick.since(seen) >= DOUBT
    }
}
