//! What is heard: registrations, signs of life, lists, and what a list does not name any more.

use super::{
    super::{
        Mark, Service, Tick,
        track::{Continuity, Loss, Presence, Track},
    },
    ANONYMOUS, Evidence, PlaneState, Turned,
};

impl<O: Ord + Clone> Evidence<O> {
    pub(super) fn service(&mut self, service: Service, now: Tick, turned: &mut Turned<O>) {
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
                let is_anew = service.registered_at.is_some() && !track.is_registered_as(service.registered_at);
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

    pub(super) fn beat(&mut self, id: String, mark: Mark, verified: Option<bool>, now: Tick, turned: &mut Turned<O>) {
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

    pub(super) fn removed(&mut self, id: &str, now: Tick, turned: &mut Turned<O>) {
        self.lose(id, Loss::Alone, now);
        self.look_at(id, turned);
    }

    /// What the list that ends did not name is gone.
    pub(super) fn synced(&mut self, now: Tick, turned: &mut Turned<O>) {
        let Some(listing) = self.plane.listing.take() else {
            return;
        };
        self.plane.listened += listing.gap;
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
    pub(super) fn come_back(&mut self, turned: &mut Turned<O>) {
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
}
