//! What the registry costs at scale, without a server around it; each run prints one JSON object. A benchmark, not a lesson.
//!
//! ```console
//! registry_scale memory   [SERVICES [ROWS]]  # bytes a service with 8 metrics takes, and with ROWS (10 s each) of history
//! registry_scale lateness [SERVICES]         # how late watchers learn of expiries, when all services fall silent
//! registry_scale beats    [BEATS]            # one thread, 1,000 services, 8 metrics; for callgrind, too
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flowctl_control_plane::clock::{Clock, ManualClock};
use flowctl_control_plane::limits::Limits;
use flowctl_control_plane::registry::{
    Beat, Caller, HISTORY_RESOLUTION, Liveness, Options, Registration, Registry, Subject, Value,
};
use flowctl_proto::flowctl::ServiceType;
use flowctl_proto::flowctl::v1::HealthStatus;
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What a processor of the existing SDK reports.
const METRICS: [&str; 8] = [
    "processed_count",
    "error_count",
    "success_count",
    "processing_latency_ms",
    "last_ledger",
    "uptime_seconds",
    "total_bytes",
    "queue_depth",
];

const TTL: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let report = match what.as_str() {
        "memory" => memory(number(100_000)?, number(0)?).await?,
        "lateness" => lateness(number(100_000)?).await?,
        "beats" => beats(number(1_000_000)?).await?,
        _ => return Err("say memory, lateness or beats".into()),
    };
    println!("{report}");
    Ok(())
}

fn options(history: bool) -> Options {
    let limits = Limits {
        services: usize::MAX,
        history_bytes: if history { usize::MAX } else { 0 },
        ..Limits::default()
    };
    Options {
        limits,
        ..Options::default()
    }
}

/// A pod of a Deployment that the operator made.
fn service_id(number: usize) -> String {
    format!(
        "payments.token-transfers.token-transfers-processor-{:010x}-{number:05}",
        number / 7
    )
}

async fn register(registry: &Registry, number: usize) -> Outcome<()> {
    let metadata = [
        ("network", "testnet"),
        ("processor_type", "token_transfer"),
        ("processor_version", "v1.4.2"),
    ];
    let registration = Registration {
        service_type: ServiceType::Processor,
        name: "token-transfers".to_owned(),
        version: "v1.4.2".to_owned(),
        input_event_types: vec!["stellar.ledger.v1".to_owned()],
        output_event_types: vec!["stellar.token.transfer.v1".to_owned()],
        endpoint: ":50051".to_owned(),
        metadata: metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..Registration::of(service_id(number))
    };
    let caller = Caller {
        peer: "10.244.17.33".parse().ok(),
        identity: None,
    };
    registry.register(registration, caller).await?;
    Ok(())
}

fn beat(registry: &Registry, id: &str, round: usize) -> Outcome<()> {
    let metrics = METRICS.map(|name| (name, Value::Number(round as f64)));
    let beat = Beat {
        service_id: id,
        status: HealthStatus::Healthy,
        metrics: &metrics,
    };
    black_box(registry.heartbeat(&beat, Caller::default())?);
    Ok(())
}

/// Resident bytes of this process.
fn resident() -> Outcome<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS in /proc/self/status")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<usize>()? * 1024)
}

async fn memory(services: usize, rows: usize) -> Outcome<serde_json::Value> {
    let clock = Arc::<ManualClock>::default();
    let registry = Registry::open_with(options(rows > 0), Arc::clone(&clock) as Arc<dyn Clock>)?;
    let before = resident()?;
    for number in 0..services {
        register(&registry, number).await?;
    }
    for row in 0..rows.max(1) {
        for number in 0..services {
            beat(&registry, &service_id(number), row)?;
        }
        clock.advance(HISTORY_RESOLUTION);
    }
    let bytes = resident()?.saturating_sub(before);
    Ok(json!({
        "services": services,
        "metrics": METRICS.len(),
        "history_rows": rows,
        "bytes": bytes,
        "bytes_per_service": bytes / services.max(1),
    }))
}

async fn lateness(services: usize) -> Outcome<serde_json::Value> {
    let registry = Registry::open(Options {
        ttl: TTL,
        ..options(false)
    })?;
    for number in 0..services {
        register(&registry, number).await?;
    }
    let maintenance = tokio::spawn({
        let registry = Arc::clone(&registry);
        async move { registry.maintain(Duration::from_secs(1)).await }
    });
    let silent_since = Arc::<Mutex<HashMap<String, Instant>>>::default();
    let reader = tokio::spawn(told_late(Arc::clone(&registry), Arc::clone(&silent_since), services));
    // Spread over half a second, so that they do not all expire in the same look.
    let slices = 50;
    for slice in 0..slices {
        for number in (slice..services).step_by(slices) {
            let id = service_id(number);
            // Before the beat: an expiry can then never be told too early to count.
            lock(&silent_since).insert(id.clone(), Instant::now());
            beat(&registry, &id, 1)?;
        }
        tokio::time::sleep(Duration::from_millis(500) / slices as u32).await;
    }
    let mut late = reader.await?;
    let live = registry
        .briefs()
        .iter()
        .filter(|brief| brief.liveness != Liveness::Expired)
        .count();
    if live > 0 {
        return Err(format!("{live} services were told to be expired and are not").into());
    }
    maintenance.abort();
    let started = Instant::now();
    registry.tick();
    let look = started.elapsed();
    late.sort_by(f64::total_cmp);
    let at = |share: f64| late.get((late.len() as f64 * share) as usize).or(late.last());
    Ok(json!({
        "services": services,
        "late_ms": { "p50": at(0.5), "p99": at(0.99), "max": late.last() },
        "one_look_ms": look.as_secs_f64() * 1000.0,
    }))
}

/// Reads changes as a watcher does, until each service has expired after its beat; how late that was told, in milliseconds.
async fn told_late(
    registry: Arc<Registry>,
    silent_since: Arc<Mutex<HashMap<String, Instant>>>,
    services: usize,
) -> Vec<f64> {
    let mut subscription = registry.subscribe();
    let mut late = Vec::with_capacity(services);
    while late.len() < services {
        // With fewer services than the registry takes, none are lost.
        let changes = subscription.changed().await.unwrap_or_default();
        let told = Instant::now();
        for change in changes {
            let (Subject::Service(id) | Subject::Run(id)) = &change.subject;
            // What is told before a TTL has passed is the beat itself, or an expiry before it, because the machine is slow.
            let mut silent_since = lock(&silent_since);
            if let Some(since) = silent_since.get(id.as_ref())
                && let Some(late_by) = told.checked_duration_since(*since + TTL)
            {
                silent_since.remove(id.as_ref());
                late.push(late_by.as_secs_f64() * 1000.0);
            }
        }
    }
    late
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn beats(beats: usize) -> Outcome<serde_json::Value> {
    let registry = Registry::open(options(false))?;
    let services = 1000;
    let ids: Vec<_> = (0..services).map(service_id).collect();
    for number in 0..services {
        register(&registry, number).await?;
    }
    let started = Instant::now();
    for round in 0..beats {
        beat(&registry, &ids[round % services], round)?;
    }
    let took = started.elapsed();
    Ok(json!({
        "beats": beats,
        "nanoseconds_per_beat": took.as_nanos() as f64 / beats.max(1) as f64,
    }))
}
