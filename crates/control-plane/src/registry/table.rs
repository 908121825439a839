//! The state machine: services, and what registrations, beats and the passage of time make of them. It reads no clock and does
//! no I/O: the time is an argument, and what there is to tell and to write is returned. The registry has several of these, each
//! with its share of the ids, so that a list of all services holds up a fraction of the beats. It is one file because it is one
//! machine: what an event does, and the record that it does it to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use flowctl_proto::flowctl::v1::HealthStatus;
use prost::Message as _;

use super::error::RegistryError;
use super::feed::{Change, RemovalReason};
use super::history::{Budget, Ring};
use super::kept::{KeptLife, KeptRegistration};
use super::metrics::{Metrics, Shapes};
use super::model::{Beat, Beaten, Brief, Caller, History, Identity, Liveness, Registration, Service, Sign};
use super::time::{At, from_millis, millis};
use crate::limits::Limits;

/// Pods that one id remembers to have been replaced. Later ones are pods that ended long ago.
const SUPERSEDED: usize = 8;
/// Numbers that one sign of life carries.
const NUMBERS: usize = 64;

/// What does not change while the server runs.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) ttl: Duration,
    pub(super) retention: Duration,
    pub(super) limits: Limits,
}

/// The services of one share of the ids.
#[derive(Debug, Default)]
pub(super) struct Table {
    records: HashMap<Box<str>, Record>,
    shapes: Shapes,
}

/// A service. At 100,000 of them every byte here is 100 KB: rare parts are behind pointers, and what is read only when
/// somebody asks is kept encoded.
#[derive(Debug)]
struct Record {
    /// Steady: the sign of life from which the TTL counts.
    since: u64,
    /// Wall: the last beat, if there was one since the registration.
    beat: Beats,
    /// A [`KeptRegistration`].
    registration: Box<[u8]>,
    metrics: Metrics,
    history: Option<Box<Ring>>,
    owner: Option<Box<Owner>>,
    count: Count,
    service_type: Small,
    liveness: Liveness,
    reported: Small,
    marks: Marks,
}

/// A value of one of the wire's enumerations, in a byte instead of four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Small(u8);

/// When a service last beat, on the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Beats(i64);

/// How many beats this process took since the registration. Of a service that was read from disk and has not beaten since, minus the
/// seconds that it had been silent before `since`: one excludes the other.
#[derive(Clone, Copy, Debug)]
struct Count(i32);

/// Facts in a byte.
#[derive(Clone, Copy, Debug, Default)]
struct Marks(u8);

/// The pod that is proved to have registered, and those that it replaced.
#[derive(Debug)]
struct Owner {
    pod_uid: Option<Box<str>>,
    superseded: Vec<Box<str>>,
}

/// What a beat made of a service.
#[derive(Debug)]
pub(super) struct Pulse {
    pub(super) beaten: Beaten,
    /// Whether there is something to tell watchers.
    pub(super) is_change: bool,
    /// What must be on disk soon: that a service is not expired any more.
    pub(super) revived: Option<KeptLife>,
}

// === impl Table ===

impl Table {
    pub(super) fn contains(&self, id: &str) -> bool {
        self.records.contains_key(id)
    }

    /// Registers, or registers again. Returns what the store keeps.
    pub(super) fn register(
        &mut self,
        registration: &Registration,
        caller: Caller<'_>,
        now: At,
        ttl: Duration,
    ) -> Result<Vec<u8>, RegistryError> {
        let id = registration.service_id.as_str();
        let before = self.records.get_mut(id);
        let owner_before = before.as_ref().and_then(|record| record.owner.as_deref());
        let was = before
            .as_ref()
            .map_or(Liveness::Expired, |record| record.liveness_at(now, ttl));
        let owner = Owner::after(owner_before, id, caller.identity, was)?;
        let superseded = owner
            .iter()
            .flat_map(|owner| &owner.superseded)
            .map(|uid| uid.to_string());
        let kept = KeptRegistration::of(registration, caller, superseded.collect(), now.wall).encode_to_vec();
        let record = Record {
            since: now.steady,
            beat: Beats::NONE,
            registration: kept.clone().into_boxed_slice(),
            metrics: Metrics::default(),
            // Numbers of the instance before are still what the service did.
            history: before.and_then(|record| record.history.take()),
            owner: owner.map(Box::new),
            count: Count(0),
            service_type: Small::of(registration.service_type.into()),
            liveness: Liveness::Registered,
            reported: Small::of(HealthStatus::Unknown.into()),
            marks: Marks::default(),
        };
        self.records.insert(id.into(), record);
        Ok(kept)
    }

    /// A sign of life.
    pub(super) fn beat(
        &mut self,
        beat: &Beat<'_>,
        identity: Option<&Identity>,
        now: At,
        rules: &Rules,
        budget: &Arc<Budget>,
    ) -> Result<Pulse, RegistryError> {
        let id = beat.service_id;
        let unknown = || RegistryError::UnknownService(id.to_owned());
        let record = self.records.get_mut(id).ok_or_else(unknown)?;
        let was = record.liveness_at(now, rules.ttl);
        let is_verified = Owner::check_beat(record.owner.as_deref(), id, identity, was)?;
        let merged = record.metrics.merge(beat.metrics, &rules.limits, &mut self.shapes);
        let gap = Duration::from_millis(now.steady.saturating_sub(record.since));
        let reported = match beat.status {
            HealthStatus::Unknown => record.reported,
            said => Small::of(said.into()),
        };
        let is_change = was != Liveness::Live
            || reported != record.reported
            || merged.has_new_names
            || (!beat.metrics.is_empty() && (merged.left_out > 0) != record.marks.has(Marks::TRUNCATED))
            || is_verified != record.marks.has(Marks::VERIFIED);
        record.since = now.steady;
        record.count.beat();
        record.beat = Beats(now.wall);
        record.liveness = Liveness::Live;
        record.reported = reported;
        record.marks.set(Marks::VERIFIED, is_verified);
        record.marks.set(Marks::UNSAVED, true);
        if !beat.metrics.is_empty() {
            record.marks.set(Marks::TRUNCATED, merged.left_out > 0);
        }
        if rules.limits.history_bytes > 0 && !beat.metrics.is_empty() {
            let ring = record.history.get_or_insert_with(|| Box::new(Ring::new(budget)));
            ring.record(&record.metrics, now);
        }
        let revived = (was == Liveness::Expired).then(|| record.life());
        Ok(Pulse {
            beaten: Beaten {
                gap,
                was,
                left_out: merged.left_out,
            },
            is_change,
            revived,
        })
    }

    /// Removes a service; `false` if there was none.
    pub(super) fn unregister(
        &mut self,
        id: &str,
        identity: Option<&Identity>,
        now: At,
        ttl: Duration,
    ) -> Result<bool, RegistryError> {
        let Some(record) = self.records.get(id) else {
            return Ok(false);
        };
        match Owner::check_beat(record.owner.as_deref(), id, identity, record.liveness_at(now, ttl)) {
            // It is not this pod's to remove, and to this pod it is gone.
            Err(RegistryError::RegisteredByAnother(_)) => Ok(false),
            Err(refused) => Err(refused),
            Ok(_) => Ok(self.records.remove(id).is_some()),
        }
    }

    /// Time passes: services expire, and those that did so long ago go.
    pub(super) fn tick(&mut self, now: At, rules: &Rules) -> Vec<Change> {
        let mut changes = Vec::new();
        self.records.retain(|id, record| {
            if record.liveness_at(now, rules.ttl) != Liveness::Expired {
                return true;
            }
            if record.silent_for(now) > rules.retention.max(rules.ttl) {
                changes.push(Change::removed(id, RemovalReason::Retention));
                return false;
            }
            if record.liveness != Liveness::Expired {
                record.liveness = Liveness::Expired;
                record.marks.set(Marks::UNSAVED, true);
                changes.push(Change::service(id));
            }
            true
        });
        self.shapes.sweep();
        changes
    }

    /// A service that was read from disk. It gets a TTL of grace, unless it was expired before.
    pub(super) fn restore(
        &mut self,
        id: &str,
        kept: Vec<u8>,
        life: KeptLife,
        now: At,
    ) -> Result<(), prost::DecodeError> {
        let registration = KeptRegistration::decode(kept.as_slice())?;
        let last_seen = life.last_heartbeat.unwrap_or(registration.registered_at);
        let mut record = Record {
            since: now.steady,
            beat: life.last_heartbeat.map_or(Beats::NONE, Beats),
            service_type: Small::of(registration.service_type().into()),
            owner: Owner::restored(&registration).map(Box::new),
            registration: kept.into_boxed_slice(),
            metrics: Metrics::default(),
            history: None,
            count: Count::silent(now.wall.saturating_sub(last_seen) / 1000),
            liveness: if life.is_expired {
                Liveness::Expired
            } else {
                Liveness::Restored
            },
            reported: Small::of(life.reported),
            marks: Marks::default(),
        };
        record.marks.set(Marks::VERIFIED, life.is_beat_verified);
        self.records.insert(id.into(), record);
        Ok(())
    }

    /// What has to be written to disk of the lives that changed since the last call.
    pub(super) fn take_unsaved(&mut self) -> Vec<(String, KeptLife)> {
        let records = self
            .records
            .iter_mut()
            .filter(|(_, record)| record.marks.has(Marks::UNSAVED));
        let taken = records.map(|(id, record)| {
            record.marks.set(Marks::UNSAVED, false);
            (id.to_string(), record.life())
        });
        taken.collect()
    }

    /// Lives that were taken and did not reach the disk are taken again.
    pub(super) fn mark_unsaved(&mut self, ids: &[String]) {
        for id in ids {
            if let Some(record) = self.records.get_mut(id.as_str()) {
                record.marks.set(Marks::UNSAVED, true);
            }
        }
    }

    pub(super) fn get(&self, id: &str, now: At, ttl: Duration) -> Option<Service> {
        Some(self.records.get(id)?.read(id, now, ttl))
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.records.keys().map(AsRef::as_ref)
    }

    pub(super) fn services(&self, now: At, ttl: Duration) -> impl Iterator<Item = Service> {
        self.records.iter().map(move |(id, record)| record.read(id, now, ttl))
    }

    pub(super) fn briefs(&self, now: At, ttl: Duration) -> impl Iterator<Item = Brief> {
        self.records.values().map(move |record| Brief {
            service_type: record.service_type.into_enum(),
            liveness: record.liveness_at(now, ttl),
            reported: record.reported.into_enum(),
            silent_for: record.silent_for(now),
        })
    }

    /// Who has beaten and is not told to be expired, and when (steady, in milliseconds).
    pub(super) fn beaten(&self) -> impl Iterator<Item = (&str, u64)> {
        self.records.iter().filter_map(|(id, record)| match record.liveness {
            Liveness::Live => Some((id.as_ref(), record.since)),
            Liveness::Registered | Liveness::Restored | Liveness::Expired => None,
        })
    }

    /// The last beat of a service that has beaten, with the numbers of `wanted` names.
    pub(super) fn sign(&self, id: &str, wanted: impl Fn(&str) -> bool) -> Option<Sign> {
        let record = self.records.get(id)?;
        Some(Sign {
            at: from_millis(record.beat.at()?),
            heartbeats: record.count.heartbeats(),
            is_verified: record.marks.has(Marks::VERIFIED),
            numbers: record.metrics.select(wanted, NUMBERS),
        })
    }

    pub(super) fn history(&self, id: &str, back: Duration, now: At, wanted: impl Fn(&str) -> bool) -> Option<History> {
        let history = self.records.get(id)?.history.as_ref();
        Some(history.map_or_else(History::default, |ring| ring.read(back, now, wanted)))
    }
}

// === impl Record ===

impl Record {
    /// Expiry is told by the time, not by whether a tick has come round to this service.
    fn liveness_at(&self, now: At, ttl: Duration) -> Liveness {
        if now.steady.saturating_sub(self.since) > millis(ttl) {
            Liveness::Expired
        } else {
            self.liveness
        }
    }

    fn silent_for(&self, now: At) -> Duration {
        Duration::from_millis(now.steady.saturating_sub(self.since)) + self.count.silent_before()
    }

    fn life(&self) -> KeptLife {
        KeptLife {
            last_heartbeat: self.beat.at(),
            reported: self.reported.into(),
            is_expired: self.liveness == Liveness::Expired,
            is_beat_verified: self.marks.has(Marks::VERIFIED),
        }
    }

    fn read(&self, id: &str, now: At, ttl: Duration) -> Service {
        // These bytes were encoded by this process, or decoded by it when they were restored.
        let kept = KeptRegistration::decode(self.registration.as_ref()).unwrap_or_default();
        Service {
            identity: kept.identity(),
            peer: kept.peer(),
            registered_at: from_millis(kept.registered_at),
            registration: kept.into_registration(id),
            liveness: self.liveness_at(now, ttl),
            reported: self.reported.into_enum(),
            last_heartbeat: self.beat.at().map(from_millis),
            heartbeats: self.count.heartbeats(),
            is_beat_verified: self.marks.has(Marks::VERIFIED),
            metrics: self.metrics.read(),
            are_metrics_truncated: self.marks.has(Marks::TRUNCATED),
        }
    }
}

// === impl Small ===

impl Small {
    /// Numbers that no enumeration has are its zero.
    fn of(number: i32) -> Self {
        Self(u8::try_from(number).unwrap_or(0))
    }

    fn into_enum<E: TryFrom<i32> + Default>(self) -> E {
        E::try_from(self.into()).unwrap_or_default()
    }
}

impl From<Small> for i32 {
    fn from(small: Small) -> Self {
        small.0.into()
    }
}

// === impl Count ===

impl Count {
    /// Nothing before `since` counts where the wall clock was set back.
    fn silent(seconds: i64) -> Self {
        Self(-i32::try_from(seconds.max(0)).unwrap_or(i32::MAX))
    }

    /// It never stands still: after the last number comes the first.
    fn beat(&mut self) {
        self.0 = self.0.max(0).checked_add(1).unwrap_or(1);
    }

    fn heartbeats(self) -> u64 {
        u64::try_from(self.0).unwrap_or(0)
    }

    fn silent_before(self) -> Duration {
        Duration::from_secs(u64::from(self.0.min(0).unsigned_abs()))
    }
}

// === impl Marks ===

impl Marks {
    /// The sender of the last beat was proved to be who registered.
    const VERIFIED: u8 = 1;
    /// Its life has changed since it was last written to disk.
    const UNSAVED: u8 = 2;
    /// Some metrics were left out.
    const TRUNCATED: u8 = 4;

    fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }

    fn set(&mut self, mark: u8, is_set: bool) {
        self.0 = if is_set { self.0 | mark } else { self.0 & !mark };
    }
}

// === impl Beats ===

impl Beats {
    const NONE: Self = Self(i64::MIN);

    fn at(self) -> Option<i64> {
        (self != Self::NONE).then_some(self.0)
    }
}

// === impl Owner ===

impl Owner {
    /// Who owns an id after a registration by `identity`. A pod that was replaced stays replaced, however late it registers,
    /// until its successor has fallen silent: a roll-out that is taken back leaves the old pod.
    fn after(
        before: Option<&Self>,
        id: &str,
        identity: Option<&Identity>,
        was: Liveness,
    ) -> Result<Option<Self>, RegistryError> {
        let uid = uid(identity);
        let mut superseded = before.map(|owner| owner.superseded.clone()).unwrap_or_default();
        if let Some(place) = superseded.iter().position(|replaced| Some(&**replaced) == uid) {
            if was != Liveness::Expired {
                return Err(RegistryError::Superseded(id.to_owned()));
            }
            superseded.remove(place);
        }
        let replaced = before.and_then(|owner| owner.pod_uid.as_deref());
        if let (Some(replaced), Some(uid)) = (replaced, uid)
            && replaced != uid
        {
            let too_many = (superseded.len() + 1).saturating_sub(SUPERSEDED);
            superseded.drain(..too_many);
            superseded.push(replaced.into());
        }
        let owner = Self {
            pod_uid: uid.map(Into::into),
            superseded,
        };
        Ok((owner.pod_uid.is_some() || !owner.superseded.is_empty()).then_some(owner))
    }

    fn restored(kept: &KeptRegistration) -> Option<Self> {
        let identity = kept.identity();
        let owner = Self {
            pod_uid: uid(identity.as_ref()).map(Into::into),
            superseded: kept.superseded.iter().map(|uid| uid.as_str().into()).collect(),
        };
        (owner.pod_uid.is_some() || !owner.superseded.is_empty()).then_some(owner)
    }

    /// Whether a beat is verified, or why it is refused. On a registration that nobody proved to be his, no beat is.
    fn check_beat(
        owner: Option<&Self>,
        id: &str,
        identity: Option<&Identity>,
        was: Liveness,
    ) -> Result<bool, RegistryError> {
        let (Some(owner), Some(uid)) = (owner, uid(identity)) else {
            return Ok(false);
        };
        if owner.superseded.iter().any(|replaced| **replaced == *uid) {
            return Err(match was {
                // Its successor is silent: it may register again, and is told to.
                Liveness::Expired => RegistryError::RegisteredByAnother(id.to_owned()),
                Liveness::Registered | Liveness::Live | Liveness::Restored => RegistryError::Superseded(id.to_owned()),
            });
        }
        match &owner.pod_uid {
            Some(owner) if **owner != *uid => Err(RegistryError::RegisteredByAnother(id.to_owned())),
            Some(_) => Ok(true),
            None => Ok(false),
        }
    }
}

fn uid(identity: Option<&Identity>) -> Option<&str> {
    identity
        .map(|identity| identity.pod_uid.as_str())
        .filter(|uid| !uid.is_empty())
}
