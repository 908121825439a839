//! The apiserver's audit log from a point on: what was asked, by whom and when, by one clock.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
};

use flowctl_testkit::{Error, Result, audit::Event};
use serde::{Deserialize, Serialize};

use super::scene::{Scene, USER};

/// Where in the log something began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(u64);

/// Requests by verb and resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Requests(pub(super) BTreeMap<String, usize>);

/// The end of the log as it is now.
pub(super) fn mark(scene: &Scene) -> Result<Mark> {
    let path = scene.cluster.audit_log_path()?;
    let metadata = std::fs::metadata(path).map_err(Error::file("look at", path))?;
    Ok(Mark(metadata.len()))
}

/// What was logged since.
pub(super) fn since(scene: &Scene, mark: Mark) -> Result<Vec<Event>> {
    let path = scene.cluster.audit_log_path()?;
    let mut file = File::open(path).map_err(Error::file("open", path))?;
    file.seek(SeekFrom::Start(mark.0)).map_err(Error::file("read", path))?;
    let mut events = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(Error::file("read", path))?;
        // A line that is being written is left out.
        events.extend(serde_json::from_str(&line).ok());
    }
    Ok(events)
}

/// Whether it is the operator's, about something in this namespace.
pub(super) fn is_of_operator(event: &Event, place: &str) -> bool {
    event.effective_user() == USER
        && event
            .object_ref
            .as_ref()
            .is_some_and(|object| object.namespace == place)
}

/// The object of ours that a request is about: the part of a name before the first `-`.
pub(super) fn owner(event: &Event) -> &str {
    let name = event
        .object_ref
        .as_ref()
        .map(|object| object.name.as_str())
        .unwrap_or_default();
    name.split('-').next().unwrap_or_default()
}

// === impl Requests ===

impl Requests {
    /// Counts these.
    pub(super) fn of<'a>(events: impl Iterator<Item = &'a Event>) -> Self {
        let mut all = BTreeMap::new();
        for event in events {
            let object = event.object_ref.clone().unwrap_or_default();
            let resource = match object.subresource.as_str() {
                "" => object.resource,
                sub => format!("{}/{sub}", object.resource),
            };
            *all.entry(format!("{} {resource}", event.verb)).or_default() += 1;
        }
        Self(all)
    }

    /// All of them.
    pub(super) fn total(&self) -> usize {
        self.0.values().sum()
    }
}
