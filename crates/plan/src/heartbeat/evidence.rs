//! The fold: everything that one control plane said, and what follows for each id that an object expects. Signs of life are
//! believed when they are heard; silence is judged by [`Evidence::pass_time`] alone, for all ids together, because whether many
//! fell silent at once matters.

mod hear;
mod plane;
mod silence;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use self::plane::Plane;
pub use self::plane::PlaneState;
use super::{
    Heard, IdEvidence, Identity, ObjectEvidence, Sign, Tick,
    expect::{Expectation, ExpectedPod, Pace},
    ids::{Ids, Search},
    slot::{Arrival, Occupant, Slot},
    track::{Continuity, Presence, Track},
};

/// What begins the key of a service that the server lists without an id; no id has it.
const ANONYMOUS: char = '\0';

/// What one control plane proves. `O` names an object that expects something of it.
#[derive(Clone, Debug)]
pub struct Evidence<O> {
    plane: Plane,
    ids: Ids<O>,
    objects: BTreeMap<O, Object>,
    /// The uids of the pods at each address.
    addresses: BTreeMap<IpAddr, BTreeSet<String>>,
}

/// What turned: everything else is as it was told before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned<O> {
    /// Objects of which another thing is proved than before.
    pub owners: BTreeSet<O>,
    /// What became of the control plane, if it changed.
    pub plane: Option<PlaneState>,
}

/// An object and what it expects.
#[derive(Clone, Debug)]
struct Object {
    pace: Pace,
    names: Vec<String>,
    is_shared: bool,
    slots: BTreeMap<String, Slot>,
    /// Every pod that lives, whether something is expected of it or not.
    arrivals: BTreeMap<String, Arrival>,
    /// When it was last looked at.
    looked: Tick,
}

// === impl Turned ===

impl<O> Default for Turned<O> {
    fn default() -> Self {
        Self {
            owners: BTreeSet::new(),
            plane: None,
        }
    }
}

// === impl Evidence ===

impl<O: Ord + Clone> Evidence<O> {
    /// Nothing is heard yet.
    pub fn new(now: Tick) -> Self {
        Self {
            plane: Plane::new(now),
            ids: Ids::new(),
            objects: BTreeMap::new(),
            addresses: BTreeMap::new(),
        }
    }

    /// Takes in what the control plane said, and tells what turned by it.
    pub fn hear(&mut self, heard: Heard, now: Tick) -> Turned<O> {
        let mut turned = Turned::default();
        self.plane.listen(&heard, now);
        if self.plane.is_in_touch() && !self.plane.is_believed() {
            self.come_back(&mut turned);
        }
        match heard {
            Heard::Started {
                instance,
                persistent,
                identity,
            } => self.plane.start(instance, persistent, identity, now),
            Heard::Service(service) => self.service(service, now, &mut turned),
            Heard::Removed { id } => self.removed(&id, now, &mut turned),
            Heard::Synced => self.synced(now, &mut turned),
            Heard::Beats(beats) => {
                for beat in beats {
                    self.beat(beat.id, beat.mark, beat.verified, now, &mut turned);
                }
            }
            Heard::Alive | Heard::Lost { .. } => {}
        }
        turned
    }

    /// From now on the owner expects this, and nothing else. Expecting the same again changes nothing.
    pub fn expect(&mut self, owner: O, expectation: Expectation, now: Tick) {
        let Expectation {
            pace,
            names,
            is_shared,
            ids,
            live,
            published_stale,
            published_unheard,
        } = expectation;
        self.unlist_addresses(&owner);
        let (mut before, known) = match self.objects.remove(&owner) {
            Some(object) => (object.slots, Some((object.arrivals, object.looked))),
            None => (BTreeMap::new(), None),
        };
        let arrivals: BTreeMap<String, Arrival> = live
            .into_iter()
            .map(|uid| {
                let arrival = match &known {
                    Some((arrivals, looked)) => arrivals.get(&uid).copied().unwrap_or(Arrival::Between {
                        before: *looked,
                        seen: now,
                    }),
                    None if published_unheard.is_empty() => Arrival::First,
                    None => Arrival::Unheard(now),
                };
                (uid, arrival)
            })
            .collect();
        let arrival = |pod: &ExpectedPod| {
            let known = arrivals.get(&pod.uid).copied().filter(|_| is_shared);
            known.unwrap_or(Arrival::First)
        };
        before.retain(|id, _| {
            let kept = ids.contains_key(id);
            if !kept {
                self.ids.release(id, &owner);
            }
            kept
        });
        let at = self.plane.now(now, Continuity::Unbroken);
        let mut slots = BTreeMap::new();
        for (id, pods) in ids {
            self.ids.want(&id, &owner);
            let track = self.ids.tracks.get(&id);
            let pods = pods
                .into_iter()
                .map(|pod| Occupant {
                    arrival: arrival(&pod),
                    pod,
                })
                .collect();
            let slot = match before.remove(&id) {
                Some(mut slot) => {
                    slot.set_pods(pods);
                    slot
                }
                None => Slot::new(pods, published_stale.contains(&id), track, pace, at),
            };
            slots.insert(id, slot);
        }
        let pods = || slots.values().flat_map(Slot::pods);
        for ExpectedPod { uid, addresses, .. } in pods() {
            for address in addresses {
                self.addresses.entry(*address).or_default().insert(uid.clone());
            }
        }
        let object = Object {
            pace,
            names,
            is_shared,
            slots,
            arrivals,
            looked: now,
        };
        self.objects.insert(owner.clone(), object);
        // Whoever expects something asks next.
        self.see(&owner);
        self.refresh(&owner, &mut Turned::default());
    }

    /// The owner expects nothing more.
    pub fn forget(&mut self, owner: &O) {
        self.unlist_addresses(owner);
        let Some(object) = self.objects.remove(owner) else {
            return;
        };
        for id in object.slots.keys() {
            self.ids.release(id, owner);
        }
    }

    /// What is proved for the owner.
    pub fn of(&self, owner: &O, now: Tick) -> ObjectEvidence {
        let Some(object) = self.objects.get(owner) else {
            return ObjectEvidence::default();
        };
        let ids = object.slots.iter().map(|(id, slot)| IdEvidence {
            id: id.clone(),
            pod_uid: slot
                .pods()
                .next()
                .filter(|_| !object.is_shared)
                .map(|pod| pod.uid.clone()),
            sign: slot.sign.clone(),
            verified: slot.verified,
            silent_for: self.silent_for(id, slot, now),
        });
        ObjectEvidence {
            ids: ids.collect(),
            is_shared: object.is_shared,
            stale_after: object.pace.stale_after,
            identity: self.plane.identity.clone(),
        }
    }

    /// Whether nobody expects anything.
    pub fn is_idle(&self) -> bool {
        self.objects.is_empty()
    }

    /// How the control plane is.
    pub fn state(&self) -> &PlaneState {
        &self.plane.state
    }

    /// How it wants components to prove who they are, if it told.
    pub fn identity(&self) -> Option<&Identity> {
        self.plane.identity.as_ref()
    }

    /// How many ids it keeps something of: those that are expected, and 16,384 others at most.
    pub fn known(&self) -> usize {
        self.ids.tracks.len()
    }

    /// Whose id that is.
    pub fn owners_of(&self, id: &str) -> impl Iterator<Item = &O> {
        self.ids.owners(id)
    }

    /// The objects that expect an id and hear it: not those for which it is silent, lost, or somebody else's.
    pub fn heard_by(&self, id: &str) -> impl Iterator<Item = &O> {
        self.ids.owners(id).filter(move |owner| {
            let slot = self.objects.get(*owner).and_then(|object| object.slots.get(id));
            slot.is_some_and(|slot| matches!(slot.sign, Sign::Fresh { .. } | Sign::Undecided))
        })
    }

    /// The time since the last sign of life of each id that is expected and registered.
    pub fn ages(&self, now: Tick) -> impl Iterator<Item = (&O, &str, Duration)> {
        self.objects.iter().flat_map(move |(owner, object)| {
            object.slots.keys().filter_map(move |id| {
                let track = self.ids.tracks.get(id)?;
                let is_there = track.presence == Presence::Registered;
                is_there.then(|| (owner, id.as_str(), now.since(track.moved_tick)))
            })
        })
    }

    fn with_slot(&mut self, owner: &O, id: &str, change: impl FnOnce(&mut Slot, &Track)) {
        let slot = self.objects.get_mut(owner).and_then(|object| object.slots.get_mut(id));
        if let (Some(slot), Some(track)) = (slot, self.ids.tracks.get(id)) {
            change(slot, track);
        }
    }

    /// After a word about one id.
    fn look_at(&mut self, id: &str, turned: &mut Turned<O>) {
        let owners: Vec<O> = self.ids.owners(id).cloned().collect();
        for owner in owners {
            self.with_slot(&owner, id, |slot, track| slot.see_moves(track));
            self.refresh_one(&owner, id, turned);
        }
    }

    fn see(&mut self, owner: &O) {
        let Some(object) = self.objects.get_mut(owner) else {
            return;
        };
        for (id, slot) in &mut object.slots {
            if let Some(track) = self.ids.tracks.get(id) {
                slot.see_moves(track);
            }
        }
    }

    fn refresh(&mut self, owner: &O, turned: &mut Turned<O>) {
        let ids: Vec<String> = self
            .objects
            .get(owner)
            .into_iter()
            .flat_map(|object| object.slots.keys().cloned())
            .collect();
        for id in ids {
            self.refresh_one(owner, &id, turned);
        }
    }

    fn refresh_one(&mut self, owner: &O, id: &str, turned: &mut Turned<O>) {
        let Some(object) = self.objects.get(owner) else { return };
        let Some(slot) = object.slots.get(id) else { return };
        let track = self.ids.tracks.get(id);
        let stranger = || {
            let search = Search {
                addresses: &slot.addresses(),
                names: &object.names,
                stale_after: object.pace.stale_after,
                listened: self.plane.listened,
            };
            let is_claimed = |name: &str| {
                let mut others = self.objects.iter().filter(|(other, _)| *other != owner);
                others.any(|(_, other)| other.may_be(name))
            };
            let found = self.ids.stranger(&search, is_claimed)?;
            Some(if found.starts_with(ANONYMOUS) {
                String::new()
            } else {
                found
            })
        };
        let footing = self.plane.footing(object.pace);
        let sign = slot.read(track, footing, object.is_shared, &self.addresses, stranger);
        let verified = track.and_then(|track| track.verified);
        let slot = self.objects.get_mut(owner).and_then(|object| object.slots.get_mut(id));
        if let Some(slot) = slot.filter(|slot| slot.sign != sign || slot.verified != verified) {
            slot.sign = sign;
            slot.verified = verified;
            turned.owners.insert(owner.clone());
        }
    }

    fn unlist_addresses(&mut self, owner: &O) {
        let Some(object) = self.objects.get(owner) else { return };
        for pod in object.slots.values().flat_map(Slot::pods) {
            for address in &pod.addresses {
                if let Some(uids) = self.addresses.get_mut(address) {
                    uids.remove(&pod.uid);
                    if uids.is_empty() {
                        self.addresses.remove(address);
                    }
                }
            }
        }
    }

    fn silent_for(&self, id: &str, slot: &Slot, now: Tick) -> Option<Duration> {
        let track = self.ids.tracks.get(id);
        match slot.sign {
            Sign::Unreachable => Some(now.since(self.plane.heard)),
            Sign::Stale | Sign::Suspect => track.map(|track| now.since(track.moved_tick)),
            Sign::Reset | Sign::Lost => track.and_then(|track| match track.presence {
                Presence::Gone(_, since) => Some(now.since(since)),
                Presence::Registered => None,
            }),
            Sign::Undecided
            | Sign::Absent
            | Sign::OfPredecessor
            | Sign::Elsewhere { .. }
            | Sign::UsedByAnother
            | Sign::Fresh { .. } => None,
        }
    }
}

// === impl Object ===

impl Object {
    fn misses_somebody(&self) -> bool {
        self.slots
            .values()
            .any(|slot| matches!(slot.sign, Sign::Absent | Sign::Undecided | Sign::Elsewhere { .. }))
    }

    /// Whether a stranger of that name may be one of its pods.
    fn may_be(&self, name: &str) -> bool {
        let is_unlooked_at = self.slots.is_empty() && !self.arrivals.is_empty();
        self.names.iter().any(|own| own == name) && (is_unlooked_at || self.misses_somebody())
    }
}
