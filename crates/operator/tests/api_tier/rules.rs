//! What the operator asks for against what it may ask for.

use std::{collections::BTreeSet, time::Duration};

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_operator::{
    Election, Options,
    rbac::{Scope, rules},
};
use flowctl_testkit::{
    Error, audit,
    fake_kubelet::{Outcome, Selector},
    wait,
};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    batch::v1::Job,
    core::v1::{ConfigMap, Service},
    events::v1::Event,
    policy::v1::PodDisruptionBudget,
};
use kube::{Resource, ResourceExt as _, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    objects::{payments, pipeline, processor},
    support::{LIMIT, OWN, Place, TestResult, in_namespace, settings},
};

/// API group, resource with its subresource, verb.
type Right = (String, String, String);

/// What the rules of the chart grant.
fn granted() -> BTreeSet<Right> {
    let mut all = BTreeSet::new();
    for rule in [rules(Scope::Objects), rules(OWN)].into_iter().flatten() {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let rights = rule
                    .verbs
                    .iter()
                    .map(|verb| (group.clone(), resource.clone(), verb.clone()));
                all.extend(rights);
            }
        }
    }
    all
}

/// What the operator's account asked for, answered or not.
fn asked(place: &Place) -> Result<BTreeSet<Right>, Error> {
    let user = place.user();
    let mut all = BTreeSet::new();
    for event in audit::read(place.world.cluster.audit_log_path()?)? {
        let Some(object) = event.object_ref.clone().filter(|_| event.effective_user() == user) else {
            continue;
        };
        let resource = match object.subresource.as_str() {
            "" => object.resource,
            subresource => format!("{}/{subresource}", object.resource),
        };
        // Applying what does not exist is authorized twice: as what it is, and as a creation.
        if event.verb == "patch" && event.response_status.is_some_and(|status| status.code == 201) {
            all.insert((object.api_group.clone(), resource.clone(), "create".to_owned()));
        }
        all.insert((object.api_group, resource, event.verb));
    }
    Ok(all)
}

// A rule too many is what somebody who breaks into the operator gets for nothing; a rule too few is an object that is not
// written on the day on which it is needed.
#[test]
fn every_rule_is_used_and_every_request_has_one() {
    in_namespace("rules", async |place| {
        let election = Election {
            namespace: place.namespace.clone(),
            name: "flowctl-operator".to_owned(),
            identity: "operator_1".to_owned(),
        };
        let options = Options {
            election: Some(election),
            ..place.options()
        };
        let operator = place.operator_with(options, settings()).await?;
        payments(&place).await?;
        everything_is_repaired(&place).await?;
        old_revisions_go(&place).await?;
        a_run_that_ends_and_one_that_does_not(&place).await?;
        what_cannot_be_read(&place).await?;
        an_event_that_repeats(&place).await?;
        a_workload_that_moves_elsewhere(&place).await?;
        operator.stop().await?;

        let (granted, asked) = (granted(), asked(&place)?);
        let unused: Vec<_> = granted.difference(&asked).collect();
        let missing: Vec<_> = asked.difference(&granted).collect();
        println!("{} rights granted, {} used", granted.len(), asked.len());
        assert!(unused.is_empty(), "granted and never used: {unused:#?}");
        assert!(missing.is_empty(), "asked for and not granted: {missing:#?}");
        assert_eq!(place.forbidden()?, Vec::<String>::new());
        Ok(())
    });
}

/// A child of every kind is spoilt and mended.
async fn everything_is_repaired(place: &Place) -> TestResult {
    replicas(place, 2).await?;
    exists::<PodDisruptionBudget>(place, "ttp-processor", true).await?;
    let revision = place.ready::<Pipeline>("payments").await?.revision.unwrap_or_default();
    let name = format!("payments-{}", revision.current);
    spoil::<ConfigMap>(place, &name).await?;
    spoil::<ControllerRevision>(place, &name).await?;
    spoil::<Service>(place, "payments-pipeline").await?;
    spoil::<Deployment>(place, "payments-pipeline").await?;
    spoil::<PodDisruptionBudget>(place, "ttp-processor").await?;
    replicas(place, 1).await?;
    exists::<PodDisruptionBudget>(place, "ttp-processor", false).await
}

/// So many changes that the first one is not kept.
async fn old_revisions_go(place: &Place) -> TestResult {
    let first: BTreeSet<String> = place
        .list::<ControllerRevision>()
        .await?
        .iter()
        .map(|live| live.name_any())
        .collect();
    for number in 0..8 {
        let mut changed = pipeline("payments");
        changed["spec"]["processors"][0]["config"]["network"] = json!(format!("network-{number}"));
        place.apply(changed).await?;
        place.ready::<Pipeline>("payments").await?;
    }
    wait::until("an old revision is gone", LIMIT, async || {
        let names = |names: Vec<String>| first.iter().any(|first| !names.contains(first));
        let revisions = place
            .list::<ControllerRevision>()
            .await?
            .iter()
            .map(|live| live.name_any())
            .collect();
        let files: Vec<String> = place
            .list::<ConfigMap>()
            .await?
            .iter()
            .map(|live| live.name_any())
            .collect();
        let file_is_gone = first
            .iter()
            .any(|name| name.starts_with("payments-") && !files.contains(name));
        Ok((names(revisions) && file_is_gone).then_some(()))
    })
    .await
}

/// From a Deployment to a Job that runs for ever, which is suspended, and back.
async fn a_run_that_ends_and_one_that_does_not(place: &Place) -> TestResult {
    let mut run = pipeline("payments");
    run["spec"]["mode"] = json!("Batch");
    place.apply(run.clone()).await?;
    let job = wait::until("the Job is there", LIMIT, async || {
        Ok(place.list::<Job>().await?.first().map(|job| job.name_any()))
    })
    .await?;
    exists::<Deployment>(place, "payments-pipeline", false).await?;
    spoil::<Job>(place, &job).await?;
    place.apply(pipeline("payments")).await?;
    exists::<Job>(place, &job, false).await?;
    place.ready::<Pipeline>("payments").await.map(drop)
}

/// Objects of a newer version.
async fn what_cannot_be_read(place: &Place) -> TestResult {
    place.apply(processor("strange", "Oracle")).await?;
    let mut sideways = pipeline("sideways");
    sideways["spec"]["mode"] = json!("Sideways");
    place.apply(sideways).await?;
    for (kind, name) in [("xproc", "strange"), ("pipelines", "sideways")] {
        let read = ["get", kind, name, "-n", &place.namespace, "-o", "jsonpath={.status}"];
        wait::until("the object is told", LIMIT, async || {
            let text = place.world.cluster.kubectl(&read).await?;
            Ok(text.contains("Accepted").then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// An image that cannot be pulled, twice.
async fn an_event_that_repeats(place: &Place) -> TestResult {
    let pods = || Selector::labels(&[("flowctl.dev/name", "broken")]);
    place.apply(processor("broken", "Processor")).await?;
    for _ in 0..2 {
        place.world.kubelet.script(pods(), Outcome::ImagePullBackOff);
        place
            .condition::<ExternalProcessor>("broken", "Available", "False", "ImagePullBackOff")
            .await?;
        place.world.kubelet.script(pods(), Outcome::Ready);
        place.ready::<ExternalProcessor>("broken").await?;
    }
    wait::until("the event is counted", LIMIT, async || {
        let events: Vec<Event> = place.list().await?;
        let counted = events.iter().any(|event| event.series.is_some());
        Ok(counted.then_some(()))
    })
    .await
}

/// A processor that is not ours to run any more.
async fn a_workload_that_moves_elsewhere(place: &Place) -> TestResult {
    let external = json!({"spec": {"workload": null, "port": null, "external": {"endpoint": "ttp.example.com:50051"}}});
    place.merge::<ExternalProcessor>("ttp", external).await?;
    exists::<Service>(place, "ttp-processor", false).await?;
    exists::<Deployment>(place, "ttp-processor", false).await
}

async fn replicas(place: &Place, replicas: i32) -> TestResult {
    let scaled = json!({"spec": {"workload": {"replicas": replicas}}});
    place.merge::<ExternalProcessor>("ttp", scaled).await?;
    place.ready::<ExternalProcessor>("ttp").await.map(drop)
}

/// Takes away the mark of the operator's last write, and waits until it is back.
async fn spoil<K>(place: &Place, name: &str) -> TestResult
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    const APPLIED: &str = "flowctl.dev/applied";
    let without = json!({"metadata": {"annotations": {APPLIED: Value::Null}}});
    place.merge::<K>(name, without).await?;
    wait::until(&format!("{name} is mended"), Duration::from_secs(20), async || {
        let mended: K = place.get(name).await?;
        Ok(mended.annotations().contains_key(APPLIED).then_some(()))
    })
    .await
}

async fn exists<K>(place: &Place, name: &str, wanted: bool) -> TestResult
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let what = format!("{name} {}", if wanted { "is there" } else { "is gone" });
    wait::until(&what, LIMIT, async || {
        let live = place.api::<K>().get_opt(name).await.map_err(Error::kube("read"))?;
        Ok((live.is_some() == wanted).then_some(()))
    })
    .await
}
