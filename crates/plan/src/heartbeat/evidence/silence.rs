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
            self.ids.index();
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
}

/// How many are silent may change without anything being another than before.
fn is_still_suspect(now: &PlaneState, before: &PlaneState) -> bool {
    matches!((now, before), (PlaneState::Suspect { .. }, PlaneState::Suspect { .. }))
}
