//! Several replicas, one leader.

use flowctl_api::ExternalProcessor;
use flowctl_testkit::{Error, wait};
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use serde_json::json;

use crate::{
    objects::{image_of, nothing_was_forbidden, processor},
    process::Process,
    support::{LIMIT, Place, TestResult, in_namespace},
};

pub(crate) async fn holder(place: &Place) -> Result<String, Error> {
    let lease = place
        .api::<Lease>()
        .get_opt("flowctl-operator")
        .await
        .map_err(Error::kube("read the lease"))?;
    Ok(lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default())
}

pub(crate) async fn leads(place: &Place, name: &str) -> TestResult {
    let what = format!("{name} leads");
    wait::until_explained(&what, LIMIT, async || {
        let holder = holder(place).await?;
        Ok(if holder.starts_with(&format!("{name}_")) {
            Ok(())
        } else {
            Err(holder)
        })
    })
    .await
}

/// Changes the processor and waits until the leader has taken it in.
async fn is_served(place: &Place, image: &str) -> TestResult {
    place
        .merge::<ExternalProcessor>("ttp", json!({"spec": {"workload": {"image": image}}}))
        .await?;
    place.ready::<ExternalProcessor>("ttp").await?;
    let deployment: Deployment = place.get("ttp-processor").await?;
    assert_eq!(image_of(&deployment).as_deref(), Some(image));
    Ok(())
}

// Whatever happens to the leader, somebody else goes on, and a leader that was away does not write.
#[test]
fn another_replica_takes_over_from_a_killed_a_stopped_and_a_paused_leader() {
    in_namespace("leaders", async |place| {
        place.apply(processor("ttp", "Processor")).await?;
        let first = Process::start(&place, "first")?;
        leads(&place, "first").await?;
        let second = Process::start(&place, "second")?;
        is_served(&place, "ttp:v2").await?;

        first.kill().await?;
        leads(&place, "second").await?;
        is_served(&place, "ttp:v3").await?;

        let third = Process::start(&place, "third")?;
        second.signal(nix::sys::signal::Signal::SIGTERM)?;
        assert_eq!(second.end().await?.code(), Some(0), "an orderly end");
        leads(&place, "third").await?;
        is_served(&place, "ttp:v4").await?;

        third.signal(nix::sys::signal::Signal::SIGSTOP)?;
        let fourth = Process::start(&place, "fourth")?;
        leads(&place, "fourth").await?;
        place.settled().await?;
        third.signal(nix::sys::signal::Signal::SIGCONT)?;
        assert_eq!(third.end().await?.code(), Some(1), "who lost the lease ends at once");
        assert!(holder(&place).await?.starts_with("fourth_"));
        fourth.signal(nix::sys::signal::Signal::SIGTERM)?;
        assert_eq!(fourth.end().await?.code(), Some(0));
        assert_eq!(holder(&place).await?, "", "the lease was given back");
        nothing_was_forbidden(&place)
    });
}
