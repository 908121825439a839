//! What is not heard any more. Silence is judged for all ids together, because whether many fell silent at once decides who is
//! to blame.

use std::time::Duration;

use super::{
    super::{
        Tick, UNREACHABLE,
        guard::{Count, is_late},
        slot::Slot,
        track::{Continuity, Loss, Presence},
    },
    Evidence, Object, PlaneState, Turned,
};

/// A control plane that hears somebody is doubted for so long at most: then it is believed about the others.
const DOUBTED: Duration = Duration::from_mins(10);
/// Somebody was heard, if that was no longer ago than this: the longest interval between two heartbeats, and a little.
const HEARD: Duration = Duration::from_secs(75);
/// A reset is told of until everybody is back, and for so long at most.
const RESET: Duration = Duration::from_secs(60);

impl<O: Ord + Clone> Evidence<O> {
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
            self.ids.index(self.plane.listened);
        }
        let owners: Vec<O> = self.objects.keys().cloned().collect();
        for owner in &owners {
            self.refresh(owner, &mut turned);
        }
        turned
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
                if track.presence != Presence::Registered || !slot.is_own(track) {
                    continue;
                }
                slot.see_moves(track);
                let counts = slot.is_pod_ready();
                if slot.is_held() {
                    held.push((owner.clone(), id.clone()));
                    count.healthy += usize::from(counts);
                    count.silent += usize::from(counts);
                }
                let is_silent = is_late(at.silence(track.silent_since), object.pace);
                if slot.is_presumed_healthy() && is_silent {
                    late.push((owner.clone(), id.clone()));
                }
                if slot.is_known_healthy(track) {
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
        let suspected = self.plane.suspected.filter(|_| was_suspect).unwrap_or(now);
        self.plane.suspected = is_suspect.then_some(suspected);
        let is_over = now.since(suspected) >= DOUBTED && self.hears_somebody(now);
        if is_suspect && is_over {
            due.append(&mut held);
        } else if is_suspect {
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

    /// Whether anybody at all gave a sign of life lately.
    fn hears_somebody(&self, now: Tick) -> bool {
        let mut tracks = self.ids.tracks.values();
        tracks.any(|track| {
            let is_there = track.presence == Presence::Registered;
            is_there && track.moves > 0 && now.since(track.moved_tick) < HEARD
        })
    }
}

/// How many are silent may change without anything being another than before.
fn is_still_suspect(now: &PlaneState, before: &PlaneState) -> bool {
    matches!((now, before), (PlaneState::Suspect { .. }, PlaneState::Suspect { .. }))
}
