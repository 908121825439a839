//! The ids that are known of one control plane: those that somebody expects, and strangers, which are kept only to find out who
//! registers under another id than its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{
    LONGEST, LOOK, STRANGERS,
    track::{Presence, Track},
};

/// Strangers under one key, at most: two that beat are one too many to tell which it is.
const NAMESAKES: usize = 8;

/// The tracks.
#[derive(Clone, Debug)]
pub(super) struct Ids<O> {
    pub(super) tracks: BTreeMap<String, Track>,
    wanted: BTreeMap<String, BTreeSet<O>>,
    strangers: Strangers,
}

/// Ids that nobody expects, by what may give them away: under each key those that moved last, the latest first.
#[derive(Clone, Debug, Default)]
struct Strangers {
    number: usize,
    by_address: BTreeMap<IpAddr, Vec<String>>,
    /// Those of which no address is known.
    by_name: BTreeMap<String, Vec<String>>,
    /// Whether the two maps tell of now.
    is_indexed: bool,
    /// When they were made, in time that was listened to.
    indexed: Duration,
}

/// Who looks for the id that a pod registers under instead of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search<'a> {
    pub(super) addresses: &'a [IpAddr],
    /// What its component may be called.
    pub(super) names: &'a [String],
    /// Who was silent for so long beats for nobody.
    pub(super) stale_after: Duration,
    /// How long the control plane has been listened to.
    pub(super) listened: Duration,
}

// === impl Ids ===

impl<O: Ord + Clone> Ids<O> {
    pub(super) fn new() -> Self {
        Self {
            tracks: BTreeMap::new(),
            wanted: BTreeMap::new(),
            strangers: Strangers::default(),
        }
    }

    pub(super) fn owners(&self, id: &str) -> impl Iterator<Item = &O> {
        self.wanted.get(id).into_iter().flatten()
    }

    pub(super) fn is_wanted(&self, id: &str) -> bool {
        self.wanted.contains_key(id)
    }

    /// Somebody expects the id from now on.
    pub(super) fn want(&mut self, id: &str, owner: &O) {
        if !self.is_wanted(id) && self.tracks.contains_key(id) {
            self.strangers.number = self.strangers.number.saturating_sub(1);
            self.strangers.is_indexed = false;
        }
        if let Some(track) = self.tracks.get_mut(id) {
            track.was_expected = true;
        }
        self.wanted.entry(id.to_owned()).or_default().insert(owner.clone());
    }

    /// That owner no longer expects it.
    pub(super) fn release(&mut self, id: &str, owner: &O) {
        let Some(owners) = self.wanted.get_mut(id) else { return };
        owners.remove(owner);
        if !owners.is_empty() {
            return;
        }
        self.wanted.remove(id);
        let Some(track) = self.tracks.get(id) else { return };
        let is_there = track.presence == Presence::Registered;
        self.strangers.number += 1;
        self.strangers.is_indexed = false;
        if !is_there || self.strangers.number > STRANGERS {
            self.forget(id);
        }
    }

    /// The track to be filled, if there is room for the id.
    pub(super) fn insert(&mut self, id: String, mut track: Track) {
        track.was_expected = self.is_wanted(&id);
        if !track.was_expected {
            if self.strangers.number >= STRANGERS || id.len() > LONGEST {
                return;
            }
            self.strangers.number += 1;
            self.strangers.is_indexed = false;
        }
        self.tracks.insert(id, track);
    }

    /// Nothing more is known of the id.
    pub(super) fn forget(&mut self, id: &str) {
        if self.tracks.remove(id).is_some() && !self.is_wanted(id) {
            self.strangers.number = self.strangers.number.saturating_sub(1);
            self.strangers.is_indexed = false;
        }
    }

    /// A stranger moved, or is not what it was.
    pub(super) fn stranger_changed(&mut self) {
        self.strangers.is_indexed = false;
    }

    /// Makes strangers findable. Costs a walk over all of them, when one of them changed, and once in a while.
    pub(super) fn index(&mut self, listened: Duration) {
        let strangers = &self.strangers;
        if strangers.is_indexed && listened.saturating_sub(strangers.indexed) < LOOK {
            return;
        }
        let mut strangers = Strangers {
            is_indexed: true,
            indexed: listened,
            ..Strangers::default()
        };
        let mut latest: Vec<(Duration, &String, &Track)> = Vec::new();
        for (id, track) in &self.tracks {
            if self.wanted.contains_key(id) {
                continue;
            }
            strangers.number += 1;
            // One that never moved may be what a pod that is gone left behind, and one that was somebody's is known.
            if track.moves > 0 && track.presence == Presence::Registered && !track.was_expected {
                latest.push((track.silent_since, id, track));
            }
        }
        latest.sort_by_key(|(since, ..)| std::cmp::Reverse(*since));
        for (_, id, track) in latest {
            if let Some(address) = track.address {
                add(strangers.by_address.entry(address).or_default(), id);
                continue;
            }
            for name in [&track.name, &track.component_id] {
                if !name.is_empty() {
                    add(strangers.by_name.entry(name.clone()).or_default(), id);
                }
            }
        }
        self.strangers = strangers;
    }

    /// The stranger that beats at one of the pod's addresses, or else the one with the component's name of which no address
    /// is known; nobody, when it cannot be told which. `is_claimed`: whether another component of that name may be meant.
    pub(super) fn stranger(&self, search: &Search<'_>, is_claimed: impl Fn(&str) -> bool) -> Option<String> {
        let here = || {
            search
                .addresses
                .iter()
                .filter_map(|at| self.strangers.by_address.get(at))
        };
        let here: BTreeSet<&str> = self.beating(search, here().flatten()).collect();
        if !here.is_empty() {
            let is_namesake = |id: &&str| self.tracks.get(*id).is_some_and(|track| search.is_called_as(track));
            let found = only(here.iter().copied()).or_else(|| only(here.iter().copied().filter(is_namesake)));
            return found.map(str::to_owned);
        }
        let names = || {
            search
                .names
                .iter()
                .filter(|name| self.strangers.by_name.contains_key(*name))
        };
        let called = names().filter_map(|name| self.strangers.by_name.get(name));
        let called: BTreeSet<&str> = self.beating(search, called.flatten()).collect();
        let found = only(called.into_iter()).filter(|_| !names().any(|name| is_claimed(name)));
        found.map(str::to_owned)
    }

    fn beating<'a>(
        &'a self,
        search: &Search<'a>,
        ids: impl Iterator<Item = &'a String>,
    ) -> impl Iterator<Item = &'a str> {
        let search = *search;
        ids.filter(move |id| {
            // The maps may be of some seconds ago.
            let track = self.tracks.get(*id).filter(|_| !self.is_wanted(id));
            track.is_some_and(|track| {
                track.presence == Presence::Registered
                    && search.listened.saturating_sub(track.silent_since) < search.stale_after
            })
        })
        // A pod of the same object that is gone, or about to go, under an id that it was told.
        .filter(move |id| search.names.iter().all(|name| !id.starts_with(&format!("{name}."))))
        .map(String::as_str)
    }
}

// === impl Search ===

impl Search<'_> {
    fn is_called_as(&self, track: &Track) -> bool {
        self.names
            .iter()
            .any(|name| [&track.name, &track.component_id].contains(&name))
    }
}

fn add(ids: &mut Vec<String>, id: &str) {
    if ids.len() < NAMESAKES && ids.iter().all(|known| known != id) {
        ids.push(id.to_owned());
    }
}

/// The one there is.
fn only<'a>(mut ids: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let first = ids.next()?;
    ids.next().is_none().then_some(first)
}
