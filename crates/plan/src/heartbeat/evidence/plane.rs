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
    /// The last process of the server that named itself.
    instance: Option<String>,
    /// Whether the server named itself when it was last heard.
    is_named: bool,
    pub(super) identity: Option<Identity>,
    pub(super) has_synced: bool,
    pub(super) listing: Option<Listing>,
    /// Number of the list that is being read, or was read last.
    pub(super) list: u64,
    pub(super) reset_at: Option<Tick>,
    /// Since when it is suspected, while it is.
    pub(super) suspected: Option<Tick>,
}

/// A list that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listing {
    pub(super) continuity: Continuity,
    /// The server's process is another one, and keeps nothing.
    pub(super) is_blank: bool,
    /// Expected services that registered anew since the last list.
    pub(super) registered_anew: usize,
    /// The short time without a connection that the list makes good: it tells what was missed of the same process. It counts
    /// as listened to when the list is whole.
    pub(super) gap: Duration,
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
            is_named: false,
            identity: None,
            has_synced: false,
            listing: None,
            list: 0,
            reset_at: None,
            suspected: None,
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

    pub(super) fn start(&mut self, instance: Option<String>, persistent: bool, identity: Option<Identity>, now: Tick) {
        let is_another = instance.is_some() && self.instance.is_some() && instance != self.instance;
        let is_same = instance.is_some() && instance == self.instance;
        // A watch and a list of the same server mark the same beat differently.
        let is_other_dialect = instance.is_some() != self.is_named;
        let continuity = if !self.has_synced {
            Continuity::First
        } else if is_another || is_other_dialect || (!self.is_in_touch() && !is_same) {
            Continuity::Resumed
        } else {
            Continuity::Unbroken
        };
        let away = now.since(self.heard);
        let is_made_good = is_same && continuity == Continuity::Unbroken && !self.is_in_touch() && away <= GAP;
        self.listing = Some(Listing {
            continuity,
            is_blank: is_another && !persistent,
            registered_anew: 0,
            gap: if is_made_good { away } else { Duration::ZERO },
        });
        self.is_named = instance.is_some();
        // A list tells neither.
        if instance.is_some() {
            self.instance = instance;
            self.identity = identity;
        } else if identity.is_some() {
            self.identity = identity;
        }
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
            listened: self.listened + self.listing.map_or(Duration::ZERO, |listing| listing.gap),
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
