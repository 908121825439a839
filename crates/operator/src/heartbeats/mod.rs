//! What control planes say about components: read here, judged in `plan::heartbeat`. There is one task for each control
//! plane that any object names, opened by the pass that names it first and closed when nobody names it any more (the
//! administrator's is read from when passes begin); and
//! because only a leader makes passes, only a leader reads. It wakes objects whose evidence turned, and writes nothing
//! to any object.

mod address;
mod announce;
mod connect;
mod measure;
mod plane;
mod read;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod translate;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use flowctl_plan::{
    Settings,
    heartbeat::{Asked, Heartbeats},
};
use flowctl_runtime::Metrics as Registry;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::announce::{Announcer, lease};
use self::{address::Address, measure::Calls, plane::Plane, read::Means};
pub use self::{connect::ClientFiles, translate::Keys};
use crate::{queue::Queue, subject::Subject};

/// Control planes that are read at a time; more wait until one is not named any more, and are told as unreachable.
const MOST_PLANES: usize = 64;

/// How heartbeats are read.
#[derive(Clone, Debug, Default)]
pub struct HeartbeatOptions {
    /// What is shown to control planes that ask for a certificate.
    pub files: ClientFiles,
    /// Which measurements of components are shown in `/metrics`.
    pub keys: Keys,
    /// The operator's own object, which gets an Event when a control plane is lost.
    pub own: Option<ObjectReference>,
}

/// Every control plane that is read, shared by clones.
#[derive(Clone, Debug)]
pub(crate) struct Hub(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    begun: Instant,
    queue: Queue<Subject>,
    default: Option<Address>,
    keys: Arc<Keys>,
    means: Arc<Means>,
    planes: Mutex<Planes>,
}

#[derive(Debug, Default)]
struct Planes {
    open: HashMap<Address, Open>,
    of: HashMap<Subject, Address>,
}

#[derive(Debug)]
struct Open {
    plane: Arc<Plane>,
    /// How many objects name it.
    owners: usize,
    _reader: AbortOnDropHandle<()>,
}

// === impl Hub ===

impl Hub {
    /// Reads nothing yet; what turns wakes this queue.
    pub(crate) fn new(options: &HeartbeatOptions, settings: &Settings, queue: Queue<Subject>) -> Self {
        let means = Means {
            files: options.files.clone(),
            places: Semaphore::new(MOST_PLANES),
            most: MOST_PLANES,
            calls: Calls::default(),
        };
        Self(Arc::new(Shared {
            begun: Instant::now(),
            queue,
            default: settings.control_plane.as_ref().map(Address::of),
            keys: Arc::new(options.keys.clone()),
            means: Arc::new(means),
            planes: Mutex::default(),
        }))
    }

    /// Reads the administrator's control plane from now on, whether or not an object names it, and gives it a moment to
    /// answer: what it asks of its callers is part of the first revision that is made for it, and of no later one.
    pub(crate) async fn begin(&self) {
        let Some(address) = self.0.default.clone() else {
            return;
        };
        let plane = {
            let mut planes = self.lock();
            let open = planes
                .open
                .entry(address)
                .or_insert_with_key(|address| self.open(address));
            open.owners += 1;
            Arc::clone(&open.plane)
        };
        plane.first_answer().await;
    }

    /// Gives the control plane of this object a moment to answer if it was opened just now: what it asks of its callers is
    /// part of the first revision. Tells whether that took time, in which everything else may have turned.
    pub(crate) async fn first_answer(&self, subject: &Subject) -> bool {
        let plane = {
            let planes = self.lock();
            let open = planes.of.get(subject).and_then(|address| planes.open.get(address));
            open.map(|open| Arc::clone(&open.plane))
        };
        match plane {
            Some(plane) => plane.first_answer().await,
            None => false,
        }
    }

    /// Shows in `/metrics` what is read.
    pub(crate) fn register(&self, registry: &Registry) {
        measure::register(registry, self.clone(), &self.0.means.calls);
    }

    /// What is known about the components of an object that asks this. It is woken when that turns, for as long as it is
    /// not forgotten.
    pub(crate) fn look(&self, subject: &Subject, asked: Option<Asked>) -> Heartbeats {
        let Some(Asked { plane, expectation }) = asked else {
            self.forget(subject);
            return Heartbeats::NotRead;
        };
        let address = Address::of(&plane);
        let open = self.named_by(subject, address);
        Heartbeats::Read {
            plane: plane.endpoint,
            evidence: open.look(subject, expectation),
        }
    }

    /// The object is gone, or names no control plane.
    pub(crate) fn forget(&self, subject: &Subject) {
        self.lock().leave(subject);
    }

    /// One of the objects that name this control plane, always the same of the same ones.
    fn namer(&self, address: &Address) -> Option<Subject> {
        let planes = self.lock();
        let all = planes.of.iter().filter(|(_, named)| *named == address);
        all.map(|(subject, _)| subject).min_by_key(ToString::to_string).cloned()
    }

    /// Every control plane that is read.
    fn planes(&self) -> Vec<Arc<Plane>> {
        self.lock().open.values().map(|open| Arc::clone(&open.plane)).collect()
    }

    fn named_by(&self, subject: &Subject, address: Address) -> Arc<Plane> {
        let mut planes = self.lock();
        if planes.of.get(subject) != Some(&address) {
            planes.leave(subject);
            planes.of.insert(subject.clone(), address.clone());
            let open = planes
                .open
                .entry(address)
                .or_insert_with_key(|address| self.open(address));
            open.owners += 1;
            return Arc::clone(&open.plane);
        }
        let open = planes
            .open
            .entry(address)
            .or_insert_with_key(|address| self.open(address));
        Arc::clone(&open.plane)
    }

    fn open(&self, address: &Address) -> Open {
        let shared = &self.0;
        let is_default = shared.default.as_ref() == Some(address);
        let (keys, queue) = (Arc::clone(&shared.keys), shared.queue.clone());
        let plane = Arc::new(Plane::new(address.clone(), is_default, keys, shared.begun, queue));
        let reader = read::read(Arc::clone(&plane), Arc::clone(&shared.means));
        Open {
            plane,
            owners: 0,
            _reader: AbortOnDropHandle::new(tokio::spawn(reader)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Planes> {
        self.0.planes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Planes ===

impl Planes {
    /// The object names its control plane no longer; the last one closes the connection.
    fn leave(&mut self, subject: &Subject) {
        let Some(address) = self.of.remove(subject) else {
            return;
        };
        let Some(open) = self.open.get_mut(&address) else {
            return;
        };
        open.plane.forget(subject);
        open.owners -= 1;
        if open.owners == 0 {
            self.open.remove(&address);
        }
    }
}
