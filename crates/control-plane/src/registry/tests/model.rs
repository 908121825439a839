//! The registry against a model of it that fits on a page, over random events: late and repeated beats, a wall clock that
//! jumps, restarts with and without warning.

use std::collections::BTreeMap;
use std::time::SystemTime;

use futures::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::registry::time::to_millis;

const IDS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Event {
    Register(usize),
    Beat(usize, HealthStatus, Option<u8>),
    Unregister(usize),
    Pass(u64),
    SetWall(i64),
    Tick,
    Save,
    Stop,
    Kill,
}

/// What is written of a life.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Saved {
    beat: Option<i64>,
    reported: HealthStatus,
    expired: bool,
}

#[derive(Clone, Debug)]
struct Expected {
    since: u64,
    silent_before: u64,
    alive_as: Liveness,
    life: Saved,
    saved: Saved,
    registered_wall: i64,
    metric: Option<u8>,
}

/// The reference.
#[derive(Default)]
struct Model {
    services: BTreeMap<&'static str, Expected>,
    steady: u64,
    wall: i64,
}

impl Model {
    fn apply(&mut self, event: &Event) {
        let (now, wall, ttl) = (self.steady, self.wall, millis(TTL));
        let expired = move |service: &Expected| service.life.expired || now - service.since > ttl;
        let fresh = Saved::default();
        match *event {
            Event::Register(id) => {
                let (since, alive_as) = (now, Liveness::Registered);
                let service = Expected {
                    since,
                    alive_as,
                    life: fresh,
                    saved: fresh,
                    silent_before: 0,
                    registered_wall: wall,
                    metric: None,
                };
                self.services.insert(IDS[id], service);
            }
            Event::Beat(id, said, metric) => {
                if let Some(service) = self.services.get_mut(IDS[id]) {
                    let reported = if said == HealthStatus::Unknown {
                        service.life.reported
                    } else {
                        said
                    };
                    let life = Saved {
                        beat: Some(wall),
                        reported,
                        expired: false,
                    };
                    let saved = if expired(service) { life } else { service.saved };
                    let metric = metric.or(service.metric);
                    *service = Expected {
                        since: now,
                        silent_before: 0,
                        alive_as: Liveness::Live,
                        life,
                        saved,
                        metric,
                        ..*service
                    };
                }
            }
            Event::Unregister(id) => drop(self.services.remove(IDS[id])),
            Event::Pass(millis) => (self.steady, self.wall) = (now + millis, wall + millis as i64),
            Event::SetWall(wall) => self.wall = wall,
            Event::Tick => {
                let silent = |service: &Expected| now - service.since + 1000 * service.silent_before;
                self.services
                    .retain(|_, service| !expired(service) || silent(service) <= millis(RETENTION));
                self.services
                    .values_mut()
                    .for_each(|service| service.life.expired = expired(service));
            }
            Event::Save => self
                .services
                .values_mut()
                .for_each(|service| service.saved = service.life),
            Event::Stop => [Event::Tick, Event::Save, Event::Kill]
                .iter()
                .for_each(|event| self.apply(event)),
            Event::Kill => self.services.values_mut().for_each(|service| {
                let silent_before = (wall - service.saved.beat.unwrap_or(service.registered_wall)).max(0) as u64 / 1000;
                let (life, alive_as) = (service.saved, Liveness::Restored);
                *service = Expected {
                    since: now,
                    silent_before,
                    alive_as,
                    life,
                    metric: None,
                    ..*service
                };
            }),
        }
    }

    fn liveness(&self, service: &Expected) -> Liveness {
        let is_expired = service.life.expired || self.steady - service.since > millis(TTL);
        if is_expired {
            Liveness::Expired
        } else {
            service.alive_as
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let id = 0..IDS.len();
    let status = prop_oneof![
        3 => Just(HealthStatus::Unknown),
        1 => Just(HealthStatus::Healthy),
        1 => Just(HealthStatus::Degraded),
        1 => Just(HealthStatus::Stopping),
    ];
    // Around the borders of the TTL and of the retention, and far beyond.
    let pass = prop_oneof![
        4 => 1..20_000_u64,
        2 => Just(millis(TTL)),
        1 => Just(millis(TTL) + 1),
        1 => Just(millis(RETENTION)),
        1 => 500_000..2_000_000_u64,
    ];
    let wall = prop_oneof![
        Just(0_i64),
        Just(-86_400_000),
        Just(4_000_000_000_000),
        1_700_000_000_000..1_800_000_000_000_i64
    ];
    prop_oneof![
        3 => id.clone().prop_map(Event::Register),
        8 => (id.clone(), status, prop::option::of(any::<u8>())).prop_map(|(id, said, metric)| Event::Beat(id, said, metric)),
        1 => id.prop_map(Event::Unregister),
        5 => pass.prop_map(Event::Pass),
        1 => wall.prop_map(Event::SetWall),
        3 => Just(Event::Tick),
        1 => Just(Event::Save),
        1 => Just(Event::Stop),
        1 => Just(Event::Kill),
    ]
}

/// The registry under test, and a watcher that knows only what it is told.
struct Subject {
    registry: Arc<Registry>,
    clock: Arc<ManualClock>,
    subscription: Subscription,
    watched: BTreeMap<String, (Liveness, HealthStatus)>,
    storage: Storage,
}

impl Subject {
    fn open(storage: Storage, clock: Arc<ManualClock>) -> Self {
        let registry = Registry::open_with(options(storage.clone()), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let mut subject = Self {
            subscription: registry.subscribe(),
            registry,
            clock,
            watched: BTreeMap::new(),
            storage,
        };
        subject.look(&IDS);
        subject
    }

    fn look(&mut self, ids: &[&str]) {
        for id in ids {
            match self.registry.get(id) {
                Ok(service) => self
                    .watched
                    .insert((*id).to_owned(), (service.liveness, service.reported)),
                Err(_) => self.watched.remove(*id),
            };
        }
    }

    async fn apply(&mut self, event: &Event) {
        let nobody = Caller::default();
        match *event {
            Event::Register(id) => drop(register(&self.registry, IDS[id]).await),
            Event::Beat(id, status, metric) => {
                let metrics: Vec<_> = metric
                    .map(|number| ("key", Value::Number(number.into())))
                    .into_iter()
                    .collect();
                let known = self.registry.get(IDS[id]).is_ok();
                let beat = Beat {
                    status,
                    ..beat(IDS[id], &metrics)
                };
                assert_eq!(self.registry.heartbeat(&beat, nobody).is_ok(), known);
            }
            Event::Unregister(id) => {
                let known = self.registry.get(IDS[id]).is_ok();
                assert_eq!(self.registry.unregister(IDS[id], nobody).await.unwrap(), known);
            }
            Event::Pass(millis) => self.clock.advance(Duration::from_millis(millis)),
            Event::SetWall(wall) => self.clock.set_wall(super::super::time::from_millis(wall)),
            Event::Tick => self.registry.tick(),
            Event::Save => self.registry.save().await.unwrap(),
            Event::Stop => {
                self.registry.close().await.unwrap();
                *self = Self::open(self.storage.clone(), Arc::clone(&self.clock));
            }
            Event::Kill => {
                self.registry.store.close().await.unwrap();
                *self = Self::open(self.storage.clone(), Arc::clone(&self.clock));
            }
        }
        if let Some(changes) = self.subscription.changed().now_or_never().and_then(Result::ok) {
            let ids: Vec<_> = changes.iter().map(|change| change.subject.id()).collect();
            self.look(&ids);
        }
    }

    fn check(&self, model: &Model, event: &Event) {
        let found = self.registry.list();
        let ids: Vec<_> = found
            .iter()
            .map(|service| service.registration.service_id.as_str())
            .collect();
        assert_eq!(ids, model.services.keys().copied().collect::<Vec<_>>());
        assert_eq!(self.registry.len(), ids.len());
        for (service, expected) in found.iter().zip(model.services.values()) {
            assert_eq!(service.liveness, model.liveness(expected));
            assert_eq!(service.reported, expected.life.reported);
            assert_eq!(service.last_heartbeat.map(to_millis), expected.life.beat);
            assert_eq!(to_millis(service.registered_at), expected.registered_wall);
            let metric = service.metrics.get("key").and_then(Metric::number);
            assert_eq!(metric, expected.metric.map(f64::from));
        }
        if matches!(event, Event::Tick) {
            let told: Vec<_> = self.watched.iter().map(|(id, seen)| (id.as_str(), *seen)).collect();
            let true_now = found.iter().map(|service| {
                (
                    service.registration.service_id.as_str(),
                    (service.liveness, service.reported),
                )
            });
            assert_eq!(told, true_now.collect::<Vec<_>>());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    // If the registry and the page above disagree, somebody is told that a dead service lives, or the reverse.
    #[test]
    fn the_registry_does_what_the_model_says(events in prop::collection::vec(event(), 1..60)) {
        // In memory where that is possible: what a disk adds is shown by the store's own tests.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let clock = Arc::<ManualClock>::default();
            let now = clock.now();
            let opened = SystemTime::UNIX_EPOCH + Duration::from_millis(millis(now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap()));
            clock.set_wall(opened);
            let mut model = Model { wall: to_millis(opened), ..Model::default() };
            let mut subject = Subject::open(Storage::File(folder.path().join("registry.db")), clock);
            for event in &events {
                subject.apply(event).await;
                model.apply(event);
                subject.check(&model, event);
            }
        });
    }
}
