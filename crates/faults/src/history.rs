//! What happened in the cluster, from watches of its own that never pass the proxy: which objects are there, and how often
//! each was created and deleted, by uid. What came and went again is seen too.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use flowctl_testkit::{Result, wait};
use futures::StreamExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    api::DynamicObject,
    core::{ApiResource, GroupVersionKind},
    runtime::watcher::{self, Event, watcher},
};
use serde_json::Value;
use tokio::task::JoinSet;

/// The kinds that are watched: group, version, kind.
const KINDS: [(&str, &str, &str); 10] = [
    ("flowctl.dev", "v1alpha1", "ExternalProcessor"),
    ("flowctl.dev", "v1alpha1", "Pipeline"),
    ("", "v1", "ConfigMap"),
    ("", "v1", "Service"),
    ("", "v1", "Pod"),
    ("apps", "v1", "ControllerRevision"),
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "ReplicaSet"),
    ("batch", "v1", "Job"),
    ("policy", "v1", "PodDisruptionBudget"),
];

/// Objects that every namespace has.
const EVERYWHERE: [&str; 1] = ["kube-root-ca.crt"];

/// Follows everything that the operator may have made.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    _watches: JoinSet<()>,
}

struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    listed: BTreeSet<&'static str>,
    places: HashMap<String, Record>,
}

/// What happened in one namespace.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// What is there, by kind and name.
    pub live: BTreeMap<(String, String), Value>,
    /// Everything that ever was: kind, name and uid.
    pub created: BTreeSet<(String, String, String)>,
    /// What of that is gone.
    pub deleted: BTreeSet<(String, String, String)>,
    /// How many events there were: without another one, nothing else is different.
    pub events: u64,
    /// The pod templates that each Deployment ever had.
    pub templates: BTreeSet<(String, String)>,
}

// === impl Recorder ===

impl Recorder {
    /// Begins to watch; everything that happens after it returns is seen.
    ///
    /// # Errors
    ///
    /// When the watches do not begin.
    pub async fn start(client: &Client) -> Result<Self> {
        let shared = Arc::new(Shared(Mutex::default()));
        let mut watches = JoinSet::new();
        for (group, version, kind) in KINDS {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            watches.spawn(follow(api, kind, Arc::clone(&shared)));
        }
        wait::until(
            "the recorder has listed every kind",
            std::time::Duration::from_secs(60),
            async || Ok((shared.state().listed.len() == KINDS.len()).then_some(())),
        )
        .await?;
        Ok(Self {
            shared,
            _watches: watches,
        })
    }

    /// What happened in a namespace so far.
    pub fn record(&self, namespace: &str) -> Record {
        self.shared.state().places.get(namespace).cloned().unwrap_or_default()
    }

    /// How many events there were in a namespace.
    pub(crate) fn events(&self, namespace: &str) -> u64 {
        self.shared
            .state()
            .places
            .get(namespace)
            .map_or(0, |record| record.events)
    }

    /// Forgets a namespace in which nothing more is asked.
    pub fn forget(&self, namespace: &str) {
        self.shared.state().places.remove(namespace);
    }
}

async fn follow(api: Api<DynamicObject>, kind: &'static str, shared: Arc<Shared>) {
    let mut events = watcher(api, watcher::Config::default()).boxed();
    while let Some(event) = events.next().await {
        let mut state = shared.state();
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => state.seen(kind, &object),
            Ok(Event::Delete(object)) => state.gone(kind, &object),
            Ok(Event::InitDone) => drop(state.listed.insert(kind)),
            // It begins again by itself.
            Ok(Event::Init) | Err(_) => {}
        }
    }
}

// === impl Shared ===

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

// === impl State ===

impl State {
    fn place(&mut self, object: &DynamicObject) -> Option<&mut Record> {
        let ours = !EVERYWHERE.contains(&object.name_any().as_str());
        let namespace = object.namespace().filter(|_| ours)?;
        Some(self.places.entry(namespace).or_default())
    }

    fn seen(&mut self, kind: &str, object: &DynamicObject) {
        let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
        let Some(record) = self.place(object) else { return };
        record.events += 1;
        record.created.insert((kind.to_owned(), name.clone(), uid));
        // An object without a JSON form did not come from an apiserver.
        let value = serde_json::to_value(object).unwrap_or_default();
        if kind == "Deployment" {
            let template = value.pointer("/spec/template").cloned().unwrap_or_default();
            record.templates.insert((name.clone(), template.to_string()));
        }
        record.live.insert((kind.to_owned(), name), value);
    }

    fn gone(&mut self, kind: &str, object: &DynamicObject) {
        let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
        let Some(record) = self.place(object) else { return };
        record.events += 1;
        let key = (kind.to_owned(), name.clone());
        let same = record
            .live
            .get(&key)
            .and_then(|live| live.pointer("/metadata/uid")?.as_str());
        if same == Some(uid.as_str()) {
            record.live.remove(&key);
        }
        record.deleted.insert((kind.to_owned(), name, uid));
    }
}
