//! The control plane itself: whether it is heard, how long it has been listened to, and how what it says follows from what it
//! said before.

use std::time::Duration;

use super::super::{
    GAP, Heard, Identity, Tick,
    expect::Pace,
    slot::Footing,
    track::{Continuity, Now},
};

/// How a control plane is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaneState {
    /// It has not been reached yet.
    Connecting,
    /// It answers, and can be believed.
    Good,
    /// It does not answer.
    Unreachable {
        /// What happened.
        message: String,
    },
    /// It answers, and lost its registry a moment ago.
    Reset,
    /// It answers, but so many services fell silent at once that it is not believed.
    Suspect {
        /// How many.
        silent: usize,
    },
}

/// The control plane itself.
#[derive(Clone, Debug)]
pub(super) struct Plane {
    pub(super) state: PlaneState,
    /// When it was last heard, or when we began to listen.
    pub(super) heard: Tick,
    /// How long it has been listened to.
    pub(super) listened: Duration,
    /// Since when nothing was missed, in time that was listened to.
    pub(super) firm_since: Duration,
    /// What went wrong last, if nothing was heard since.
    pub(super) lost: Option<String>,
    pub(super) instance: Option<String>,
    pub(super) identity: Option<Identity>,
    pub(super) has_synced: bool,
    pub(super) listing: Option<Listing>,
    /// Number of the list that is being read, or was read last.
    pub(super) list: u64,
    pub(super) reset_at: Option<Tick>,
}

/// A list that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listing {
    pub(super) continuity: Continuity,
    /// The server's process is another one, and keeps nothing.
    pub(super) is_blank: bool,
    /// Expected services that registered anew since the last list.
    pub(super) registered_anew: usize,
}

// === impl Plane ===

impl Plane {
    /// Nothing is heard yet.
    pub(super) fn new(now: Tick) -> Self {
        Self {
            state: PlaneState::Connecting,
            heard: now,
            listened: Duration::ZERO,
            firm_since: Duration::ZERO,
            lost: None,
            instance: None,
            identity: None,
            has_synced: false,
            listing: None,
            list: 0,
            reset_at: None,
        }
    }

    /// Notes that it spoke, or that it did not.
    pub(super) fn listen(&mut self, heard: &Heard, now: Tick) {
        match heard {
            Heard::Lost { message } => {
                self.lost = Some(message.clone());
                self.listing = None;
            }
            // It speaks again only when it says something that can be believed.
            Heard::Started { .. } | Heard::Service(_) if !self.is_in_touch() => {}
            Heard::Started { .. }
            | Heard::Service(_)
            | Heard::Removed { .. }
            | Heard::Synced
            | Heard::Beats(_)
            | Heard::Alive => {
                if self.is_in_touch() {
                    self.listened += now.since(self.heard).min(GAP);
                }
                self.heard = self.heard.max(now);
                self.lost = None;
            }
        }
    }

    pub(super) fn start(&mut self, instance: Option<String>, persistent: bool, identity: Option<Identity>) {
        let is_another = self.instance.is_some() && instance != self.instance;
        let is_same = self.instance.is_some() && instance == self.instance;
        let continuity = if !self.has_synced {
            Continuity::First
        } else if is_another || (!self.is_in_touch() && !is_same) {
            Continuity::Resumed
        } else {
            Continuity::Unbroken
        };
        self.listing = Some(Listing {
            continuity,
            is_blank: is_another && !persistent,
            registered_anew: 0,
        });
        self.instance = instance;
        self.identity = identity;
        self.list += 1;
    }

    /// Whether nothing went wrong since it was last heard.
    pub(super) fn is_in_touch(&self) -> bool {
        self.lost.is_none() && self.has_synced
    }

    /// Whether it counts as reachable.
    pub(super) fn is_believed(&self) -> bool {
        !matches!(self.state, PlaneState::Unreachable { .. } | PlaneState::Connecting)
    }

    pub(super) fn continuity(&self) -> Continuity {
        self.listing.map_or(Continuity::Unbroken, |listing| listing.continuity)
    }

    pub(super) fn now(&self, tick: Tick, continuity: Continuity) -> Now {
        Now {
            tick,
            listened: self.listened,
            continuity,
        }
    }

    pub(super) fn footing(&self, pace: Pace) -> Footing {
        if matches!(self.state, PlaneState::Unreachable { .. }) {
            return Footing::Unreachable;
        }
        let listened = self.listened.saturating_sub(self.firm_since);
        if self.has_synced && listened >= pace.stale_after {
            Footing::Firm
        } else {
            Footing::Young
        }
    }
}
