//! References: into other namespaces, with and without consent, and who is woken by whom.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use flowctl_api::{ExternalProcessor, Pipeline, Status};
use flowctl_operator::{
    Options,
    rbac::{Scope, rules},
};
use flowctl_plan::Settings;
use flowctl_testkit::{Error, wait};
use k8s_openapi::api::{apps::v1::Deployment, events::v1::Event, rbac::v1::RoleBinding};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::{
    INSTALL,
    objects::{file, nothing_was_forbidden, pipeline, processor},
    probes::{ask, free_address, readiness},
    support::{Install, LIMIT, Operator, Place, Subject, TestResult, in_namespace, settings},
};

const REFUSED: &str = "ProcessorNotFoundOrNotGranted";

/// An operator for two namespaces, or for all, with rights in both.
async fn operator_of_both(place: &Place, other: &Place, admin: Option<SocketAddr>) -> Result<Operator, Error> {
    let namespaces = match INSTALL {
        Install::Roles => vec![place.namespace.clone(), other.namespace.clone()],
        Install::ClusterWide => Vec::new(),
    };
    let settings = Settings {
        watched_namespaces: namespaces.clone(),
        ..settings()
    };
    let options = Options {
        namespaces,
        admin,
        ..place.options()
    };
    place.operator_with(options, settings).await
}

/// A Pipeline that refers to `ttp` of another namespace.
fn pipeline_into(name: &str, namespace: &str) -> Value {
    let mut far = pipeline(name);
    far["spec"]["processors"][1]["processorRef"]["namespace"] = json!(namespace);
    far
}

/// An ExternalProcessor that pulls from `ttp` of another namespace.
fn puller_from(name: &str, namespace: &str) -> Value {
    let mut far = processor("puller", "Processor");
    far["metadata"]["name"] = json!(name);
    far["spec"]["connections"] = json!([{"env": "UPSTREAM", "processorRef": {"name": "ttp", "namespace": namespace}}]);
    far
}

/// What an object says of itself, but for instants and its own name.
async fn says<K: Subject>(place: &Place, name: &str) -> Result<String, Error> {
    let status = place.condition::<K>(name, "ResolvedRefs", "False", REFUSED).await?;
    let mut shown = serde_json::to_value(status).map_err(|error| Error::impossible(error.to_string()))?;
    for condition in shown["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastTransitionTime"].take();
    }
    Ok(shown.to_string().replace(name, "NAME"))
}

/// What was told in events about an object, in order of their words.
async fn events_of(place: &Place, name: &str) -> Result<BTreeSet<String>, Error> {
    let events: Vec<Event> = place.list().await?;
    let about = events
        .into_iter()
        .filter(|event| event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(name));
    Ok(about
        .map(|event| format!("{:?} {:?}: {:?}", event.type_, event.reason, event.note).replace(name, "NAME"))
        .collect())
}

// Whoever may write Pipelines in one namespace could find out, name by name, what runs in all others; and a revoked grant
// that stops what runs would be an outage by somebody else's edit.
#[test]
fn a_processor_of_another_namespace_is_a_secret_until_it_is_granted() {
    in_namespace("asks", async |place| {
        let theirs = Place::new(Arc::clone(&place.world), "owns").await?;
        theirs.allow(&place, json!(rules(Scope::Objects))).await?;
        let operator = operator_of_both(&place, &theirs, None).await?;
        place.apply(processor("sink", "Consumer")).await?;
        place.ready::<ExternalProcessor>("sink").await?;

        // Missing.
        let missing = asked(&place, "qqa", "wwa").await?;
        let versions = versions(&place).await?;
        let written = (place.writes_for("qqa")?, place.writes_for("wwa")?);

        // There, but not granted: not even a write tells it.
        theirs.apply(processor("ttp", "Processor")).await?;
        theirs.ready::<ExternalProcessor>("ttp").await?;
        place.settled().await?;
        assert_eq!(
            self::versions(&place).await?,
            versions,
            "touched when a secret appeared"
        );
        assert_eq!(asked(&place, "qqb", "wwb").await?, missing);
        assert_eq!((place.writes_for("qqb")?, place.writes_for("wwb")?), written);
        assert_eq!(events_of(&place, "qqb").await?, events_of(&place, "qqa").await?);
        let ttp: ExternalProcessor = theirs.get("ttp").await?;
        assert_eq!(ttp.status.and_then(|status| status.used_by), Some(0), "nobody uses it");

        granted_and_revoked(&place, &theirs).await?;
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}

/// What a Pipeline and an ExternalProcessor that refer to the other namespace are told.
async fn asked(place: &Place, pipeline: &str, puller: &str) -> Result<(String, String), Error> {
    place.apply(pipeline_into(pipeline, "owns")).await?;
    place.apply(puller_from(puller, "owns")).await?;
    says::<Pipeline>(place, pipeline).await?;
    says::<ExternalProcessor>(place, puller).await?;
    place.settled().await?;
    Ok((
        says::<Pipeline>(place, pipeline).await?,
        says::<ExternalProcessor>(place, puller).await?,
    ))
}

async fn versions(place: &Place) -> Result<[Option<String>; 2], Error> {
    Ok([
        place.get::<Pipeline>("qqa").await?.resource_version(),
        place.get::<ExternalProcessor>("wwa").await?.resource_version(),
    ])
}

async fn granted_and_revoked(place: &Place, theirs: &Place) -> TestResult {
    let grant = async |names: Value| {
        let grant = json!({"spec": {"allowedNamespaces": {"names": names}}});
        theirs.merge::<ExternalProcessor>("ttp", grant).await
    };
    grant(json!(["asks"])).await?;
    place.ready::<Pipeline>("qqa").await?;
    place.ready::<Pipeline>("qqb").await?;
    place.ready::<ExternalProcessor>("wwa").await?;
    let wired = file(place, "qqa").await?;
    assert!(wired.contains("ttp-processor-pods.owns.svc"), "{wired}");
    let told = wait::until("the owner sees who uses it", LIMIT, async || {
        let ttp: ExternalProcessor = theirs.get("ttp").await?;
        Ok(ttp.status.and_then(|status| status.used_by).filter(|used| *used == 4))
    });
    told.await?;
    let running: Deployment = place.get("qqa-pipeline").await?;
    let revision = revision(&place.ready::<Pipeline>("qqa").await?);

    grant(json!(["others"])).await?;
    let status = place
        .condition::<Pipeline>("qqa", "ResolvedRefs", "False", REFUSED)
        .await?;
    assert!(
        status.why.contains("does not exist or does not grant"),
        "{}",
        status.why
    );
    let available = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Available");
    assert_eq!(
        available.map(|condition| condition.status.as_str()),
        Some("True"),
        "it serves on"
    );
    // What is new is refused, of the running one too.
    place
        .merge::<Pipeline>("qqa", json!({"spec": {"restartedAt": "now"}}))
        .await?;
    place.apply(pipeline_into("newcomer", "owns")).await?;
    place
        .condition::<Pipeline>("qqa", "ResolvedRefs", "False", REFUSED)
        .await?;
    place
        .condition::<Pipeline>("newcomer", "ResolvedRefs", "False", REFUSED)
        .await?;
    place.settled().await?;
    let held: Deployment = place.get("qqa-pipeline").await?;
    assert_eq!(
        held.metadata.generation, running.metadata.generation,
        "what runs is held"
    );
    let started = place.api::<Deployment>().get_opt("newcomer-pipeline").await;
    assert!(started.map_err(Error::kube("read"))?.is_none());

    grant(json!(["asks"])).await?;
    place.ready::<Pipeline>("newcomer").await?;
    let again = place.ready::<Pipeline>("qqa").await?;
    assert_ne!(self::revision(&again), revision, "what was held back is rolled out");
    Ok(())
}

fn revision(status: &Status) -> String {
    status
        .revision
        .as_ref()
        .map(|revision| revision.current.clone())
        .unwrap_or_default()
}

/// Passes over Pipelines so far.
async fn passes(address: SocketAddr) -> Result<u64, Error> {
    let metrics = ask(address, "/metrics").await.map_err(Error::io("ask for metrics"))?;
    let ours = metrics
        .lines()
        .filter(|line| line.starts_with("flowctl_operator_reconciles_total{kind=\"Pipeline\""));
    Ok(ours
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum())
}

// One processor that moves must not cost a pass over every Pipeline of the cluster, and must reach each that uses it.
#[test]
fn a_change_of_a_processor_reaches_those_that_use_it_and_nobody_else() {
    in_namespace("wakes", async |place| {
        let address = free_address().await?;
        let options = Options {
            admin: Some(address),
            ..place.options()
        };
        let operator = place.operator_with(options, settings()).await?;
        for (name, role) in [
            ("ttp", "Processor"),
            ("other", "Processor"),
            ("unused", "Processor"),
            ("sink", "Consumer"),
        ] {
            place.apply(processor(name, role)).await?;
        }
        let names = ["one", "two", "elsewhere", "alone"];
        for name in names {
            let mut object = pipeline(name);
            match name {
                "elsewhere" => object["spec"]["processors"][1]["processorRef"]["name"] = json!("other"),
                "alone" => {
                    object["spec"]["processors"] = json!([]);
                    object["spec"]["consumers"] = json!([{"type": "StdoutConsumer"}]);
                }
                _ => {}
            }
            place.apply(object).await?;
        }
        for name in names {
            place.ready::<Pipeline>(name).await?;
        }
        place.ready::<ExternalProcessor>("unused").await?;
        place.settled().await?;
        readiness(address, "200 OK").await?;

        let before = passes(address).await?;
        assert!(before > 0, "no passes were counted");
        let moved = json!({"spec": {"port": 50052}});
        place.merge::<ExternalProcessor>("unused", moved.clone()).await?;
        place.ready::<ExternalProcessor>("unused").await?;
        place.settled().await?;
        assert_eq!(passes(address).await?, before, "a Pipeline was looked at for nothing");

        let written = |name: &str| place.writes_for(name).map(|writes| writes.len());
        let others = (written("elsewhere")?, written("alone")?);
        let users = (written("one")?, written("two")?);
        place.merge::<ExternalProcessor>("ttp", moved).await?;
        for name in ["one", "two"] {
            wait::until("the new address is wired", LIMIT, async || {
                Ok(file(&place, name).await?.contains(":50052").then_some(()))
            })
            .await?;
        }
        place.settled().await?;
        assert_eq!((written("elsewhere")?, written("alone")?), others);
        assert!(written("one")? > users.0 && written("two")? > users.1);
        operator.stop().await
    });
}

// A namespace whose Role went while the operator was away: what runs elsewhere must stay, and nobody must be sent to look
// for a missing processor or a missing grant.
#[test]
fn a_namespace_that_cannot_be_read_is_named_and_what_runs_is_held() {
    if INSTALL == Install::ClusterWide {
        return;
    }
    in_namespace("sees", async |place| {
        let unseen = Place::new(Arc::clone(&place.world), "unseen").await?;
        unseen.allow(&place, json!(rules(Scope::Objects))).await?;
        let operator = operator_of_both(&place, &unseen, None).await?;
        let mut granted = processor("ttp", "Processor");
        granted["spec"]["allowedNamespaces"] = json!({"names": ["sees"]});
        unseen.apply(granted).await?;
        place.apply(processor("sink", "Consumer")).await?;
        place.apply(pipeline_into("mine", "unseen")).await?;
        place.ready::<Pipeline>("mine").await?;
        place.settled().await?;
        let running: Deployment = place.get("mine-pipeline").await?;
        operator.stop().await?;

        unseen.delete::<RoleBinding>("others").await?;
        let may = ["auth", "can-i", "list", "pods", "--as", &place.user()];
        wait::until("the operator may not read it any more", LIMIT, async || {
            // "no" is a failure of the command.
            Ok(unseen.kubectl(&may).await.err().map(drop))
        })
        .await?;
        let operator = operator_of_both(&place, &unseen, None).await?;
        let status = place
            .condition::<Pipeline>("mine", "ResolvedRefs", "False", REFUSED)
            .await?;
        assert!(
            status.why.contains("cannot read namespace \"unseen\""),
            "{}",
            status.why
        );
        place.settled().await?;
        let held: Deployment = place.get("mine-pipeline").await?;
        assert_eq!(held.metadata.generation, running.metadata.generation);

        unseen.allow(&place, json!(rules(Scope::Objects))).await?;
        place.ready::<Pipeline>("mine").await?;
        operator.stop().await
    });
}
