//! The ids that are known of one control plane: those that somebody expects, and strangers, which are kept only to find out who
//! registers under another id than its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{LONGEST, STRANGERS, track::Track};

/// The tracks.
#[derive(Clone, Debug)]
pub(super) struct Ids<O> {
    pub(super) tracks: BTreeMap<String, Track>,
    wanted: BTreeMap<String, BTreeSet<O>>,
    strangers: Strangers,
}

/// Ids that nobody expects, by what may give them away.
#[derive(Clone, Debug, Default)]
struct Strangers {
    number: usize,
    by_address: BTreeMap<IpAddr, String>,
    by_name: BTreeMap<String, String>,
    /// Whether the two maps tell of now.
    is_indexed: bool,
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
        if self.tracks.contains_key(id) {
            self.strangers.number += 1;
            self.strangers.is_indexed = false;
        }
        if self.strangers.number > STRANGERS {
            self.forget(id);
        }
    }

    /// The track to be filled, if there is room for the id.
    pub(super) fn insert(&mut self, id: String, track: Track) {
        if !self.is_wanted(&id) {
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

    /// Makes strangers findable. Costs a walk over all of them, when one of them changed.
    pub(super) fn index(&mut self) {
        if self.strangers.is_indexed {
            return;
        }
        let mut strangers = Strangers {
            number: 0,
            is_indexed: true,
            ..Strangers::default()
        };
        for (id, track) in &self.tracks {
            if self.wanted.contains_key(id) {
                continue;
            }
            strangers.number += 1;
            // One that never moved may be what a pod that is gone left behind.
            if track.moves == 0 {
                continue;
            }
            strangers
                .by_address
                .extend(track.address.map(|address| (address, id.clone())));
            for name in [&track.name, &track.component_id] {
                if !name.is_empty() {
                    strangers.by_name.insert(name.clone(), id.clone());
                }
            }
        }
        self.strangers = strangers;
    }

    /// A stranger at one of the pod's addresses, or else one with the component's name that is not known to be elsewhere.
    pub(super) fn stranger(&self, addresses: &[IpAddr], siblings: &BTreeSet<IpAddr>, names: &[String]) -> Option<&str> {
        // The maps may be of a second ago.
        let is_stranger = |id: &&String| self.tracks.contains_key(id.as_str()) && !self.is_wanted(id);
        let mut here = addresses
            .iter()
            .filter_map(|address| self.strangers.by_address.get(address))
            .filter(is_stranger);
        let mut namesakes = names
            .iter()
            .filter_map(|name| self.strangers.by_name.get(name))
            .filter(is_stranger)
            // A pod of the same object that is gone, or about to go, under an id that it was told.
            .filter(|id| names.iter().all(|name| !id.starts_with(&format!("{name}."))))
            .filter(|id| {
                let address = self.tracks.get(id.as_str()).and_then(|track| track.address);
                address.is_none_or(|address| siblings.contains(&address))
            });
        here.next().or_else(|| namesakes.next()).map(String::as_str)
    }
}
