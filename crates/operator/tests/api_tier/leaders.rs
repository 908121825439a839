//! Several replicas, one leader.

use flowctl_api::ExternalProcessor;
use flowctl_faults::{Action, Answer, Pattern, Proxy, Rule, WatchFault};
use flowctl_testkit::{Error, wait};
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use serde_json::json;

use crate::{
    objects::{deployment_version, image_of, nothing_was_forbidden, processor},
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

/// How many kinds are watched.
const KINDS: usize = 10;

fn pattern(text: &str) -> Pattern {
    text.parse().expect("a pattern")
}

async fn until(what: &str, is_so: impl Fn() -> bool) -> TestResult {
    wait::until(what, LIMIT, async || Ok(is_so().then_some(()))).await
}

// A connection that died without an end leaves a standby with a cache of a minute ago. If it comes to lead then, it must not make
// the old spec true again: every workload that was changed meanwhile would be rolled back, and out again.
#[test]
fn a_new_leader_does_not_undo_what_it_has_not_heard_of() {
    in_namespace("unheard", async |place| {
        place.apply(processor("ttp", "Processor")).await?;
        let first = Process::start(&place, "first")?;
        place.ready::<ExternalProcessor>("ttp").await?;
        let proxy = Proxy::start(place.config().await?).await?;
        let second = Process::through(&proxy, &place, "second")?;
        until("the second one is warm", || proxy.watches(&pattern("watch *")) == KINDS).await?;

        let held = pattern("watch externalprocessors.flowctl.dev");
        assert_eq!(proxy.disturb(&held, WatchFault::Hold(0)), 1);
        is_served(&place, "ttp:v2").await?;
        let before = deployment_version(&place, "ttp-processor").await?;
        first.kill().await?;
        leads(&place, "second").await?;
        // It works, and makes passes over what it knew before.
        place.apply(processor("sink", "Consumer")).await?;
        place.ready::<ExternalProcessor>("sink").await?;
        place.settled().await?;
        let deployment: Deployment = place.get("ttp-processor").await?;
        assert_eq!(image_of(&deployment).as_deref(), Some("ttp:v2"));
        assert_eq!(deployment.metadata.generation, before, "rolled back, and out again");
        second.stop().await
    });
}

// A replica that cannot read what it should work on would hold the lease for ever and do nothing, beside one that could work.
#[test]
fn who_cannot_read_leaves_the_lease_to_others() {
    in_namespace("unfit", async |place| {
        let proxy = Proxy::start(place.config().await?).await?;
        proxy.arm([Rule::always(pattern("list pods"), Action::Answer(Answer::code(403)))]);
        let first = Process::through(&proxy, &place, "first")?;
        let asked = |what: &str| {
            let seen = proxy.seen();
            let asked = seen.iter().filter(|seen| seen.signature.to_string().starts_with(what));
            asked.count()
        };
        until("the first one is refused, and looks at the lease", || {
            asked("list pods") > 1 && asked("get leases") > 1
        })
        .await?;
        assert_eq!(holder(&place).await?, "");
        let second = Process::start(&place, "second")?;
        leads(&place, "second").await?;
        place.apply(processor("ttp", "Processor")).await?;
        is_served(&place, "ttp:v2").await?;

        // It can be helped, and is then as good as any other.
        proxy.disarm();
        until("the first one is warm", || proxy.watches(&pattern("watch *")) == KINDS).await?;
        second.stop().await?;
        leads(&place, "first").await?;
        is_served(&place, "ttp:v3").await?;
        first.stop().await?;
        nothing_was_forbidden(&place)
    });
}
