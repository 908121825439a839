//! A leader that stood still, at points that a proxy of its own chooses: what it does when it goes on, and what it sent
//! before and arrives late.

use std::time::{Duration, Instant};

use flowctl_api::ExternalProcessor;
use flowctl_faults::{Gate, Hit, Proxy, Stage};
use flowctl_operator::{Election, Options};
use flowctl_testkit::{Error, audit, wait};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        coordination::v1::{Lease, LeaseSpec},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    ResourceExt as _,
    api::{ObjectMeta, PostParams},
};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    leaders::{holder, leads},
    objects::{image_of, processor},
    process::Process,
    support::{LIMIT, Place, TestResult, in_namespace, settings},
};

/// An operator's process and what stands between it and the apiserver.
struct Replica {
    process: Process,
    proxy: Proxy,
}

// === impl Replica ===

impl Replica {
    async fn start(place: &Place, name: &str) -> Result<Self, Error> {
        let proxy = Proxy::start(place.config().await?).await?;
        let process = Process::through(&proxy, place, name)?;
        Ok(Self { process, proxy })
    }

    fn gate(&self, on: &str, stage: Stage) -> Result<Gate, Error> {
        let on = on.parse().map_err(|error| Error::impossible(format!("{error}")))?;
        Ok(self.proxy.gate(on, stage))
    }

    /// It goes on, and must end at once because it lost the lease.
    async fn goes_on_and_ends(self) -> TestResult {
        self.process.signal(Signal::SIGCONT)?;
        let end = self.process.end().await?;
        assert_eq!(end.code(), Some(1), "who lost the lease ends at once");
        Ok(())
    }
}

async fn reached(gate: &mut Gate) -> Result<Hit, Error> {
    let hit = tokio::time::timeout(LIMIT, gate.reached()).await;
    hit.map_err(|_| Error::impossible("no request came to the gate"))?
}

/// What the replica of this name wrote so far, carried out or not.
fn writes(place: &Place, name: &str) -> Result<Vec<audit::Event>, Error> {
    let mut all = place.writes()?;
    all.retain(|event| event.user_agent.ends_with(&format!("({name})")));
    Ok(all)
}

fn resource(event: &audit::Event) -> &str {
    event.object_ref.as_ref().map_or("", |object| &object.resource)
}

fn code(event: &audit::Event) -> u16 {
    event.response_status.as_ref().map_or(0, |status| status.code)
}

/// When this replica took the lease.
fn took_over(place: &Place, name: &str) -> Result<MicroTime, Error> {
    let of_lease = |event: &audit::Event| resource(event) == "leases" && code(event) < 300;
    let first = writes(place, name)?.into_iter().find(of_lease);
    let first = first.ok_or_else(|| Error::impossible(format!("{name} never held the lease")))?;
    Ok(first.received)
}

fn told(events: &[audit::Event]) -> Vec<String> {
    let line = |event: &audit::Event| format!("{} {} {} {}", event.received.0, event.verb, event.uri, code(event));
    events.iter().map(line).collect()
}

/// The first replica is stopped when the answer to this request is on its way to it, and goes on when another one leads.
async fn stands_still_after(place: &Place, request: &str) -> TestResult {
    let first = Replica::start(place, "first").await?;
    leads(place, "first").await?;
    let mut gate = first.gate(request, Stage::Answered)?;
    place.apply(processor("ttp", "Processor")).await?;
    let hit = reached(&mut gate).await?;
    first.process.signal(Signal::SIGSTOP)?;
    drop(gate);
    hit.release();

    let second = Replica::start(place, "second").await?;
    leads(place, "second").await?;
    place.ready::<ExternalProcessor>("ttp").await?;
    let before = writes(place, "first")?;
    assert!(!before.is_empty(), "the user agent tells replicas apart");
    first.goes_on_and_ends().await?;
    place.settled().await?;

    let late = writes(place, "first")?.split_off(before.len());
    let taken = took_over(place, "second")?;
    assert!(late.is_empty(), "written although another one led: {:#?}", told(&late));
    assert!(
        before.iter().all(|event| event.received < taken),
        "the second one took over at {}: {:#?}",
        taken.0,
        told(&before)
    );
    place.ready::<ExternalProcessor>("ttp").await?;
    second.process.signal(Signal::SIGTERM)?;
    assert_eq!(second.process.end().await?.code(), Some(0));
    Ok(())
}

// Two leaders that write by turns would roll a workload out again and again; a machine that stood still for a minute is
// all that it takes. Between the look at a name and the creation of the object.
#[test]
fn a_leader_that_stood_still_between_a_read_and_a_write_writes_no_more() {
    in_namespace("still-read", async |place| {
        stands_still_after(&place, "get deployments.apps ttp-processor").await
    });
}

// The same between two writes of one pass.
#[test]
fn a_leader_that_stood_still_between_two_writes_writes_no_more() {
    in_namespace("still-write", async |place| {
        stands_still_after(&place, "create controllerrevisions.apps").await
    });
}

// The same after a status, when only its events are left.
#[test]
fn a_leader_that_stood_still_after_a_status_writes_no_more() {
    in_namespace("still-status", async |place| {
        stands_still_after(&place, "apply externalprocessors.flowctl.dev/status ttp").await
    });
}

// The same while a renewal is on its way back: its time counts from when it was sent.
#[test]
fn a_leader_that_stood_still_in_a_renewal_writes_no_more() {
    in_namespace("still-renewal", async |place| {
        stands_still_after(&place, "update leases.coordination.k8s.io").await
    });
}

// A renewal that arrives late must not take the lease back, or both would believe that they lead.
#[test]
fn a_renewal_that_arrives_late_is_refused() {
    in_namespace("late-renewal", async |place| {
        let first = Replica::start(&place, "first").await?;
        leads(&place, "first").await?;
        let mut gate = first.gate("update leases.coordination.k8s.io", Stage::Arrived)?;
        let hit = reached(&mut gate).await?;
        first.process.signal(Signal::SIGSTOP)?;
        drop(gate);
        let _second = Replica::start(&place, "second").await?;
        leads(&place, "second").await?;
        let before = writes(&place, "first")?.len();
        hit.release();
        let late = wait::until("the renewal has arrived", LIMIT, async || {
            let late = writes(&place, "first")?.split_off(before);
            Ok((!late.is_empty()).then_some(late))
        })
        .await?;
        assert!(late.iter().all(|event| code(event) == 409), "{:#?}", told(&late));
        first.goes_on_and_ends().await?;
        assert!(holder(&place).await?.starts_with("second_"));
        Ok(())
    });
}

// A leader whose renewals get no answer must have ended before anybody else may lead.
#[test]
fn a_leader_that_cannot_renew_ends_before_another_one_leads() {
    in_namespace("no-renewal", async |place| {
        let first = Replica::start(&place, "first").await?;
        leads(&place, "first").await?;
        let second = Replica::start(&place, "second").await?;
        let mut gate = first.gate("update leases.coordination.k8s.io", Stage::Arrived)?;
        let held = reached(&mut gate).await?;
        let begun = Instant::now();
        let end = first.process.end().await?;
        assert_eq!(end.code(), Some(1));
        assert!(holder(&place).await?.starts_with("first_"), "nobody else leads yet");
        println!("ended {:?} after the first renewal without an answer", begun.elapsed());
        drop(held);
        leads(&place, "second").await?;
        println!("another one led after {:?}", begun.elapsed());
        drop(second);
        Ok(())
    });
}

// What was sent before the lease ended may arrive after it: nobody can call it back. It must hit only the object that it
// was meant for, be noticed, and be mended with one write.
#[test]
fn a_write_that_arrives_late_is_mended() {
    in_namespace("late-write", async |place| {
        let first = Replica::start(&place, "first").await?;
        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        place.settled().await?;
        let (second, hit) = lost_with_a_write_on_its_way(&place, &first).await?;
        change(&place, "ttp:v3").await?;
        has_image(&place, "ttp:v3").await?;
        place.settled().await?;
        let before = (writes(&place, "first")?.len(), of_deployment(&place, "second")?.len());

        hit.release();
        let late = wait::until("the late write has arrived", LIMIT, async || {
            let late = writes(&place, "first")?.split_off(before.0);
            Ok((!late.is_empty()).then_some(late))
        })
        .await?;
        assert_eq!(late.iter().map(code).collect::<Vec<_>>(), [200], "{:#?}", told(&late));
        has_image(&place, "ttp:v3").await?;
        place.settled().await?;
        let mended = of_deployment(&place, "second")?.split_off(before.1);
        assert_eq!(mended.len(), 1, "{:#?}", told(&mended));
        first.goes_on_and_ends().await?;
        drop(second);
        Ok(())
    });
}

// The same, but the object was deleted and made again meanwhile: its successor's children must not be touched.
#[test]
fn a_write_that_arrives_late_does_not_touch_a_successor() {
    in_namespace("late-successor", async |place| {
        let first = Replica::start(&place, "first").await?;
        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        place.settled().await?;
        let (second, hit) = lost_with_a_write_on_its_way(&place, &first).await?;
        place.delete::<ExternalProcessor>("ttp").await?;
        wait::until("its children are gone", LIMIT, async || {
            Ok(place.children().await?.is_empty().then_some(()))
        })
        .await?;
        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        place.settled().await?;
        let (before, successor) = (writes(&place, "first")?.len(), version(&place).await?);

        hit.release();
        let late = wait::until("the late write has arrived", LIMIT, async || {
            let late = writes(&place, "first")?.split_off(before);
            Ok((!late.is_empty()).then_some(late))
        })
        .await?;
        assert!(
            late.iter().all(|event| matches!(code(event), 409 | 422)),
            "{:#?}",
            told(&late)
        );
        assert_eq!(version(&place).await?, successor);
        first.goes_on_and_ends().await?;
        drop(second);
        Ok(())
    });
}

/// The first replica stands still with the write of a second image on its way, and a second one leads and has done it.
async fn lost_with_a_write_on_its_way(place: &Place, first: &Replica) -> Result<(Replica, Hit), Error> {
    let mut gate = first.gate("apply deployments.apps ttp-processor", Stage::Arrived)?;
    change(place, "ttp:v2").await?;
    let hit = reached(&mut gate).await?;
    first.process.signal(Signal::SIGSTOP)?;
    drop(gate);
    let second = Replica::start(place, "second").await?;
    leads(place, "second").await?;
    has_image(place, "ttp:v2").await?;
    Ok((second, hit))
}

async fn change(place: &Place, image: &str) -> TestResult {
    place
        .merge::<ExternalProcessor>("ttp", json!({"spec": {"workload": {"image": image}}}))
        .await
}

async fn has_image(place: &Place, image: &str) -> TestResult {
    wait::until_explained(&format!("the Deployment has {image}"), LIMIT, async || {
        let found = image_of(&place.get::<Deployment>("ttp-processor").await?).unwrap_or_default();
        Ok(if found == image { Ok(()) } else { Err(found) })
    })
    .await
}

fn of_deployment(place: &Place, name: &str) -> Result<Vec<audit::Event>, Error> {
    let mut all = writes(place, name)?;
    all.retain(|event| resource(event) == "deployments");
    Ok(all)
}

/// Which Deployment it is, and how often its spec changed.
async fn version(place: &Place) -> Result<(Option<String>, Option<i64>), Error> {
    let live: Deployment = place.get("ttp-processor").await?;
    Ok((live.uid(), live.metadata.generation))
}

// A roll-out of the operator must not leave the objects alone for longer than a moment.
#[test]
fn a_leader_that_is_asked_to_end_hands_over_within_two_seconds() {
    in_namespace("hand-over", async |place| {
        let first = Replica::start(&place, "first").await?;
        leads(&place, "first").await?;
        let second = Replica::start(&place, "second").await?;
        wait::until("the second one looks at the lease", LIMIT, async || {
            let seen = second.proxy.seen();
            let looks = seen
                .iter()
                .filter(|seen| seen.signature.to_string().starts_with("get leases"));
            Ok((looks.count() > 1).then_some(()))
        })
        .await?;
        let begun = Instant::now();
        first.process.signal(Signal::SIGTERM)?;
        leads(&place, "second").await?;
        let took = begun.elapsed();
        println!("handed over after {took:?}");
        // Far less than the fifteen seconds of a lease that nobody released, also on a busy machine.
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!(first.process.end().await?.code(), Some(0));
        Ok(())
    });
}

// Clocks of machines differ: a lease whose times are an hour wrong must be taken neither at once nor after that hour.
#[test]
fn a_lease_of_another_clock_is_judged_by_whether_it_moves() {
    in_namespace("behind", async |place| {
        wrong_clock(&place, SignedDuration::from_hours(-1)).await
    });
}

#[test]
fn a_lease_of_a_clock_ahead_is_judged_by_whether_it_moves() {
    in_namespace("ahead", async |place| {
        wrong_clock(&place, SignedDuration::from_hours(1)).await
    });
}

async fn wrong_clock(place: &Place, wrong: SignedDuration) -> TestResult {
    let mut lease = Lease {
        metadata: ObjectMeta {
            name: Some("flowctl-operator".to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some("other_1".to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::now() + wrong)),
            ..LeaseSpec::default()
        }),
    };
    let leases = place.api::<Lease>();
    lease = leases
        .create(&PostParams::default(), &lease)
        .await
        .map_err(Error::kube("make a lease"))?;
    let election = Election {
        namespace: place.namespace.clone(),
        name: "flowctl-operator".to_owned(),
        identity: "ours_1".to_owned(),
    };
    let options = Options {
        election: Some(election),
        ..place.options()
    };
    let operator = place.operator_with(options, settings()).await?;
    // It is renewed by another one for longer than it counts.
    for _ in 0..7 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        if let Some(spec) = &mut lease.spec {
            spec.renew_time = Some(MicroTime(Timestamp::now() + wrong));
        }
        // Refused if it was taken.
        lease = leases
            .replace("flowctl-operator", &PostParams::default(), &lease)
            .await
            .map_err(Error::kube("renew the lease"))?;
    }
    let silent = Instant::now();
    leads_as(place, "ours_1").await?;
    let took = silent.elapsed();
    println!("taken {took:?} after its last renewal");
    assert!(
        took > Duration::from_secs(13) && took < Duration::from_secs(20),
        "{took:?}"
    );
    operator.stop().await
}

async fn leads_as(place: &Place, identity: &str) -> TestResult {
    wait::until_explained(&format!("{identity} leads"), LIMIT, async || {
        let holder = holder(place).await?;
        Ok(if holder == identity { Ok(()) } else { Err(holder) })
    })
    .await
}
