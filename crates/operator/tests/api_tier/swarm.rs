//! Many objects with heartbeats, on a cluster of their own and with the operator as a program: silence of the operator
//! while all is well, the least that tells of one that falls silent, and a bound when everything flaps. The short form
//! runs with the other tests; `FLOWCTL_SWARM_OBJECTS`, `FLOWCTL_SWARM_QUIET_SECONDS` and
//! `FLOWCTL_SWARM_FLAPPING_SECONDS` make it longer (CONTRIBUTING.md).

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_testkit::{
    Error, Tier, audit,
    fake_control_plane::{HealthStatus, Script},
    tier, wait,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::{
    components::{Stage, beating, using},
    objects::nothing_was_forbidden,
    probes::{ask, free_address},
    process::{Launch, Process},
    support::{Place, Subject, TestResult},
    world::{World, definitions},
};

/// Pipelines that use the processor that falls silent.
const USERS: [&str; 2] = ["usera", "userb"];
const SILENT: &str = "p0000";
/// A thousand workloads on a small machine take their time.
const CONVERGED: Duration = Duration::from_secs(1200);
/// From the last change to the truth in every status.
const TRUTH: Duration = Duration::from_secs(60);

fn number(variable: &str, default: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn objects() -> usize {
    usize::try_from(number("FLOWCTL_SWARM_OBJECTS", 24)).unwrap_or(usize::MAX)
}

fn name(number: usize) -> String {
    format!("p{number:04}")
}

async fn not_yet<K: Subject>(place: &Place, reason: &str) -> Result<usize, Error> {
    let all: Vec<K> = place.list().await?;
    let is_so = |object: &&K| {
        let conditions = object
            .status()
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        conditions
            .iter()
            .any(|found| found.type_ == "Healthy" && found.reason == reason)
    };
    Ok(all.len() - all.iter().filter(is_so).count())
}

/// Waits until every processor is healthy by its beats.
async fn all_fresh(place: &Place, limit: Duration) -> TestResult {
    wait::until_explained("every processor is Healthy", limit, async || {
        let left = not_yet::<ExternalProcessor>(place, "HeartbeatFresh").await?;
        Ok(if left == 0 {
            Ok(())
        } else {
            Err(format!("{left} are not"))
        })
    })
    .await
}

/// Everything that runs in pods here speaks with this status.
async fn speak(stage: &Stage, status: HealthStatus) -> Result<Vec<String>, Error> {
    let pods: Vec<Pod> = stage.place.list().await?;
    let id = |pod: &Pod| {
        let of = pod.labels().get("flowctl.dev/name").cloned().unwrap_or_default();
        format!("{}.{of}.{}", stage.place.namespace, pod.name_any())
    };
    let ids: Vec<String> = pods.iter().map(id).collect();
    let registered = stage.plane.registered();
    for id in ids.iter().filter(|id| !registered.contains(*id)) {
        stage.plane.register(id, None);
    }
    stage.plane.keep_beating(ids.iter().cloned(), status);
    Ok(ids)
}

fn told(events: &[audit::Event]) -> Vec<String> {
    let lines = events.iter().map(|event| format!("{} {}", event.verb, event.uri));
    lines.collect()
}

/// Writes of the operator since so many, leases left out.
fn since(place: &Place, before: usize) -> Result<Vec<audit::Event>, Error> {
    let mut all = writes(place)?;
    Ok(all.split_off(before.min(all.len())))
}

fn writes(place: &Place) -> Result<Vec<audit::Event>, Error> {
    let mut all = place.requests()?;
    all.retain(audit::Event::is_write);
    Ok(all)
}

async fn resident(address: SocketAddr) -> Result<f64, Error> {
    let text = ask(address, "/metrics").await.map_err(Error::io("ask for metrics"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    line.and_then(|number| number.parse().ok())
        .ok_or_else(|| Error::impossible("no resident memory in /metrics"))
}

struct Swarm {
    stage: Stage,
    process: Process,
    admin: SocketAddr,
}

/// As many processors as asked for, all Ready, and two Pipelines that use one of them.
async fn swarm(place: &Place, writes_per_second: &str) -> Result<Swarm, Error> {
    let stage = Stage::new(place, Script::default())?;
    let admin = free_address().await?;
    let control_plane = stage.plane.address().to_string();
    let arguments = [
        "--control-plane",
        &control_plane,
        "--writes-per-second",
        writes_per_second,
    ];
    let launch = Launch {
        admin,
        arguments: &arguments,
        ..Launch::default()
    };
    let process = Process::launch(place, "swarm", launch)?;
    let begun = Instant::now();
    for number in 0..objects() {
        place.apply(beating(&name(number), "Processor", "Auto")).await?;
    }
    for user in USERS {
        place.apply(using(user, SILENT)).await?;
    }
    wait::until("every pod runs", CONVERGED, async || {
        let pods: Vec<Pod> = place.list().await?;
        let running = pods.iter().filter(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            phase == Some("Running")
        });
        Ok((running.count() >= objects() + USERS.len()).then_some(()))
    })
    .await?;
    speak(&stage, HealthStatus::Unknown).await?;
    all_fresh(place, CONVERGED).await?;
    for user in USERS {
        place.ready::<Pipeline>(user).await?;
    }
    println!("{} objects beat and are Healthy after {:?}", objects(), begun.elapsed());
    Ok(Swarm { stage, process, admin })
}

async fn another_place(name: &str) -> Result<Place, Error> {
    let directory = tempfile::tempdir().map_err(Error::io("make a directory"))?;
    let world = Arc::new(World::with(definitions(&directory)?).await?);
    Place::new(world, name).await
}

// Heartbeats that became writes would wear down the apiserver of everybody; and one silence must not be lost among them.
#[tokio::test(flavor = "multi_thread")]
async fn beats_cost_nothing_and_one_silence_costs_one_write_each() -> TestResult {
    if tier::require(Tier::Api).is_none() {
        return Ok(());
    }
    let place = another_place("swarm").await?;
    let swarm = swarm(&place, "100").await?;
    place.settled().await?;
    let window = Duration::from_secs(number("FLOWCTL_SWARM_QUIET_SECONDS", 20));
    let before = writes(&place)?.len();
    tokio::time::sleep(window).await;
    let written = since(&place, before)?;
    assert!(written.is_empty(), "written while all beat: {:#?}", told(&written));
    println!("{} objects with beats: 0 writes in {window:?}", objects());

    swarm.stage.silence(SILENT).await?;
    place
        .condition::<ExternalProcessor>(SILENT, "Healthy", "False", "HeartbeatStale")
        .await?;
    for user in USERS {
        place
            .condition::<Pipeline>(user, "Healthy", "False", "ProcessorUnhealthy")
            .await?;
    }
    place.settled().await?;
    let written = since(&place, before)?;
    let (events, statuses): (Vec<_>, Vec<_>) = written.into_iter().partition(|event| {
        let object = event.object_ref.as_ref();
        object.is_some_and(|object| object.api_group == "events.k8s.io")
    });
    let mut names: Vec<String> = statuses
        .iter()
        .filter_map(|event| {
            let object = event.object_ref.as_ref()?;
            Some(format!("{} {}", object.name, object.subresource))
        })
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            format!("{SILENT} status"),
            "usera status".to_owned(),
            "userb status".to_owned()
        ],
        "{:#?}",
        told(&statuses)
    );
    for (kind, name) in [
        ("ExternalProcessor", SILENT),
        ("Pipeline", "usera"),
        ("Pipeline", "userb"),
    ] {
        let told = swarm.stage.told(kind, name).await?;
        let reason = if kind == "Pipeline" {
            "ProcessorUnhealthy"
        } else {
            "HeartbeatStale"
        };
        assert_eq!(
            told.iter().filter(|told| *told == reason).count(),
            1,
            "{name}: {told:?}"
        );
    }
    println!("one silence: {} status writes, {} events", statuses.len(), events.len());
    assert_eq!(events.len(), names.len(), "{:#?}", told(&events));
    swarm.process.stop().await?;
    nothing_was_forbidden(&place)?;
    place.world.cluster.check()
}

// Processors that flap must not take from users what the write budget is for, and the last word must be the true one.
#[tokio::test(flavor = "multi_thread")]
async fn what_flaps_is_bounded_and_the_truth_comes_in_the_end() -> TestResult {
    if tier::require(Tier::Api).is_none() {
        return Ok(());
    }
    let place = another_place("flapping").await?;
    // The fewer objects, the smaller the budget that they use up.
    let writes_per_second: u32 = if objects() >= 100 { 100 } else { 4 };
    let swarm = swarm(&place, &writes_per_second.to_string()).await?;
    place.settled().await?;
    let window = Duration::from_secs(number("FLOWCTL_SWARM_FLAPPING_SECONDS", 30));
    let before = writes(&place)?.len();
    let begun = Instant::now();
    let mut early = None;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut ids = None;
    for second in 0.. {
        ticks.tick().await;
        if begun.elapsed() >= window {
            break;
        }
        if begun.elapsed() >= window / 3 && early.is_none() {
            early = Some(resident(swarm.admin).await?);
        }
        let status = if second % 2 == 0 {
            HealthStatus::Unhealthy
        } else {
            HealthStatus::Healthy
        };
        match &ids {
            None => ids = Some(speak(&swarm.stage, status).await?),
            Some(ids) => swarm.stage.plane.keep_beating(ids.iter().cloned(), status),
        }
    }
    let late = resident(swarm.admin).await?;
    let took = begun.elapsed();
    let is_status = |event: &&audit::Event| {
        event
            .object_ref
            .as_ref()
            .is_some_and(|object| object.subresource == "status")
    };
    let statuses = since(&place, before)?.iter().filter(is_status).count();
    // What the rate allows, with a full bucket; and of each object what its pace allows: five at once, then one in ten
    // seconds, for what turns and for the rest.
    let rate = f64::from(writes_per_second);
    let by_rate = rate * took.as_secs_f64() + 4.0 * rate + 1.0;
    #[expect(clippy::cast_precision_loss, reason = "a number of objects")]
    let by_pace = 2.0 * objects() as f64 * (6.0 + took.as_secs_f64() / 10.0);
    let most = by_rate.min(by_pace);
    println!(
        "{} flapping objects: {statuses} status writes in {took:?} (at most {most:.0}), resident {early:?} then {late}",
        objects()
    );
    assert!(statuses > 0, "it flaps");
    #[expect(clippy::cast_precision_loss, reason = "a count of writes")]
    let statuses = statuses as f64;
    assert!(statuses <= most, "{statuses} status writes, {most:.0} are allowed");
    let early = early.ok_or_else(|| Error::impossible("the window is too short"))?;
    assert!(late <= early * 1.15 + 8e6, "memory grows: {early} then {late}");

    speak(&swarm.stage, HealthStatus::Healthy).await?;
    let begun = Instant::now();
    all_fresh(&place, TRUTH).await?;
    println!("the truth is everywhere after {:?}", begun.elapsed());
    swarm.process.stop().await?;
    place.world.cluster.check()
}
