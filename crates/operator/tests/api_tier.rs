//! The operator against a real apiserver with real controllers and garbage collection, counted in the audit log.

mod support;

use std::{collections::BTreeSet, time::Duration};

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_testkit::{Error, wait};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    coordination::v1::Lease,
    core::v1::{ConfigMap, Service},
};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use support::{LIMIT, Place, Process, TestResult, in_namespace, pipeline, processor};

/// Nothing may be written for this long.
const QUIET: Duration = Duration::from_secs(20);

/// A Pipeline with its two processors, Ready.
async fn payments(place: &Place) -> TestResult {
    place.apply(processor("ttp", "Processor")).await?;
    place.apply(processor("sink", "Consumer")).await?;
    place.apply(pipeline("payments")).await?;
    place.ready::<Pipeline>("payments").await?;
    place.ready::<ExternalProcessor>("ttp").await?;
    place.ready::<ExternalProcessor>("sink").await?;
    Ok(())
}

async fn quiet(place: &Place) -> TestResult {
    let before = place.writes()?.len();
    tokio::time::sleep(QUIET).await;
    let new = place.writes()?.split_off(before);
    let told: Vec<String> = new
        .iter()
        .map(|event| format!("{} {}", event.verb, event.uri))
        .collect();
    assert!(told.is_empty(), "written while converged: {told:#?}");
    Ok(())
}

fn nothing_was_forbidden(place: &Place) -> TestResult {
    assert_eq!(place.forbidden()?, Vec::<String>::new());
    Ok(())
}

async fn deployment_version(place: &Place, name: &str) -> Result<Option<i64>, Error> {
    Ok(place.get::<Deployment>(name).await?.metadata.generation)
}

/// The wired file of the revision that the Pipeline's Deployment runs.
async fn file(place: &Place, name: &str) -> Result<String, Error> {
    let status = place.ready::<Pipeline>(name).await?;
    let revision = status.revision.unwrap_or_default().current;
    let config: ConfigMap = place.get(&format!("{name}-{revision}")).await?;
    Ok(config
        .data
        .unwrap_or_default()
        .remove("pipeline.yaml")
        .unwrap_or_default())
}

// A user who applies a Pipeline and its processors gets them running and wired, with few writes, and then the
// apiserver is left alone, also by a restarted operator.
#[test]
fn a_pipeline_becomes_ready_and_then_nothing_is_written() {
    in_namespace("converge", async |place| {
        let operator = place.operator().await?;
        payments(&place).await?;
        for (name, writes) in place.writes_by_object()? {
            println!("{} writes for {name} until Ready: {writes:?}", writes.len());
            assert!(writes.len() <= 9, "{} writes for {name}", writes.len());
        }
        let wired = file(&place, "payments").await?;
        for endpoint in ["ttp-processor-pods.converge.svc", "sink-processor-pods.converge.svc"] {
            assert!(wired.contains(endpoint), "{wired}");
        }
        place.settled().await?;
        quiet(&place).await?;
        operator.stop().await?;

        let operator = place.operator().await?;
        quiet(&place).await?;
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

// A missing processor must not start half a pipeline, and its appearance must be enough.
#[test]
fn a_missing_processor_is_named_and_waited_for() {
    in_namespace("missing", async |place| {
        let operator = place.operator().await?;
        place.apply(processor("sink", "Consumer")).await?;
        place.apply(pipeline("payments")).await?;
        let reason = "ProcessorNotFoundOrNotGranted";
        let status = place
            .condition::<Pipeline>("payments", "ResolvedRefs", "False", reason)
            .await?;
        assert!(status.why.contains("ttp"), "{}", status.why);
        place.ready::<ExternalProcessor>("sink").await?;
        assert!(
            place
                .api::<Deployment>()
                .get_opt("payments-pipeline")
                .await
                .map_err(Error::kube("read"))?
                .is_none()
        );

        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<Pipeline>("payments").await?;
        let used = wait::until("the processors know who uses them", LIMIT, async || {
            let ttp: ExternalProcessor = place.get("ttp").await?;
            Ok(ttp.status.and_then(|status| status.used_by).filter(|used| *used == 1))
        });
        used.await?;
        operator.stop().await
    });
}

// Only what a pipeline sees of a processor may restart it: the endpoint, not the image. A change of its own config is one
// roll-out, and the way back is the old revision.
#[test]
fn a_pipeline_restarts_for_its_wiring_and_its_config_only() {
    in_namespace("rollouts", async |place| {
        let operator = place.operator().await?;
        payments(&place).await?;
        place.settled().await?;
        let generation = deployment_version(&place, "payments-pipeline").await?;
        let first = place
            .ready::<Pipeline>("payments")
            .await?
            .revision
            .unwrap_or_default()
            .current;

        place
            .merge::<ExternalProcessor>("ttp", json!({"spec": {"workload": {"image": "ttp:v2"}}}))
            .await?;
        wait::until("the processor's Deployment has the new image", LIMIT, async || {
            let image = image_of(&place.get::<Deployment>("ttp-processor").await?);
            Ok((image.as_deref() == Some("ttp:v2")).then_some(()))
        })
        .await?;
        place.settled().await?;
        assert_eq!(deployment_version(&place, "payments-pipeline").await?, generation);

        place
            .merge::<ExternalProcessor>("ttp", json!({"spec": {"port": 50052}}))
            .await?;
        let second = another_revision(&place, &first).await?;
        assert!(file(&place, "payments").await?.contains(":50052"));
        place.settled().await?;

        let sets_before = replica_sets(&place).await?;
        place.apply(with_network("testnet")).await?;
        let third = another_revision(&place, &second).await?;
        place.settled().await?;
        let sets_after = replica_sets(&place).await?;
        assert_eq!(
            sets_after.difference(&sets_before).count(),
            1,
            "one roll-out: {sets_after:?}"
        );

        place.apply(with_network("pubnet")).await?;
        assert_eq!(
            another_revision(&place, &third).await?,
            second,
            "the old content is the old revision"
        );
        place.settled().await?;
        assert_eq!(
            replica_sets(&place).await?,
            sets_after,
            "the old revision is the old ReplicaSet"
        );
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

fn with_network(network: &str) -> Value {
    let mut changed = pipeline("payments");
    changed["spec"]["processors"][0]["config"]["network"] = json!(network);
    changed
}

fn image_of(deployment: &Deployment) -> Option<String> {
    deployment
        .spec
        .as_ref()?
        .template
        .spec
        .as_ref()?
        .containers
        .first()?
        .image
        .clone()
}

async fn replica_sets(place: &Place) -> Result<BTreeSet<String>, Error> {
    let all: Vec<ReplicaSet> = place.list().await?;
    Ok(all
        .iter()
        .map(ReplicaSet::name_any)
        .filter(|name| name.starts_with("payments-"))
        .collect())
}

async fn another_revision(place: &Place, before: &str) -> Result<String, Error> {
    wait::until("another revision is Ready", LIMIT, async || {
        let revision = place
            .ready::<Pipeline>("payments")
            .await?
            .revision
            .unwrap_or_default()
            .current;
        Ok((revision != before).then_some(revision))
    })
    .await
}

// Taking over somebody else's Service would hand it to garbage collection.
#[test]
fn a_foreign_service_is_left_alone_and_its_owner_named() {
    in_namespace("foreign", async |place| {
        let foreign = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "ttp-processor"},
            "spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}},
        });
        place.apply(foreign).await?;
        let before: Service = place.get("ttp-processor").await?;
        let operator = place.operator().await?;
        place.apply(processor("ttp", "Processor")).await?;
        let status = place
            .condition::<ExternalProcessor>("ttp", "Available", "False", "NameConflict")
            .await?;
        assert!(
            status.why.contains("ttp-processor") && status.why.contains("a-user"),
            "{}",
            status.why
        );
        place.settled().await?;
        assert_eq!(place.get::<Service>("ttp-processor").await?, before);

        place.delete::<Service>("ttp-processor").await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        operator.stop().await
    });
}

// Whoever deletes a Pipeline expects nothing to be left, whether the operator runs or not.
#[test]
fn deleting_leaves_nothing_with_and_without_an_operator() {
    in_namespace("deleted", async |place| {
        let operator = place.operator().await?;
        payments(&place).await?;
        place.settled().await?;
        place.delete::<Pipeline>("payments").await?;
        place.delete::<ExternalProcessor>("ttp").await?;
        wait::until_explained("only the consumer is left", LIMIT, async || {
            let left = place.children().await?;
            let others = left.values().flatten().filter(|name| !name.contains("/sink-")).count();
            Ok(if others == 0 { Ok(()) } else { Err(format!("{left:?}")) })
        })
        .await?;
        operator.stop().await?;
        place.delete::<ExternalProcessor>("sink").await?;
        wait::until_explained("nothing is left", LIMIT, async || {
            let left = place.children().await?;
            Ok(if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            })
        })
        .await
    });
}

// A namesake that is made at once must get children of its own, not those that are being collected.
#[test]
fn an_object_made_again_at_once_gets_its_own_children() {
    in_namespace("again", async |place| {
        let operator = place.operator().await?;
        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        place.delete::<ExternalProcessor>("ttp").await?;
        place.apply(processor("ttp", "Processor")).await?;
        let uid = place.get::<ExternalProcessor>("ttp").await?.uid();
        place.ready::<ExternalProcessor>("ttp").await?;
        let mut owners = Vec::new();
        for service in place.list::<Service>().await? {
            owners.extend(service.owner_references().iter().map(|owner| Some(owner.uid.clone())));
        }
        assert_eq!(owners, [uid.clone(), uid], "both Services belong to the new object");
        operator.stop().await
    });
}

// An object of a newer version is told what is wrong, and blocks nobody.
#[test]
fn an_object_that_cannot_be_read_says_so_and_blocks_nobody() {
    in_namespace("unreadable", async |place| {
        let operator = place.operator().await?;
        let mut strange = processor("strange", "Oracle");
        strange["metadata"]["labels"] = json!({"kept": "yes"});
        place.apply(strange).await?;
        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        let read = [
            "get",
            "xproc",
            "strange",
            "-n",
            "unreadable",
            "-o",
            "jsonpath={.status}",
        ];
        let status = wait::until("the object is told", LIMIT, async || {
            let text = place.world.cluster.kubectl(&read).await?;
            Ok(text.contains("Accepted").then_some(text))
        })
        .await?;
        assert!(status.contains("Invalid") && status.contains("Oracle"), "{status}");
        place.settled().await?;
        quiet(&place).await?;
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

// What others break is mended within seconds, each with one write, and then there is silence again.
#[test]
fn drift_is_repaired_with_one_write_each() {
    in_namespace("drift", async |place| {
        let operator = place.operator().await?;
        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        place.settled().await?;
        let before = place.child_writes()?.len();

        place
            .merge::<Service>(
                "ttp-processor",
                json!({"spec": {"selector": {"flowctl.dev/name": "other"}}}),
            )
            .await?;
        place.delete::<Service>("ttp-processor-pods").await?;
        wait::until("both Services are as wanted", Duration::from_secs(5), async || {
            let mended = place.get::<Service>("ttp-processor").await?;
            let selector = mended.spec.and_then(|spec| spec.selector).unwrap_or_default();
            let back = place
                .api::<Service>()
                .get_opt("ttp-processor-pods")
                .await
                .map_err(Error::kube("read"))?;
            Ok((selector.get("flowctl.dev/name").is_some_and(|name| name == "ttp") && back.is_some()).then_some(()))
        })
        .await?;
        place.settled().await?;
        let writes = place.child_writes()?.split_off(before);
        assert_eq!(writes.len(), 2, "{writes:?}");
        operator.stop().await
    });
}

// A label that somebody takes away hides a child from our watch: it must be found by name and mended, not made twice.
#[test]
fn a_child_that_lost_its_labels_is_found_and_mended() {
    in_namespace("labels", async |place| {
        let operator = place.operator().await?;
        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        place.settled().await?;
        let uid = place.get::<Deployment>("ttp-processor").await?.uid();
        let without = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}});
        place.merge::<Deployment>("ttp-processor", without).await?;
        wait::until("the label is back", Duration::from_secs(5), async || {
            let mended = place.get::<Deployment>("ttp-processor").await?;
            Ok(mended
                .labels()
                .contains_key("app.kubernetes.io/managed-by")
                .then_some(mended.uid()))
        })
        .await?;
        assert_eq!(place.get::<Deployment>("ttp-processor").await?.uid(), uid);
        place.settled().await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

// An operator that dies anywhere leaves work that the next one ends.
#[test]
fn an_operator_that_is_killed_again_and_again_gets_there() {
    in_namespace("killed", async |place| {
        for object in [
            processor("ttp", "Processor"),
            processor("sink", "Consumer"),
            pipeline("payments"),
        ] {
            place.apply(object).await?;
        }
        for milliseconds in [30, 60, 90, 120, 150, 200, 250, 300] {
            let operator = place.operator().await?;
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            operator.kill().await;
        }
        let operator = place.operator().await?;
        place.ready::<Pipeline>("payments").await?;
        place.settled().await?;
        assert_eq!(replica_sets(&place).await?.len(), 1, "no roll-out too many");
        operator.stop().await
    });
}

async fn holder(place: &Place) -> Result<String, Error> {
    let lease = place
        .api::<Lease>()
        .get_opt("flowctl-operator")
        .await
        .map_err(Error::kube("read the lease"))?;
    Ok(lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default())
}

async fn leads(place: &Place, name: &str) -> TestResult {
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
