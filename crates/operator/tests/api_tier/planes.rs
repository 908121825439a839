//! A control plane that is lost, comes back empty, or is not to be believed: whatever it fails to say, nobody is called
//! unready or restarted for it, and what is really broken shows all the same.

use std::sync::Arc;

use flowctl_api::ExternalProcessor;
use flowctl_testkit::{
    Error, Tier,
    fake_control_plane::{Memory, Script},
    fake_kubelet::{Outcome, Selector},
    tier,
};

use crate::{
    components::{OWN, STALE_AFTER, Stage, beating, condition, stays},
    objects::nothing_was_forbidden,
    support::{Place, TestResult, in_namespace},
    world::{World, definitions},
};

async fn fresh(place: &Place, names: &[&str]) -> TestResult {
    for name in names {
        place
            .condition::<ExternalProcessor>(name, "Healthy", "True", "HeartbeatFresh")
            .await?;
    }
    Ok(())
}

/// Processors of these names, which all beat.
async fn beat(stage: &Stage, names: &[&str]) -> TestResult {
    for name in names {
        stage.place.apply(beating(name, "Processor", "Auto")).await?;
    }
    for name in names {
        stage.place.ready::<ExternalProcessor>(name).await?;
        stage.speak(name).await?;
    }
    fresh(&stage.place, names).await
}

/// The control plane is killed, and comes back empty after `meanwhile`.
async fn lost_and_back(place: Place, meanwhile: impl AsyncFnOnce() -> TestResult) -> TestResult {
    let stage = Stage::new(&place, Script::default())?;
    let operator = place.operator_with(stage.options(), stage.settings()).await?;
    let names = ["alpha", "beta", "crashes", "stops"];
    beat(&stage, &names).await?;
    place.settled().await?;
    let children = place.child_writes()?.len();

    stage.plane.kill();
    for name in names {
        place
            .condition::<ExternalProcessor>(name, "Healthy", "Unknown", "ControlPlaneUnreachable")
            .await?;
        place.ready::<ExternalProcessor>(name).await?;
    }
    stage.own_event("ControlPlaneUnreachable").await?;
    meanwhile().await?;
    let crash = Outcome::CrashLoop {
        exit_code: 1,
        restarts: 3,
    };
    let pods = Selector::labels(&[("flowctl.dev/name", "crashes")]);
    place.world.kubelet.script(pods, crash);
    place
        .condition::<ExternalProcessor>("crashes", "Ready", "False", "")
        .await?;
    let unknown = ("Unknown", "ControlPlaneUnreachable");
    stays::<ExternalProcessor>(&place, "alpha", "Healthy", unknown, 2 * STALE_AFTER).await?;

    stage.plane.restart(Memory::Lost)?;
    place
        .condition::<ExternalProcessor>("alpha", "Healthy", "Unknown", "RegistryReset")
        .await?;
    place.ready::<ExternalProcessor>("alpha").await?;
    stage.speak("alpha").await?;
    stage.speak("beta").await?;
    fresh(&place, &["alpha", "beta"]).await?;
    // It was stopped during the outage: nobody ever said that it is back.
    let stopped: ExternalProcessor = place.get("stops").await?;
    let status = stopped.status.unwrap_or_default();
    assert_ne!(condition(&status, "Healthy").map(|(status, _)| status), Some("True"));
    stage.own_event("ControlPlaneTrusted").await?;
    let told = stage.told("Lease", OWN).await?;
    let lost = told.iter().filter(|reason| *reason == "ControlPlaneUnreachable");
    assert_eq!(lost.count(), 1, "{told:?}");
    assert_eq!(
        place.child_writes()?.len(),
        children,
        "nothing is restarted for lack of beats"
    );
    operator.stop().await
}

// Restarting a registry must neither take pipelines out of service nor hide what is really broken meanwhile.
#[test]
fn a_control_plane_that_is_lost_makes_nobody_unready() {
    in_namespace("plane-lost", async |place| {
        lost_and_back(place.clone(), async || Ok(())).await?;
        nothing_was_forbidden(&place)
    });
}

// Both go at once when a node or a network fails: what is unknown must not become known by an apiserver that comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_and_an_apiserver_that_are_lost_make_nobody_unready() -> TestResult {
    if tier::require(Tier::Api).is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir().map_err(Error::io("make a directory"))?;
    let world = Arc::new(World::with(definitions(&directory)?).await?);
    let place = Place::new(Arc::clone(&world), "both-lost").await?;
    let replaced = async || world.cluster.replace_apiserver(async { Ok(()) }).await;
    lost_and_back(place, replaced).await?;
    world.cluster.check()
}

// A registry that loses beats on their way shows what a mass death shows: believing it would take every pipeline down.
#[test]
fn many_that_fall_silent_at_once_are_not_blamed() {
    in_namespace("suspect", async |place| {
        let stage = Stage::new(&place, Script::default())?;
        let operator = place.operator_with(stage.options(), stage.settings()).await?;
        let names = ["one", "two", "three", "four"];
        beat(&stage, &names).await?;
        for name in names {
            stage.silence(name).await?;
        }
        for name in names {
            place
                .condition::<ExternalProcessor>(name, "Healthy", "Unknown", "ControlPlaneSuspect")
                .await?;
            place.ready::<ExternalProcessor>(name).await?;
        }
        stage.own_event("ControlPlaneSuspect").await?;
        for name in names {
            stage.speak(name).await?;
        }
        fresh(&place, &names).await?;
        stage.own_event("ControlPlaneTrusted").await?;
        let stale: Vec<String> = stage.told("ExternalProcessor", "one").await?;
        assert!(!stale.iter().any(|reason| reason == "HeartbeatStale"), "{stale:?}");
        operator.stop().await
    });
}
