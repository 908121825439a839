//! The registry: which services there are, whether they give signs of life, and what they say. Around the pure tables stand
//! here the clock, the locks, the store and the feed of changes; no protocol. Both dialects and our own service see this one.
//! It is long because it is the whole interface for services, with its errors.

mod endpoint;
mod error;
mod feed;
mod history;
mod kept;
mod metrics;
mod model;
mod records;
mod roll;
mod runs;
mod table;
#[cfg(test)]
mod tests;
mod time;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

pub use error::RegistryError;
pub use feed::{Change, Lost, RemovalReason, Subject, Subscription};
pub(crate) use kept::KeptLife;
pub use model::{
    Beat, Beaten, Brief, Caller, History, Identity, Liveness, Metric, Origin, Pipeline, Registration, Service, Sign,
    Value,
};
pub use roll::{Moment, RollCall};
pub(crate) use runs::RunNumber;

use crate::clock::{Clock, SystemClock};
use crate::limits::Limits;
use crate::store::{Contents, Room, Storage, Store, StoreError, Write};
use feed::Feed;
use history::Budget;
use runs::Runs;
use table::{Rules, Table};
use time::{At, millis};

/// The time between two points of a history.
pub const HISTORY_RESOLUTION: Duration = history::RESOLUTION;
/// How often the lives of services are written to disk. What a crash loses of them is made good by the TTL of grace.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// The longest time between two looks for silent services: an expiry is told at most so late.
const TICK_AT_MOST: Duration = Duration::from_millis(500);
/// A power of two. More would make a list slower, fewer would let it hold up more beats.
const TABLES: usize = 16;

/// How a registry works.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a service may be silent.
    pub ttl: Duration,
    /// How long an expired service is kept.
    pub retention: Duration,
    /// What a beat of an unknown id does.
    pub unknown: UnknownIds,
    /// Where it is kept.
    pub storage: Storage,
    /// What it takes.
    pub limits: Limits,
}

/// What a beat of an unknown id does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownIds {
    /// It is refused with NOT_FOUND: the client is to register.
    #[default]
    Refuse,
    /// It makes a service of which only the id is known: for clients that never register again.
    Adopt,
}

/// Which services are asked for; every condition that is given must hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Only ids that begin so.
    pub id_prefix: &'a str,
    /// Only ids after this one, in the order of bytes.
    pub after: Option<&'a str>,
}

/// Which services there are. One for each server, behind an [`Arc`]; every method takes `&self` and may be called from any
/// thread. Methods that are not `async` never wait for the disk.
#[derive(Debug)]
pub struct Registry {
    tables: Box<[Mutex<Table>]>,
    places: RandomState,
    /// Services in all tables.
    services: AtomicUsize,
    runs: Mutex<Runs>,
    alerts: Mutex<BTreeMap<String, Vec<u8>>>,
    feed: Feed,
    roll: Mutex<Option<Arc<RollCall>>>,
    store: Store,
    budget: Arc<Budget>,
    rules: Rules,
    unknown: UnknownIds,
    is_persistent: bool,
    clock: Arc<dyn Clock>,
    opened: Instant,
    instance_id: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
            retention: Duration::from_secs(24 * 60 * 60),
            unknown: UnknownIds::default(),
            storage: Storage::Memory,
            limits: Limits::default(),
        }
    }
}

// === impl Registry ===

impl Registry {
    /// Opens a registry and what its store has: services that were not expired get one TTL of grace.
    ///
    /// # Errors
    ///
    /// When the file is locked, damaged, foreign, of a later version, or cannot be used; the error says what to do.
    pub fn open(options: Options) -> Result<Arc<Self>, StoreError> {
        Self::open_with(options, Arc::new(SystemClock))
    }

    /// As [`Registry::open`], with another clock.
    ///
    /// # Errors
    ///
    /// As [`Registry::open`].
    pub fn open_with(options: Options, clock: Arc<dyn Clock>) -> Result<Arc<Self>, StoreError> {
        let (store, contents) = Store::open(&options.storage)?;
        Self::on(store, contents, options, clock)
    }

    fn on(store: Store, contents: Contents, options: Options, clock: Arc<dyn Clock>) -> Result<Arc<Self>, StoreError> {
        let registry = Self {
            tables: (0..TABLES).map(|_| Mutex::default()).collect(),
            places: RandomState::new(),
            services: AtomicUsize::new(contents.services.len()),
            runs: Mutex::default(),
            alerts: Mutex::new(contents.alerts.into_iter().collect()),
            // Room for everything at once, and for as much again that is gone.
            feed: Feed::new(
                options
                    .limits
                    .services
                    .saturating_add(options.limits.runs)
                    .saturating_mul(2),
            ),
            roll: Mutex::default(),
            store,
            budget: Budget::new(options.limits.history_bytes),
            rules: Rules {
                ttl: options.ttl,
                retention: options.retention,
                limits: options.limits,
            },
            unknown: options.unknown,
            is_persistent: options.storage != Storage::Memory,
            opened: clock.now().steady,
            clock,
            instance_id: format!("{:032x}", fastrand::u128(..)),
        };
        let now = registry.now();
        for (id, kept, life) in contents.services {
            let restored = registry.table(&id).restore(&id, kept, life, now);
            restored.map_err(|why| StoreError::corrupt(&options.storage, format!("service {id}: {why}")))?;
        }
        for (number, run) in contents.runs {
            lock(&registry.runs).restore(number, run);
        }
        Ok(Arc::new(registry))
    }

    /// Of this process: another one than before means that the registry was restarted or reset.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        &self.instance_id
    }

    /// How long a service may be silent.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.rules.ttl
    }

    /// Whether it outlives the process.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.is_persistent
    }

    /// What it takes at most.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.rules.limits
    }

    // === services ===

    /// Registers a service, or registers it again: metrics, reported status and times start anew. Returns the id to use. It is
    /// on disk when this returns; if the future is dropped, it is registered all the same.
    ///
    /// # Errors
    ///
    /// A bound is exceeded, the registry is full, a newer pod has the id, or the disk refuses.
    pub async fn register(&self, registration: Registration, caller: Caller<'_>) -> Result<String, RegistryError> {
        let registration = self.completed(registration)?;
        let id = registration.service_id.clone();
        let room = self.store.room(self.rules.limits.registration_bytes).await;
        let written = {
            let mut table = self.table(&id);
            let kept = self.register_in(&mut table, &registration, caller)?;
            self.feed.publish([Change::service(&id)]);
            self.store.write(vec![Write::PutService { id: id.clone(), kept }], room)
        };
        written.wait().await?;
        Ok(id)
    }

    /// Fills in what may be left out, and checks bounds.
    fn completed(&self, mut registration: Registration) -> Result<Registration, RegistryError> {
        if registration.service_id.is_empty() {
            registration.service_id = match registration.component_id.as_str() {
                "" => self.new_service_id(&registration),
                component_id => component_id.to_owned(),
            };
        }
        if registration.component_id.is_empty() {
            registration.component_id.clone_from(&registration.service_id);
        }
        registration.check(&self.rules.limits)?;
        Ok(registration)
    }

    fn register_in(
        &self,
        table: &mut Table,
        registration: &Registration,
        caller: Caller<'_>,
    ) -> Result<Vec<u8>, RegistryError> {
        let is_new = !table.contains(&registration.service_id);
        if is_new {
            self.admit()?;
        }
        let registered = table.register(registration, caller, self.now(), self.rules.ttl);
        if is_new && registered.is_err() {
            self.services.fetch_sub(1, Ordering::Relaxed);
        }
        registered
    }

    fn admit(&self) -> Result<(), RegistryError> {
        let limit = self.rules.limits.services;
        let one_more = |count: usize| (count < limit).then_some(count + 1);
        let admitted = self
            .services
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        admitted.map(drop).map_err(|_| RegistryError::Full {
            what: "services",
            limit,
        })
    }

    fn new_service_id(&self, registration: &Registration) -> String {
        loop {
            let id = format!("{}-{:016x}", registration.type_name(), fastrand::u64(..));
            if !self.table(&id).contains(&id) {
                return id;
            }
        }
    }

    /// A sign of life. It ends expiry.
    ///
    /// # Errors
    ///
    /// The id is unknown (unless such ids are adopted), or the verified caller is not the pod that registered last. A refused beat
    /// changes nothing. Metrics that exceed a bound are left out of a beat that counts.
    pub fn heartbeat(&self, beat: &Beat<'_>, caller: Caller<'_>) -> Result<Beaten, RegistryError> {
        let id = beat.service_id;
        let now = self.now();
        let mut table = self.table(id);
        let mut pulse = table.beat(beat, caller.identity, now, &self.rules, &self.budget);
        let mut writes = Vec::new();
        if let (UnknownIds::Adopt, Err(RegistryError::UnknownService(_))) = (self.unknown, &pulse) {
            if id.is_empty() {
                return Err(RegistryError::Missing("service_id"));
            }
            let stub = Registration {
                origin: Origin::Adopted,
                ..Registration::of(id)
            };
            let stub = self.completed(stub)?;
            let kept = self.register_in(&mut table, &stub, caller)?;
            writes.push(Write::PutService {
                id: id.to_owned(),
                kept,
            });
            pulse = table.beat(beat, caller.identity, now, &self.rules, &self.budget);
        }
        // A stub whose first beat is refused stays: it is a service that beats wrongly, and better seen than not.
        let changed = !writes.is_empty() || pulse.as_ref().is_ok_and(|pulse| pulse.is_change);
        if let Ok(Some(life)) = pulse.as_ref().map(|pulse| pulse.revived) {
            writes.push(Write::Lives(vec![(id.to_owned(), life)]));
        }
        if changed {
            self.feed.publish([Change::service(id)]);
        }
        if !writes.is_empty() {
            // Nobody waits: a beat is not worth a disk's delay, and the next one repeats it.
            drop(self.store.write(writes, Room::default()));
        }
        pulse.map(|pulse| pulse.beaten)
    }

    /// Removes a service at once. `false` if it was not registered, which is no error.
    ///
    /// # Errors
    ///
    /// A newer pod has the id, or the disk refuses.
    pub async fn unregister(&self, service_id: &str, caller: Caller<'_>) -> Result<bool, RegistryError> {
        let room = self.store.room(self.rules.limits.id_bytes).await;
        let written = {
            let mut table = self.table(service_id);
            if !table.unregister(service_id, caller.identity, self.now(), self.rules.ttl)? {
                return Ok(false);
            }
            self.services.fetch_sub(1, Ordering::Relaxed);
            self.feed
                .publish([Change::removed(service_id, RemovalReason::Unregistered)]);
            self.store
                .write(vec![Write::RemoveServices(vec![service_id.to_owned()])], room)
        };
        written.wait().await?;
        Ok(true)
    }

    /// One service.
    ///
    /// # Errors
    ///
    /// The id is unknown.
    pub fn get(&self, service_id: &str) -> Result<Service, RegistryError> {
        let found = self.table(service_id).get(service_id, self.now(), self.rules.ttl);
        found.ok_or_else(|| RegistryError::UnknownService(service_id.to_owned()))
    }

    /// How many services there are, expired ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.services.load(Ordering::Relaxed)
    }

    /// Whether there is no service.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every service, sorted by id. Beside a large registry, [`Registry::ids`] with [`Registry::get`] takes less memory.
    #[must_use]
    pub fn list(&self) -> Vec<Service> {
        let (now, ttl) = (self.now(), self.rules.ttl);
        let mut all: Vec<_> = self.each_table(|table| table.services(now, ttl).collect());
        all.sort_unstable_by(|one, other| one.registration.service_id.cmp(&other.registration.service_id));
        all
    }

    /// The ids of services, sorted.
    #[must_use]
    pub fn ids(&self, filter: Filter<'_>) -> Vec<String> {
        let wanted = |id: &&str| id.starts_with(filter.id_prefix) && filter.after.is_none_or(|after| *id > after);
        let mut ids: Vec<String> = self.each_table(|table| table.ids().filter(wanted).map(str::to_owned).collect());
        ids.sort_unstable();
        ids
    }

    /// What counting services needs, in no order.
    #[must_use]
    pub fn briefs(&self) -> Vec<Brief> {
        let (now, ttl) = (self.now(), self.rules.ttl);
        self.each_table(|table| table.briefs(now, ttl).collect())
    }

    /// Now, as roll calls have it.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment(self.now().steady)
    }

    /// Who has beaten when, at most half a second ago. At 100,000 services it takes some milliseconds, in which beats go on.
    #[must_use]
    pub fn roll_call(&self) -> Arc<RollCall> {
        // Held during the look: those who come meanwhile get the same one.
        let mut last = lock(&self.roll);
        let at = self.moment();
        if let Some(last) = &*last
            && at.0.saturating_sub(last.at.0) < millis(roll::GOOD_FOR)
        {
            return Arc::clone(last);
        }
        let of_table = |table: &Table| table.beaten().map(|(id, since)| (id.into(), Moment(since))).collect();
        let mut beaten = self.each_table(of_table);
        beaten.sort_unstable();
        let call = Arc::new(RollCall { at, beaten });
        *last = Some(Arc::clone(&call));
        call
    }

    /// The last beat of a service, with at most 64 numbers of `wanted` names; `None` if it is unknown or has not beaten.
    #[must_use]
    pub fn sign(&self, service_id: &str, wanted: impl Fn(&str) -> bool) -> Option<Sign> {
        self.table(service_id).sign(service_id, wanted)
    }

    /// What a service's numbers were, at most `back` ago; `keys` empty: all of them.
    ///
    /// # Errors
    ///
    /// The id is unknown.
    pub fn history(&self, service_id: &str, back: Duration, keys: &[String]) -> Result<History, RegistryError> {
        let wanted = |key: &str| keys.is_empty() || keys.iter().any(|wanted| wanted == key);
        let found = self.table(service_id).history(service_id, back, self.now(), wanted);
        found.ok_or_else(|| RegistryError::UnknownService(service_id.to_owned()))
    }

    /// Everything that changes from now on.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.feed.subscribe()
    }

    // === time, and the end ===

    /// Keeps the registry true while time passes: looks for silent services each `every` (at most 500 ms), and writes lives to
    /// disk. Runs until it is dropped.
    pub async fn maintain(&self, every: Duration) {
        // Side by side: a disk that hangs must not hide who is silent.
        futures::future::join(self.look_for_silence(every), self.save_often()).await;
    }

    async fn look_for_silence(&self, every: Duration) {
        let mut ticks = tokio::time::interval(every.min(TICK_AT_MOST));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for place in 0..self.tables.len() {
                self.tick_table(place);
                // One table takes well under a millisecond; beats go on in between.
                tokio::task::yield_now().await;
            }
        }
    }

    async fn save_often(&self) {
        loop {
            tokio::time::sleep(SAVE_EVERY).await;
            if let Err(error) = self.save().await {
                tracing::error!(%error, "cannot keep signs of life");
            }
        }
    }

    /// One look for silent services, at all tables.
    pub fn tick(&self) {
        for place in 0..self.tables.len() {
            self.tick_table(place);
        }
    }

    fn tick_table(&self, place: usize) {
        let Some(table) = self.tables.get(place) else {
            return;
        };
        let mut table = lock(table);
        let changes = table.tick(self.now(), &self.rules);
        let removed = changes.iter().filter(|change| change.removal.is_some());
        let removed: Vec<String> = removed.map(|change| change.subject.id().to_owned()).collect();
        self.services.fetch_sub(removed.len(), Ordering::Relaxed);
        self.feed.publish(changes);
        if !removed.is_empty() {
            drop(self.store.write(vec![Write::RemoveServices(removed)], Room::default()));
        }
    }

    /// Writes the lives that changed since the last call to disk.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub async fn save(&self) -> Result<(), StoreError> {
        for table in &self.tables {
            let (ids, written) = {
                let mut table = lock(table);
                let lives = table.take_unsaved();
                if lives.is_empty() {
                    continue;
                }
                let ids: Vec<String> = lives.iter().map(|(id, _)| id.clone()).collect();
                // Under the lock: a life must not reach the disk after the removal of its service.
                (ids, self.store.write(vec![Write::Lives(lives)], Room::default()))
            };
            if let Err(error) = written.wait().await {
                lock(table).mark_unsaved(&ids);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes what is not written yet and releases the file. Later changes are refused.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub async fn close(&self) -> Result<(), StoreError> {
        // What is silent by now must not come back with a TTL of grace.
        self.tick();
        let saved = self.save().await;
        self.store.close().await.and(saved)
    }

    /// Why the disk takes no writes at present.
    #[must_use]
    pub fn store_failure(&self) -> Option<StoreError> {
        self.store.failure()
    }

    fn now(&self) -> At {
        At::of(self.clock.now(), self.opened)
    }

    fn table(&self, id: &str) -> MutexGuard<'_, Table> {
        let place = usize::try_from(self.places.hash_one(id)).unwrap_or(0) & (TABLES - 1);
        lock(&self.tables[place])
    }

    fn each_table<T>(&self, read: impl Fn(&Table) -> Vec<T>) -> Vec<T> {
        self.tables.iter().flat_map(|table| read(&lock(table))).collect()
    }
}

/// A thread that panicked in a table has refused a call, no more: nothing is changed before everything is checked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
