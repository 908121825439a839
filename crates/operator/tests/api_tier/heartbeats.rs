//! What control planes say of components is what their objects' status says: in time, once, and never more than is known.

use std::time::{Duration, Instant};

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_proto::flowctl::ServiceInfo;
use flowctl_testkit::{
    fake_control_plane::{Dialect, HealthStatus, Script},
    wait,
};
use serde_json::json;

use crate::{
    components::{OWN, STALE_AFTER, Stage, beating, condition, stays, using},
    objects::nothing_was_forbidden,
    support::{LIMIT, Place, TestResult, in_namespace},
};

/// Silence after which the server's janitor speaks: longer than the time between two looks, as everywhere. Else it could say
/// UNHEALTHY together with a beat, as a component does.
const TTL: Duration = Duration::from_secs(10);
/// From the last beat to the status: silence, two looks in a row, and a write.
const DETECTED: Duration = Duration::from_secs(STALE_AFTER.as_secs() + 15);

/// One processor that falls silent and speaks again, and a Pipeline that uses it.
async fn silence_and_speech(place: Place, dialect: Dialect) -> TestResult {
    let stage = Stage::new(
        &place,
        Script {
            dialect,
            ttl: TTL,
            ..Script::default()
        },
    )?;
    let operator = place.operator_with(stage.options(), stage.settings()).await?;
    place.apply(beating("ttp", "Processor", "Auto")).await?;
    place.apply(using("payments", "ttp")).await?;
    place.ready::<ExternalProcessor>("ttp").await?;
    place.ready::<Pipeline>("payments").await?;
    place
        .condition::<ExternalProcessor>("ttp", "Healthy", "Unknown", "WaitingForRegistration")
        .await?;
    stage.speak("ttp").await?;
    place
        .condition::<ExternalProcessor>("ttp", "Healthy", "True", "HeartbeatFresh")
        .await?;
    place.settled().await?;
    let before = stage.told("ExternalProcessor", "ttp").await?;

    stage.silence("ttp").await?;
    let begun = Instant::now();
    let status = place
        .condition::<ExternalProcessor>("ttp", "Healthy", "False", "HeartbeatStale")
        .await?;
    println!("{dialect:?}: silence is told after {:?}", begun.elapsed());
    assert!(begun.elapsed() < DETECTED, "told after {:?}", begun.elapsed());
    assert_eq!(condition(&status, "Ready").map(|(status, _)| status), Some("False"));
    let status = place
        .condition::<Pipeline>("payments", "Healthy", "False", "ProcessorUnhealthy")
        .await?;
    assert!(status.why.contains("work"), "the step is named: {:?}", status.why);
    // The server's janitor says UNHEALTHY by now, and the Go server will for ever.
    stays::<ExternalProcessor>(&place, "ttp", "Healthy", ("False", "HeartbeatStale"), STALE_AFTER).await?;

    stage.speak("ttp").await?;
    let begun = Instant::now();
    place
        .condition::<ExternalProcessor>("ttp", "Healthy", "True", "HeartbeatFresh")
        .await?;
    println!("{dialect:?}: speech is told after {:?}", begun.elapsed());
    place.ready::<ExternalProcessor>("ttp").await?;
    place.ready::<Pipeline>("payments").await?;
    place.settled().await?;
    let mut told = stage.told("ExternalProcessor", "ttp").await?;
    for known in &before {
        told.extract_if(.., |reason| reason == known).next();
    }
    told.sort();
    assert_eq!(told, ["HeartbeatStale", "Ready"], "one event each way");
    assert_eq!(
        stage.told("Lease", OWN).await?,
        Vec::<String>::new(),
        "the control plane was well"
    );
    nothing_was_forbidden(&place)?;
    operator.stop().await
}

// A processor that hangs is alive for Kubernetes: without its heartbeats nobody learns why a pipeline stands still.
#[test]
fn silence_is_told_at_the_go_server_although_its_status_is_latched() {
    in_namespace("silent-go", async |place| silence_and_speech(place, Dialect::Go).await);
}

#[test]
fn silence_is_told_by_the_change_stream() {
    in_namespace("silent-ours", async |place| {
        silence_and_speech(place, Dialect::Ours).await
    });
}

#[test]
fn silence_is_told_at_a_server_that_speaks_the_legacy_dialect_alone() {
    in_namespace("silent-legacy", async |place| {
        silence_and_speech(place, Dialect::Legacy).await
    });
}

// Most processors never register: they must not be called unhealthy for it, unless their owner wants to be sure.
#[test]
fn who_never_registers_is_judged_only_where_it_is_required() {
    in_namespace("never", async |place| {
        let stage = Stage::new(&place, Script::default())?;
        let operator = place.operator_with(stage.options(), stage.settings()).await?;
        for (name, policy) in [("auto", "Auto"), ("required", "Required"), ("off", "Off")] {
            place.apply(beating(name, "Processor", policy)).await?;
        }
        place
            .condition::<ExternalProcessor>("off", "Healthy", "Unknown", "NotConfigured")
            .await?;
        for name in ["auto", "required"] {
            place
                .condition::<ExternalProcessor>(name, "Healthy", "Unknown", "WaitingForRegistration")
                .await?;
        }
        // A minute of grace after the pods are ready, and then a look.
        let grace = Duration::from_secs(60) + LIMIT;
        for (name, expected) in [
            ("required", ("False", "NeverRegistered")),
            ("auto", ("Unknown", "NotRegistered")),
        ] {
            wait::until_explained(&format!("the grace of {name} is over"), grace, async || {
                let object: ExternalProcessor = place.get(name).await?;
                let status = object.status.unwrap_or_default();
                let seen = condition(&status, "Healthy");
                Ok(if seen == Some(expected) {
                    Ok(())
                } else {
                    Err(format!("{seen:?}"))
                })
            })
            .await?;
        }
        place
            .condition::<ExternalProcessor>("required", "Ready", "False", "")
            .await?;
        place.ready::<ExternalProcessor>("auto").await?;
        place.ready::<ExternalProcessor>("off").await?;
        operator.stop().await
    });
}

// An operator that is upgraded must not tell the world anew what everybody knows.
#[test]
fn a_restart_of_the_operator_changes_no_verdict_and_writes_nothing() {
    in_namespace("restarted", async |place| {
        let stage = Stage::new(&place, Script::default())?;
        let operator = place.operator_with(stage.options(), stage.settings()).await?;
        for name in ["speaks", "silent", "absent"] {
            place.apply(beating(name, "Processor", "Auto")).await?;
            place.ready::<ExternalProcessor>(name).await?;
        }
        place.apply(using("payments", "speaks")).await?;
        stage.speak("speaks").await?;
        stage.speak("silent").await?;
        for name in ["speaks", "silent"] {
            place
                .condition::<ExternalProcessor>(name, "Healthy", "True", "HeartbeatFresh")
                .await?;
        }
        stage.silence("silent").await?;
        place
            .condition::<ExternalProcessor>("silent", "Healthy", "False", "HeartbeatStale")
            .await?;
        place.ready::<Pipeline>("payments").await?;
        place.settled().await?;
        operator.stop().await?;
        let before = place.writes()?.len();

        let operator = place.operator_with(stage.options(), stage.settings()).await?;
        let listed = stage.plane.calls().get("ListComponents").copied().unwrap_or_default();
        // Long enough that the new process has judged everything by itself.
        let looks = 2 + usize::try_from(STALE_AFTER.as_secs() / 5).unwrap_or_default() + 3;
        wait::until("the new operator has looked often enough", LIMIT, async || {
            let now = stage.plane.calls().get("ListComponents").copied().unwrap_or_default();
            Ok((now >= listed + looks).then_some(()))
        })
        .await?;
        let written: Vec<String> = place
            .writes()?
            .split_off(before)
            .into_iter()
            .map(|event| event.uri)
            .collect();
        assert_eq!(written, Vec::<String>::new());
        stage.silence("speaks").await?;
        place
            .condition::<ExternalProcessor>("speaks", "Healthy", "False", "HeartbeatStale")
            .await?;
        operator.stop().await
    });
}

// What a component itself says counts while it beats: a processor that knows that it is sick must be seen so.
#[test]
fn a_component_that_calls_itself_unhealthy_is_believed() {
    in_namespace("says-so", async |place| {
        let stage = Stage::new(&place, Script::default())?;
        let operator = place.operator_with(stage.options(), stage.settings()).await?;
        place.apply(beating("ttp", "Processor", "Auto")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        let ids = stage.speak("ttp").await?;
        place
            .condition::<ExternalProcessor>("ttp", "Healthy", "True", "HeartbeatFresh")
            .await?;
        stage.plane.keep_beating(ids.iter().cloned(), HealthStatus::Unhealthy);
        place
            .condition::<ExternalProcessor>("ttp", "Healthy", "False", "ReportedUnhealthy")
            .await?;
        stage.plane.keep_beating(ids, HealthStatus::Healthy);
        place
            .condition::<ExternalProcessor>("ttp", "Healthy", "True", "HeartbeatFresh")
            .await?;
        operator.stop().await
    });
}

// The three clients that are out there: a legacy one, one that says UNKNOWN for ever, and one whose id is fixed in its image.
#[test]
fn every_kind_of_client_is_heard() {
    in_namespace("clients", async |place| {
        let stage = Stage::new(
            &place,
            Script {
                ttl: TTL,
                ..Script::default()
            },
        )?;
        let operator = place.operator_with(stage.options(), stage.settings()).await?;
        let names = ["legacy", "current", "fixed"];
        for name in names {
            let mut object = beating(name, "Processor", "Auto");
            if name == "fixed" {
                object["spec"]["heartbeat"]["identity"] = json!("Shared");
                object["spec"]["heartbeat"]["componentId"] = json!("hard-coded");
            }
            place.apply(object).await?;
        }
        for name in names {
            place.ready::<ExternalProcessor>(name).await?;
        }
        let legacy = stage.ids("legacy").await?;
        for id in &legacy {
            stage.plane.register_legacy(ServiceInfo {
                service_id: id.clone(),
                component_id: id.clone(),
                ..ServiceInfo::default()
            });
        }
        stage.plane.keep_beating(legacy, HealthStatus::Unknown);
        stage.speak("current").await?;
        stage.plane.register("hard-coded", None);
        stage.plane.keep_beating(["hard-coded"], HealthStatus::Unknown);
        for name in names {
            place
                .condition::<ExternalProcessor>(name, "Healthy", "True", "HeartbeatFresh")
                .await?;
        }
        // One after the other: three at once would be the control plane's fault.
        stage.plane.silence("hard-coded");
        place
            .condition::<ExternalProcessor>("fixed", "Healthy", "False", "HeartbeatStale")
            .await?;
        stage.silence("legacy").await?;
        place
            .condition::<ExternalProcessor>("legacy", "Healthy", "False", "HeartbeatStale")
            .await?;
        stage.speak("legacy").await?;
        place
            .condition::<ExternalProcessor>("legacy", "Healthy", "True", "HeartbeatFresh")
            .await?;
        operator.stop().await
    });
}
