//! The fold: everything that one control plane said, and what follows for each id that an object expects. Signs of life are
//! believed when they are heard; silence is judged by [`Evidence::pass_time`] alone, for all ids together, because whether many
//! fell silent at once matters.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{
    GAP, Heard, IdEvidence, Identity, Mark, ObjectEvidence, Service, Sign, Tick, UNREACHABLE,
    expect::{Expectation, ExpectedPod, Pace},
    guard::{Count, is_late},
    ids::Ids,
    slot::{Footing, Slot},
    track::{Continuity, Loss, Now, Presence, Track},
};

/// What begins the key of a service that the server lists without an id; no id has it.
const ANONYMOUS: char = '\0';
/// A reset is told of until everybody is back, and for so long at most.
const RESET: Duration = Duration::from_secs(60);

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
struct Plane {
    state: PlaneState,
    /// When it was last heard, or when we began to listen.
    heard: Tick,
    /// How long it has been listened to.
    listened: Duration,
    /// Since when nothing was missed, in time that was listened to.
    firm_since: Duration,
    /// What went wrong last, if nothing was heard since.
    lost: Option<String>,
    instance: Option<String>,
    identity: Option<Identity>,
    has_synced: bool,
    listing: Option<Listing>,
    /// Number of the list that is being read, or was read last.
    list: u64,
    reset_at: Option<Tick>,
}

/// A list that is being read.
#[derive(Clone, Copy, Debug)]
struct Listing {
    continuity: Continuity,
    /// The server's process is another one, and keeps nothing.
    is_blank: bool,
    /// Expected services that registered anew since the last list.
    registered_anew: usize,
}

/// An object and what it expects.
#[derive(Clone, Debug)]
struct Object {
    pace: Pace,
    names: Vec<String>,
    is_shared: bool,
    slots: BTreeMap<String, Slot>,
    addresses: BTreeSet<IpAddr>,
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
            plane: Plane {
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
            },
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
            } => self.plane.start(instance, persistent, identity),
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

    /// Judges silence; to be called about once a second.
    pub fn pass_time(&mut self, now: Tick) -> Turned<O> {
        let mut turned = Turned::default();
        if now.since(self.plane.heard) >= UNREACHABLE && !matches!(self.plane.state, PlaneState::Unreachable { .. }) {
            let message = self.plane.lost.clone().unwrap_or_else(|| "it says nothing".to_owned());
            self.plane.state = PlaneState::Unreachable { message };
            turned.plane = Some(self.plane.state.clone());
        }
        if self.plane.is_believed() {
            let state = self.judge(now);
            if state != self.plane.state && !is_still_suspect(&state, &self.plane.state) {
                turned.plane = Some(state.clone());
            }
            self.plane.state = state;
        }
        if self.objects.values().any(Object::misses_somebody) {
            self.ids.index();
        }
        let owners: Vec<O> = self.objects.keys().cloned().collect();
        for owner in &owners {
            self.refresh(owner, &mut turned);
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
            published_stale,
        } = expectation;
        self.unlist_addresses(&owner);
        let mut before = self
            .objects
            .remove(&owner)
            .map(|object| object.slots)
            .unwrap_or_default();
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
            let slot = match before.remove(&id) {
                Some(mut slot) => {
                    slot.set_pods(pods, now);
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
            addresses: pods().flat_map(|pod| pod.addresses.iter().copied()).collect(),
            slots,
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

    fn service(&mut self, service: Service, now: Tick, turned: &mut Turned<O>) {
        let id = if service.id.is_empty() {
            format!("{ANONYMOUS}{}", service.name)
        } else {
            service.id.clone()
        };
        let continuity = self.plane.continuity();
        let at = self.plane.now(now, continuity);
        let list = self.plane.list;
        let is_wanted = self.ids.is_wanted(&id);
        match self.ids.tracks.get_mut(&id) {
            Some(track) => {
                let is_anew = !track.is_registered_as(service.registered_at);
                let moved = track.moves;
                track.update(service, at, list);
                if is_wanted
                    && is_anew
                    && let Some(listing) = &mut self.plane.listing
                {
                    listing.registered_anew += 1;
                }
                if !is_wanted && (is_anew || moved == 0) {
                    self.ids.stranger_changed();
                }
            }
            None => self.ids.insert(id.clone(), Track::new(service, at, list)),
        }
        self.look_at(&id, turned);
    }

    fn beat(&mut self, id: String, mark: Mark, verified: Option<bool>, now: Tick, turned: &mut Turned<O>) {
        let at = self.plane.now(now, Continuity::Unbroken);
        let is_wanted = self.ids.is_wanted(&id);
        if let Some(track) = self.ids.tracks.get_mut(&id) {
            let is_first = track.moves == 0;
            track.beat(mark, verified, at);
            if is_first && !is_wanted {
                self.ids.stranger_changed();
            }
        } else if is_wanted {
            // Not every stranger's registration is kept, and this one is expected by now.
            self.ids
                .insert(id.clone(), Track::unnamed(mark, verified, at, self.plane.list));
        } else {
            return;
        }
        self.look_at(&id, turned);
    }

    fn removed(&mut self, id: &str, now: Tick, turned: &mut Turned<O>) {
        self.lose(id, Loss::Alone, now);
        self.look_at(id, turned);
    }

    /// What the list that ends did not name is gone.
    fn synced(&mut self, now: Tick, turned: &mut Turned<O>) {
        let Some(listing) = self.plane.listing.take() else {
            return;
        };
        if !self.plane.has_synced {
            self.plane.has_synced = true;
            self.come_back(turned);
        }
        let list = self.plane.list;
        let unnamed: Vec<String> = self
            .ids
            .tracks
            .iter()
            .filter(|(_, track)| track.named_in != list && track.presence == Presence::Registered)
            .map(|(id, _)| id.clone())
            .collect();
        let missing = unnamed.iter().filter(|id| self.ids.is_wanted(id)).count();
        let known = self
            .ids
            .tracks
            .iter()
            .filter(|(id, track)| self.ids.is_wanted(id) && track.presence == Presence::Registered)
            .count();
        let is_after_gap = listing.continuity == Continuity::Resumed;
        let most = missing >= 2 && 2 * (missing + listing.registered_anew) > known;
        let all = missing > 0 && missing == known && is_after_gap;
        let is_reset = most || all || (missing > 0 && listing.is_blank);
        let loss = if is_reset { Loss::WithOthers } else { Loss::Alone };
        for id in &unnamed {
            self.lose(id, loss, now);
        }
        if is_reset {
            self.plane.reset_at = Some(now);
            self.plane.state = PlaneState::Reset;
            turned.plane = Some(PlaneState::Reset);
        }
        let owners: Vec<O> = self.objects.keys().cloned().collect();
        for owner in &owners {
            self.see(owner);
            self.refresh(owner, turned);
        }
    }

    /// It is heard for the first time, or after an outage that was told: everybody is given a whole stale time.
    fn come_back(&mut self, turned: &mut Turned<O>) {
        self.plane.state = PlaneState::Good;
        turned.plane = Some(PlaneState::Good);
        self.begin_anew();
        let owners: Vec<O> = self.objects.keys().cloned().collect();
        for owner in &owners {
            self.refresh(owner, turned);
        }
    }

    fn begin_anew(&mut self) {
        self.plane.firm_since = self.plane.listened;
        for track in self.ids.tracks.values_mut() {
            track.silent_since = self.plane.listened;
        }
        for object in self.objects.values_mut() {
            for (id, slot) in &mut object.slots {
                if let Some(track) = self.ids.tracks.get(id) {
                    slot.restart(track);
                }
            }
        }
    }

    fn lose(&mut self, id: &str, loss: Loss, now: Tick) {
        if !self.ids.is_wanted(id) {
            self.ids.forget(id);
            return;
        }
        let Some(track) = self.ids.tracks.get_mut(id) else {
            return;
        };
        track.lose(loss, now);
        let owners: Vec<O> = self.ids.owners(id).cloned().collect();
        for owner in owners {
            let slot = self.objects.get_mut(&owner).and_then(|object| object.slots.get_mut(id));
            if let (Some(slot), Some(track)) = (slot, self.ids.tracks.get(id)) {
                slot.restart(track);
            }
        }
    }

    /// Decides which silent ids are stale, and whether the control plane is to be believed.
    fn judge(&mut self, now: Tick) -> PlaneState {
        let at = self.plane.now(now, Continuity::Unbroken);
        let mut count = Count::default();
        let mut due: Vec<(O, String)> = Vec::new();
        let mut late: Vec<(O, String)> = Vec::new();
        let mut held: Vec<(O, String)> = Vec::new();
        for (owner, object) in &mut self.objects {
            for (id, slot) in &mut object.slots {
                let Some(track) = self.ids.tracks.get(id) else { continue };
                if track.presence != Presence::Registered {
                    continue;
                }
                slot.see_moves(track);
                let counts = slot.is_pod_ready();
                if slot.is_held() {
                    held.push((owner.clone(), id.clone()));
                    count.healthy += usize::from(counts);
                    count.silent += usize::from(counts);
                }
                if slot.is_presumed_healthy() {
                    let is_silent = is_late(at.silence(track.silent_since), object.pace);
                    if is_silent {
                        late.push((owner.clone(), id.clone()));
                    }
                    count.healthy += usize::from(counts);
                    count.silent += usize::from(counts && is_silent);
                }
                if slot.is_due(track, object.pace, at) {
                    due.push((owner.clone(), id.clone()));
                }
            }
        }
        let was_suspect = matches!(self.plane.state, PlaneState::Suspect { .. });
        let is_suspect = count.is_suspicious() && (was_suspect || !due.is_empty());
        if is_suspect {
            for (owner, id) in if was_suspect { &due } else { &late } {
                self.with_slot(owner, id, Slot::hold);
            }
            return PlaneState::Suspect { silent: count.silent };
        }
        for (owner, id) in &due {
            self.with_slot(owner, id, Slot::set_stale);
        }
        for (owner, id) in &held {
            if let Some(track) = self.ids.tracks.get_mut(id) {
                track.silent_since = at.listened;
            }
            self.with_slot(owner, id, Slot::restart);
        }
        let is_recent = self.plane.reset_at.is_some_and(|reset| now.since(reset) < RESET);
        let anybody_missing = || {
            self.ids
                .tracks
                .values()
                .any(|track| matches!(track.presence, Presence::Gone(Loss::WithOthers, _)))
        };
        if is_recent && anybody_missing() {
            return PlaneState::Reset;
        }
        self.plane.reset_at = None;
        PlaneState::Good
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
        let Some(object) = self.objects.get_mut(owner) else {
            return;
        };
        let footing = self.plane.footing(object.pace);
        let Object {
            names,
            slots,
            addresses,
            is_shared,
            ..
        } = object;
        let Some(slot) = slots.get_mut(id) else { return };
        let track = self.ids.tracks.get(id);
        let stranger = || {
            let found = self.ids.stranger(&slot.addresses(), addresses, names)?;
            Some(found.strip_prefix(ANONYMOUS).map_or(found, |_| "").to_owned())
        };
        let sign = slot.read(track, footing, *is_shared, &self.addresses, stranger);
        let verified = track.and_then(|track| track.verified);
        if slot.sign != sign || slot.verified != verified {
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

/// How many are silent may change without anything being another than before.
fn is_still_suspect(now: &PlaneState, before: &PlaneState) -> bool {
    matches!((now, before), (PlaneState::Suspect { .. }, PlaneState::Suspect { .. }))
}

// === impl Object ===

impl Object {
    fn misses_somebody(&self) -> bool {
        self.slots
            .values()
            .any(|slot| matches!(slot.sign, Sign::Absent | Sign::Undecided | Sign::Elsewhere { .. }))
    }
}

// === impl Plane ===

impl Plane {
    /// Notes that it spoke, or that it did not.
    fn listen(&mut self, heard: &Heard, now: Tick) {
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

    fn start(&mut self, instance: Option<String>, persistent: bool, identity: Option<Identity>) {
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
    fn is_in_touch(&self) -> bool {
        self.lost.is_none() && self.has_synced
    }

    /// Whether it counts as reachable.
    fn is_believed(&self) -> bool {
        !matches!(self.state, PlaneState::Unreachable { .. } | PlaneState::Connecting)
    }

    fn continuity(&self) -> Continuity {
        self.listing.map_or(Continuity::Unbroken, |listing| listing.continuity)
    }

    fn now(&self, tick: Tick, continuity: Continuity) -> Now {
        Now {
            tick,
            listened: self.listened,
            continuity,
        }
    }

    fn footing(&self, pace: Pace) -> Footing {
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
