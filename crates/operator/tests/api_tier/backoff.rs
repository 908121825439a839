//! What the operator does not ask of the apiserver: what was refused just now, and more at a time than it may.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use flowctl_api::ExternalProcessor;
use flowctl_faults::{Action, Pattern, PatternError, Proxy, Rule};
use flowctl_operator::{
    Options,
    rbac::{Scope, rules},
    run,
};
use flowctl_runtime::Shutdown;
use flowctl_testkit::{Error, audit, wait};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    objects::processor,
    support::{LIMIT, Operator, Place, TestResult, in_namespace, settings},
};

/// The operator's rules, with or without those to make and change Deployments.
async fn may_write_deployments(place: &Place, may: bool) -> TestResult {
    let mut all = json!(rules(Scope::Objects));
    if let Some(all) = all.as_array_mut().filter(|_| !may) {
        for rule in all.iter_mut() {
            if let Some(resources) = rule["resources"].as_array_mut() {
                resources.retain(|resource| resource != "deployments");
            }
        }
        all.retain(|rule| rule["resources"] != Value::Array(Vec::new()));
        all.push(json!({"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch"]}));
    }
    let group = "rbac.authorization.k8s.io";
    let name = format!("{}-objects", place.namespace);
    let role = json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": name}, "rules": all});
    place.apply(role).await.map(drop)
}

fn attempts(place: &Place) -> Result<usize, Error> {
    let refused = place.forbidden()?;
    Ok(refused
        .iter()
        .filter(|request| request.contains("/deployments/"))
        .count())
}

/// Something happens to the processor's pod, again and again, for this long.
async fn noise(place: &Place, lasts: Duration) -> TestResult {
    let pods: Vec<Pod> = place.list().await?;
    let pod = pods.first().map(Pod::name_any).unwrap_or_default();
    let begun = Instant::now();
    let mut number = 0;
    wait::until("the time is over", LIMIT, async || {
        number += 1;
        let change = json!({"metadata": {"annotations": {"test/noise": number.to_string()}}});
        place.merge::<Pod>(&pod, change).await?;
        Ok((begun.elapsed() > lasts).then_some(()))
    })
    .await
}

// A roll-out that is forbidden while pods come and go would be asked for with each of their steps: a storm from every
// object at once on the day on which somebody breaks a Role.
#[test]
fn what_is_refused_is_not_asked_for_with_every_event() {
    in_namespace("refused", async |place| {
        let operator = place.operator().await?;
        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        place.settled().await?;
        may_write_deployments(&place, false).await?;
        let image = json!({"spec": {"workload": {"image": "ttp:v2"}}});
        place.merge::<ExternalProcessor>("ttp", image).await?;
        place
            .condition::<ExternalProcessor>("ttp", "Available", "False", "ApplyFailed")
            .await?;
        noise(&place, Duration::from_secs(16)).await?;
        let first = attempts(&place)?;
        println!("{first} attempts in the first 16 s");
        // At 0, 1, 2, 4, 8 and 16 s, and one that was on its way.
        assert!((2..=7).contains(&first), "{first} attempts");

        operator.kill().await;
        let operator = place.operator().await?;
        noise(&place, Duration::from_secs(8)).await?;
        let second = attempts(&place)? - first;
        println!("{second} attempts of a new operator in 8 s");
        // It looks once; after that, it knows from the status for how long this has been so.
        assert!((1..=2).contains(&second), "{second} attempts");

        // Repaired, it is noticed by itself.
        may_write_deployments(&place, true).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        operator.stop().await
    });
}

/// The most writes to children that the apiserver got within a second.
fn most_in_a_second(place: &Place) -> Result<usize, Error> {
    let of_children = |event: &&audit::Event| {
        let group = event.object_ref.as_ref().map(|object| object.api_group.as_str());
        !matches!(group, None | Some("flowctl.dev" | "events.k8s.io"))
    };
    let writes = place.writes()?;
    let mut times: Vec<_> = writes
        .iter()
        .filter(of_children)
        .map(|event| event.received.0)
        .collect();
    times.sort_unstable();
    let until = |begin: Timestamp| begin.saturating_add(SignedDuration::from_secs(1)).unwrap_or(begin);
    let from = |(index, begin): (usize, &Timestamp)| times[index..].partition_point(|time| *time < until(*begin));
    Ok(times.iter().enumerate().map(from).max().unwrap_or_default())
}

// An operator that takes everything on at once after its start leaves no room for anybody else at the apiserver.
#[test]
fn no_more_is_done_at_once_than_was_set() {
    in_namespace("bounded", async |place| {
        for number in 0..6 {
            place.apply(processor(&format!("ttp{number}"), "Processor")).await?;
        }
        let proxy = Proxy::start(place.config().await?).await?;
        // A quarter of a second for each write: two workers send eight in a second, and no more however fast they are.
        let every: Pattern = "write *"
            .parse()
            .map_err(|error: PatternError| Error::impossible(error.to_string()))?;
        proxy.arm([Rule::always(every, Action::Delay(250))]);
        let options = Options {
            concurrency: 2,
            ..place.options()
        };
        let shutdown = Shutdown::new();
        let config = proxy.config()?;
        let running = AbortOnDropHandle::new(tokio::spawn(run(config, options, settings(), shutdown.clone())));
        wait::until("every child is written", LIMIT, async || {
            // A revision, two Services and a Deployment each.
            Ok((place.child_writes()?.len() >= 6 * 4).then_some(()))
        })
        .await?;
        let most = most_in_a_second(&place)?;
        println!("at most {most} writes in a second");
        assert!(most <= 10, "{most} in a second");
        shutdown.request();
        let end = running.await.map_err(|error| Error::impossible(error.to_string()))?;
        end.map_err(|error| Error::impossible(error.to_string()))
    });
}

/// Objects whose writes hang: more than there are workers.
const STUCK: usize = 6;

// Behind one tenant's webhook that does not answer every worker would wait, again with every event, and all others' roll-outs
// with them.
#[test]
fn those_whose_writes_hang_hold_up_nobody_else() {
    in_namespace("hanging", async |place| {
        let proxy = Proxy::start(place.config().await?).await?;
        let writes: Pattern = "write * stuck*-*"
            .parse()
            .map_err(|error: PatternError| Error::impossible(error.to_string()))?;
        proxy.arm([Rule::always(writes, Action::Hang)]);
        let operator = Operator::start(proxy.config()?, place.options(), settings());
        for number in 0..STUCK {
            place.apply(processor(&format!("stuck{number}"), "Processor")).await?;
        }
        let mut number = 0;
        let mut touch = async || {
            number += 1;
            let change = json!({"metadata": {"annotations": {"test/noise": number.to_string()}}});
            for stuck in 0..STUCK {
                place
                    .merge::<ExternalProcessor>(&format!("stuck{stuck}"), change.clone())
                    .await?;
            }
            Ok::<_, Error>(())
        };
        // Every one of them once, and then some again.
        wait::until("all of them were tried", LIMIT, async || {
            touch().await?;
            Ok((proxy.struck().iter().sum::<u32>() as usize > STUCK + 2).then_some(()))
        })
        .await?;
        place.apply(processor("free", "Processor")).await?;
        let begun = Instant::now();
        wait::until("somebody else's object is ready", LIMIT, async || {
            touch().await?;
            let status = place.get::<ExternalProcessor>("free").await?.status;
            let ready = |condition: &Condition| condition.type_ == "Ready" && condition.status == "True";
            let conditions = status.map(|status| status.conditions).unwrap_or_default();
            Ok(conditions.iter().any(ready).then_some(()))
        })
        .await?;
        println!("ready after {} ms", begun.elapsed().as_millis());
        assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
        proxy.disarm();
        for stuck in 0..STUCK {
            place.ready::<ExternalProcessor>(&format!("stuck{stuck}")).await?;
        }
        operator.stop().await
    });
}

/// How many writes beyond its rate the operator was ahead at most, counted from any of its writes.
fn most_ahead(times: &[Timestamp], per_second: f64) -> f64 {
    let ahead = |begin: &Timestamp, count: usize, at: &Timestamp| {
        count as f64 - per_second * at.duration_since(*begin).as_secs_f64()
    };
    let from = times.iter().enumerate();
    from.flat_map(|(index, begin)| {
        (1..)
            .zip(&times[index..])
            .map(move |(count, at)| ahead(begin, count, at))
    })
    .fold(0.0, f64::max)
}

// Whoever gives the operator a number of writes has an apiserver that cannot take more.
#[test]
fn no_more_is_written_in_a_second_than_was_set() {
    const PER_SECOND: u32 = 8;
    const OBJECTS: usize = 20;
    in_namespace("limited", async |place| {
        for number in 0..OBJECTS {
            place.apply(processor(&format!("ttp{number}"), "Processor")).await?;
        }
        let options = Options {
            writes_per_second: NonZeroU32::new(PER_SECOND),
            ..place.options()
        };
        let operator = place.operator_with(options, settings()).await?;
        for number in 0..OBJECTS {
            place.ready::<ExternalProcessor>(&format!("ttp{number}")).await?;
        }
        place.settled().await?;
        let mut times: Vec<_> = place
            .writes()?
            .iter()
            .filter(|event| {
                event
                    .object_ref
                    .as_ref()
                    .is_some_and(|object| object.api_group != "events.k8s.io")
            })
            .map(|event| event.received.0)
            .collect();
        times.sort_unstable();
        let rate = f64::from(PER_SECOND);
        let ahead = most_ahead(&times, rate);
        println!(
            "{} writes, at most {ahead:.0} ahead of {PER_SECOND} in a second",
            times.len()
        );
        // Four seconds' worth at once, and what four passes still write that have begun.
        assert!(ahead <= 4.0 * rate + 4.0 * 7.0, "{ahead}");
        assert!(times.len() > 100, "{}: too few to tell", times.len());
        operator.stop().await
    });
}
