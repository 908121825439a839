//! An operator for several namespaces, one of which it cannot read.

use std::{sync::Arc, time::Duration};

use flowctl_api::ExternalProcessor;
use flowctl_operator::{
    Options,
    rbac::{Scope, rules},
};
use flowctl_testkit::{Error, wait};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use crate::{
    objects::processor,
    probes::{ask, free_address, readiness},
    support::{LIMIT, Place, in_namespace, settings},
};

/// The rules for objects, without those for pods.
fn all_but_pods() -> Value {
    let mut rules = json!(rules(Scope::Objects));
    if let Some(rules) = rules.as_array_mut() {
        for rule in rules.iter_mut() {
            if let Some(resources) = rule["resources"].as_array_mut() {
                resources.retain(|resource| resource != "pods");
            }
        }
        rules.retain(|rule| rule["resources"] != json!([]));
    }
    rules
}

// A tenant whose namespace or Role is deleted must not stop the operator for all others; and a namespace that is known
// in part only must not be taken for an empty one, or a second copy is started.
#[test]
fn a_namespace_that_cannot_be_read_stops_nobody_else() {
    in_namespace("kept", async |place| {
        let lost = Place::new(Arc::clone(&place.world), "lost").await?;
        lost.apply(processor("ttp", "Processor")).await?;
        let address = free_address().await?;
        let options = Options {
            namespaces: vec!["kept".to_owned(), "lost".to_owned()],
            admin: Some(address),
            ..place.options()
        };
        let operator = place.operator_with(options, settings()).await?;
        place.apply(processor("ttp", "Processor")).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        readiness(address, "200 OK").await?;
        let metrics = async |expected: &str| {
            wait::until_explained(expected, LIMIT, async || {
                let answer = ask(address, "/metrics").await.unwrap_or_else(|error| error.to_string());
                Ok(if answer.contains(expected) { Ok(()) } else { Err(answer) })
            })
            .await
        };
        metrics("flowctl_operator_unreadable_namespaces 1").await?;

        lost.allow(&place, all_but_pods()).await?;
        metrics("flowctl_operator_cached_objects{kind=\"ExternalProcessor\"} 2").await?;
        // What must not happen has no end to wait for: a pass takes milliseconds.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let started = lost.api::<Deployment>().get_opt("ttp-processor").await;
        assert!(
            started.map_err(Error::kube("read"))?.is_none(),
            "its pods are not known"
        );

        lost.allow(&place, json!(rules(Scope::Objects))).await?;
        lost.ready::<ExternalProcessor>("ttp").await?;
        metrics("flowctl_operator_unreadable_namespaces 0").await?;
        operator.stop().await
    });
}
