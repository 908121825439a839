//! What is known about one id: when it last moved, and what is worth believing of what it reports.

use std::{net::IpAddr, time::Duration};

use super::{LONGEST, Mark, Reported, Service, Tick};

/// A report of UNHEALTHY that comes with a beat after so long a silence may be an expiry: the Go server writes the one over
/// the other after 30 s, and a beat is seen up to a poll late.
const LATCHED_AFTER: Duration = Duration::from_secs(24);

/// When something is heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// By our clock.
    pub(super) tick: Tick,
    /// How long the control plane has been listened to.
    pub(super) listened: Duration,
    /// Whether marks can be compared with those that are known.
    pub(super) continuity: Continuity,
}

/// How what is heard now follows from what was heard before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Continuity {
    /// The first that is heard: whatever is named may be old.
    First,
    /// Another process of the server, or the first list after an outage: its marks may have been set back, but a
    /// registration that is not known was made since.
    Resumed,
    /// What changed happened in between.
    Unbroken,
}

/// One id.
#[derive(Clone, Debug)]
pub(super) struct Track {
    pub(super) component_id: String,
    pub(super) name: String,
    pub(super) address: Option<IpAddr>,
    pub(super) pod_uid: Option<String>,
    pub(super) verified: Option<bool>,
    pub(super) presence: Presence,
    registered_at: Option<Mark>,
    beat: Option<Mark>,
    /// When the registration was heard of.
    pub(super) registered_tick: Tick,
    /// Whether it was made just then; otherwise it may be of any age.
    pub(super) is_registered_then: bool,
    /// Whether some object expected it once.
    pub(super) was_expected: bool,
    /// How often it moved: beats, and registrations that were made while we listened.
    pub(super) moves: u64,
    /// Whether it has beaten since it registered.
    pub(super) has_beaten: bool,
    /// Since when it is silent, in time that was listened to.
    pub(super) silent_since: Duration,
    /// When it last moved, or was first heard of.
    pub(super) moved_tick: Tick,
    reported: Reported,
    belief: Belief,
    /// Whether its beats are known to say how it is: then what one leaves as it was is said again.
    speaks: bool,
    /// The list that named it last.
    pub(super) named_in: u64,
}

/// Whether an id is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Registered,
    /// It was, until then, and the control plane lost it.
    Gone(Loss, Tick),
}

/// How a registration was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// This one alone.
    Alone,
    /// With the others.
    WithOthers,
}

/// What is worth believing of a report of UNHEALTHY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belief {
    Said,
    /// The server wrote it when the id was silent, and has not taken it back.
    Latched,
    /// It was there before we were.
    Doubtful,
}

// === impl Now ===

impl Now {
    /// How long it has been silent, in time that was listened to.
    pub(super) fn silence(&self, since: Duration) -> Duration {
        self.listened.saturating_sub(since)
    }
}

// === impl Track ===

impl Track {
    /// A service that is not known yet.
    pub(super) fn new(service: Service, now: Now, list: u64) -> Self {
        let has_beaten = has_beaten(&service);
        let moves = match now.continuity {
            Continuity::First | Continuity::Resumed => 0,
            // Its registration, and a beat of which we cannot say more than that there was one.
            Continuity::Unbroken => 1 + u64::from(has_beaten),
        };
        let belief = match (service.expired, service.reported, now.continuity) {
            (None, Reported::Unhealthy, Continuity::First | Continuity::Resumed) => Belief::Doubtful,
            _ => Belief::Said,
        };
        Self {
            component_id: clipped(service.component_id),
            name: clipped(service.name),
            address: service.address,
            pod_uid: service.pod_uid,
            verified: service.verified,
            presence: Presence::Registered,
            registered_at: service.registered_at,
            beat: service.beat,
            registered_tick: now.tick,
            is_registered_then: now.continuity != Continuity::First,
            was_expected: false,
            moves,
            has_beaten,
            silent_since: now.listened,
            moved_tick: now.tick,
            reported: service.reported,
            belief,
            speaks: is_said_only(service.reported),
            named_in: list,
        }
    }

    /// An id that beats though its registration was not heard of.
    pub(super) fn unnamed(mark: Mark, verified: Option<bool>, now: Now, list: u64) -> Self {
        let service = Service {
            id: String::new(),
            component_id: String::new(),
            name: String::new(),
            address: None,
            pod_uid: None,
            registered_at: None,
            beat: None,
            reported: Reported::Unspecified,
            expired: None,
            verified,
        };
        let mut track = Self::new(service, now, list);
        track.is_registered_then = false;
        track.beat(mark, verified, now);
        track
    }

    /// The service as it is now.
    pub(super) fn update(&mut self, service: Service, now: Now, list: u64) {
        let before = now.silence(self.silent_since);
        let was_there = self.presence == Presence::Registered;
        // Of an id that was heard to beat before, this is only learned now; and what one dialect tells, another may not.
        let is_new = self.registered_at.is_some()
            && service.registered_at.is_some()
            && self.registered_at != service.registered_at;
        let tells_beat = has_beaten(&service);
        let is_moved =
            service.beat.is_some() && self.beat != service.beat && (tells_beat || service.registered_at.is_none());
        let has_beat = tells_beat || is_moved;
        // A server that was restarted may tell an older beat than before.
        let counts = now.continuity == Continuity::Unbroken;
        if is_new {
            self.registered_tick = now.tick;
            self.is_registered_then = true;
            self.has_beaten = has_beat;
            self.moves += u64::from(now.continuity != Continuity::First);
        }
        self.has_beaten |= has_beat;
        if is_moved && counts {
            self.moves += 1;
        }
        if is_new || (is_moved && counts) || !was_there {
            self.silent_since = now.listened;
        }
        if (is_new && now.continuity != Continuity::First) || (is_moved && counts) {
            self.moved_tick = now.tick;
        }
        self.speaks = is_said_only(service.reported) || (!is_new && (self.speaks || self.is_taken_back(&service)));
        let says = is_moved && counts && self.speaks;
        self.belief = match (service.expired, service.reported) {
            (None, Reported::Unhealthy) if says => Belief::Said,
            (None, Reported::Unhealthy) if self.reported == Reported::Unhealthy && !is_new => self.belief,
            (None, Reported::Unhealthy) if !counts => Belief::Doubtful,
            (None, Reported::Unhealthy) if !is_moved || before >= LATCHED_AFTER => Belief::Latched,
            _ => Belief::Said,
        };
        self.reported = service.reported;
        self.registered_at = service.registered_at.or(self.registered_at);
        self.beat = service.beat;
        self.component_id = clipped(service.component_id);
        self.name = clipped(service.name);
        self.address = service.address.or(self.address.filter(|_| !is_new));
        self.pod_uid = service.pod_uid;
        self.verified = service.verified;
        self.presence = Presence::Registered;
        self.named_in = list;
    }

    /// A sign of life.
    pub(super) fn beat(&mut self, mark: Mark, verified: Option<bool>, now: Now) {
        self.verified = verified.or(self.verified);
        if self.presence != Presence::Registered {
            self.presence = Presence::Registered;
            self.silent_since = now.listened;
        }
        if self.beat == Some(mark) {
            return;
        }
        self.beat = Some(mark);
        self.has_beaten = true;
        self.moves += 1;
        self.silent_since = now.listened;
        self.moved_tick = now.tick;
    }

    /// Whether a beat took UNHEALTHY back: one that says nothing leaves it.
    fn is_taken_back(&self, service: &Service) -> bool {
        self.reported == Reported::Unhealthy && service.reported == Reported::Healthy
    }

    /// It is no longer registered.
    pub(super) fn lose(&mut self, loss: Loss, tick: Tick) {
        if self.presence == Presence::Registered {
            self.presence = Presence::Gone(loss, tick);
        }
    }

    /// Whether it is known to have beaten, or may have before anything was heard.
    pub(super) fn was_heard(&self) -> bool {
        let may_have = self.registered_at.is_none() && self.beat.is_some() && !self.is_registered_then;
        self.has_beaten || may_have
    }

    /// What it reports, as far as that can be believed, and whether it is doubtful.
    pub(super) fn report(&self) -> (Reported, bool) {
        match self.belief {
            Belief::Said => (self.reported, false),
            Belief::Latched => (Reported::Unknown, false),
            Belief::Doubtful => (self.reported, true),
        }
    }

    /// Whether the server tells of registrations.
    pub(super) fn tells_registration(&self) -> bool {
        self.registered_at.is_some()
    }

    /// Whether the id was registered when that mark was heard of.
    pub(super) fn is_registered_as(&self, mark: Option<Mark>) -> bool {
        self.registered_at == mark
    }
}

/// Whether neither a registration nor an expiry makes a server tell that, but the component alone.
fn is_said_only(reported: Reported) -> bool {
    match reported {
        Reported::Starting | Reported::Degraded | Reported::Stopping => true,
        Reported::Unspecified | Reported::Unknown | Reported::Healthy | Reported::Unhealthy => false,
    }
}

/// Whether the server tells of a beat since the registration. One that tells of no registration may mean it by what looks like
/// a beat.
fn has_beaten(service: &Service) -> bool {
    service.registered_at.is_some() && service.beat.is_some() && service.beat != service.registered_at
}

fn clipped(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LONGEST));
    text
}
