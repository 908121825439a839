//! Tests of the registry as a whole, on a clock that stands until a test moves it.

mod model;
mod rules;

use std::sync::Arc;
use std::time::Duration;

use flowctl_proto::flowctl::v1::HealthStatus;

use super::*;
use crate::clock::ManualClock;

const TTL: Duration = Duration::from_secs(30);
const RETENTION: Duration = Duration::from_secs(600);

fn options(storage: Storage) -> Options {
    Options {
        ttl: TTL,
        retention: RETENTION,
        storage,
        ..Options::default()
    }
}

fn in_memory(change: impl FnOnce(&mut Options)) -> (Arc<Registry>, Arc<ManualClock>) {
    let clock = Arc::<ManualClock>::default();
    let mut options = options(Storage::Memory);
    change(&mut options);
    (
        Registry::open_with(options, Arc::clone(&clock) as Arc<dyn Clock>).unwrap(),
        clock,
    )
}

fn beat<'a>(service_id: &'a str, metrics: &'a [(&'a str, Value<'a>)]) -> Beat<'a> {
    Beat {
        service_id,
        status: HealthStatus::Unknown,
        metrics,
    }
}

async fn register(registry: &Registry, id: &str) -> String {
    registry
        .register(Registration::of(id), Caller::default())
        .await
        .unwrap()
}
