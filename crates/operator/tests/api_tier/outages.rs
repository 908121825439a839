//! An apiserver that is killed, and one that hangs: on clusters of their own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use flowctl_api::ExternalProcessor;
use flowctl_operator::Options;
use flowctl_testkit::{Error, Tier, audit, tier, wait};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use crate::{
    objects::{payments, quiet},
    probes::{ask, free_address, readiness},
    support::{LIMIT, Place, TestResult, settings},
    world::{World, definitions},
};

async fn another_world() -> Result<Arc<World>, Error> {
    let directory = tempfile::tempdir().map_err(Error::io("make a directory"))?;
    World::with(definitions(&directory)?).await.map(Arc::new)
}

async fn replicas(place: &Place, replicas: i32) -> TestResult {
    let patch = json!({"spec": {"workload": {"replicas": replicas}}});
    place.merge::<ExternalProcessor>("ttp", patch).await
}

async fn acted_on(place: &Place, replicas: i32, within: Duration) -> TestResult {
    wait::until("the Deployment wants as many", within, async || {
        let live: Deployment = place.get("ttp-processor").await?;
        Ok((live.spec.and_then(|spec| spec.replicas) == Some(replicas)).then_some(()))
    })
    .await
}

async fn generation(place: &Place) -> Result<Option<i64>, Error> {
    Ok(place.get::<Deployment>("ttp-processor").await?.metadata.generation)
}

/// Lists that the operator sent so far.
fn lists(place: &Place) -> Result<usize, Error> {
    let all = audit::read(place.world.cluster.audit_log_path()?)?;
    let user = place.user();
    Ok(all
        .iter()
        .filter(|event| event.verb == "list" && event.effective_user() == user)
        .count())
}

// An apiserver that is replaced must find the operator at work again in seconds, without everything being listed again
// and again, and without a write that nothing asked for.
#[tokio::test(flavor = "multi_thread")]
async fn an_apiserver_that_is_killed_and_comes_back_is_followed_again() -> TestResult {
    if tier::require(Tier::Api).is_none() {
        return Ok(());
    }
    let place = Place::new(another_world().await?, "restart").await?;
    let operator = place.operator().await?;
    payments(&place).await?;
    replicas(&place, 2).await?;
    acted_on(&place, 2, LIMIT).await?;
    place.settled().await?;
    let (listed, written) = (lists(&place)?, place.child_writes()?.len());
    place.world.cluster.replace_apiserver(async { Ok(()) }).await?;
    let begun = Instant::now();
    replicas(&place, 3).await?;
    acted_on(&place, 3, Duration::from_secs(30)).await?;
    println!("after a restart of the apiserver: acted on after {:?}", begun.elapsed());
    place.ready::<ExternalProcessor>("ttp").await?;
    place.settled().await?;
    let listed = lists(&place)? - listed;
    println!("{listed} lists");
    assert!(listed <= 20, "{listed} lists of 10 kinds");
    assert_eq!(
        place.child_writes()?.split_off(written),
        ["patch deployments ttp-processor"]
    );
    quiet(&place).await?;
    operator.stop().await
}

// An apiserver that takes connections and answers nothing must not take the operator with it, must be told, and must find
// it at work when it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_apiserver_that_hangs_is_told_and_outlived() -> TestResult {
    if tier::require(Tier::Api).is_none() {
        return Ok(());
    }
    let place = Place::new(another_world().await?, "hangs").await?;
    let address = free_address().await?;
    let options = Options {
        admin: Some(address),
        ..place.options()
    };
    let operator = place.operator_with(options, settings()).await?;
    payments(&place).await?;
    replicas(&place, 2).await?;
    acted_on(&place, 2, LIMIT).await?;
    place.settled().await?;
    readiness(address, "200 OK").await?;
    let (written, before) = (place.child_writes()?.len(), generation(&place).await?);

    // A pass is on its way, or will be when its event comes.
    replicas(&place, 3).await?;
    place.world.cluster.freeze_apiserver(true)?;
    let begun = Instant::now();
    let told = wait::until("/readyz tells it", Duration::from_secs(120), async || {
        let answer = ask(address, "/readyz").await.map_err(Error::io("ask"))?;
        Ok(answer.contains("not heard of").then_some(answer))
    });
    let told = told.await;
    let took = begun.elapsed();
    let alive = ask(address, "/livez").await;
    place.world.cluster.freeze_apiserver(false)?;
    println!("told after {took:?}: {}", told?.lines().last().unwrap_or_default());
    assert!(alive.map_err(Error::io("ask"))?.contains("200 OK"));

    let begun = Instant::now();
    acted_on(&place, 3, LIMIT).await?;
    readiness(address, "200 OK").await?;
    println!("at work again after {:?}", begun.elapsed());
    place.ready::<ExternalProcessor>("ttp").await?;
    place.settled_for(Duration::from_secs(12)).await?;
    let writes = place.child_writes()?.split_off(written);
    // What had no answer was sent again, with patience; the apiserver did all of it when it went on, and once is enough.
    assert!(writes.len() <= 6, "{writes:?}");
    assert!(
        writes.iter().all(|write| write == "patch deployments ttp-processor"),
        "{writes:?}"
    );
    assert_eq!(generation(&place).await?, before.map(|before| before + 1));
    quiet(&place).await?;
    operator.stop().await
}
