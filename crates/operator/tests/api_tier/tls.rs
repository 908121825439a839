//! TLS between a pipeline and its processors: who is given which certificate, and what a new one restarts.

use std::collections::BTreeMap;

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_testkit::{Error, wait};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use serde_json::{Value, json};

use crate::{
    objects::{deployment_version, file, nothing_was_forbidden, pipeline, processor, replica_sets},
    support::{LIMIT, Place, in_namespace},
};

fn bundle(content: &str) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n")
}

async fn pod_of(place: &Place, deployment: &str) -> Result<Value, Error> {
    let deployment: Deployment = place.get(deployment).await?;
    let pod = deployment.spec.and_then(|spec| spec.template.spec);
    serde_json::to_value(pod).map_err(|error| Error::impossible(error.to_string()))
}

/// What is mounted below the folder for configuration, as `<Secret or ConfigMap> <path>`.
fn mounted(pod: &Value) -> Vec<String> {
    let volumes = pod["volumes"].as_array().cloned().unwrap_or_default();
    let sources = volumes
        .iter()
        .filter_map(|volume| volume["projected"]["sources"].as_array())
        .flatten();
    let mut all = Vec::new();
    for source in sources {
        if let Some(name) = source["configMap"]["name"].as_str() {
            all.push(name.to_owned());
        }
        let secret = &source["secret"];
        for item in secret["items"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            all.push(format!("{} {}", text(&secret["name"]), text(&item["path"])));
        }
    }
    all
}

fn environment(pod: &Value) -> BTreeMap<String, String> {
    let entries = pod["containers"][0]["env"].as_array().cloned().unwrap_or_default();
    let pairs = entries
        .iter()
        .filter_map(|entry| Some((entry["name"].as_str()?.to_owned(), entry["value"].as_str()?.to_owned())));
    pairs.collect()
}

async fn files(place: &Place) -> Result<BTreeMap<String, String>, Error> {
    let status = place.ready::<Pipeline>("payments").await?;
    let revision = status.revision.unwrap_or_default().current;
    let config: ConfigMap = place.get(&format!("payments-{revision}")).await?;
    Ok(config.data.unwrap_or_default())
}

// A caller without the right authority, or a server without its key, is a pipeline that stands still; and an authority
// that is replaced must reach the callers with one restart, of them only.
#[test]
fn certificates_reach_both_ends_and_a_new_authority_is_one_roll_out() {
    in_namespace("tls", async |place| {
        let operator = place.operator().await?;
        let mut ttp = processor("ttp", "Processor");
        ttp["spec"]["tls"] = json!({"secretName": "ttp-tls", "caBundle": bundle("b25l"), "clientAuth": "Required"});
        place.apply(ttp).await?;
        place.apply(processor("sink", "Consumer")).await?;
        let mut payments = pipeline("payments");
        payments["spec"]["runtime"] = json!({"clientTls": {"secretName": "payments-client"}});
        place.apply(payments).await?;
        place.ready::<Pipeline>("payments").await?;
        place.ready::<ExternalProcessor>("ttp").await?;

        let server = pod_of(&place, "ttp-processor").await?;
        assert_eq!(
            mounted(&server),
            ["ttp-tls tls/tls.crt", "ttp-tls tls/tls.key", "ttp-tls tls/ca.crt"]
        );
        let environment = environment(&server);
        for (name, value) in [
            ("FLOWCTL_TLS_CERT", "/etc/flowctl/tls/tls.crt"),
            ("FLOWCTL_TLS_KEY", "/etc/flowctl/tls/tls.key"),
            ("FLOWCTL_TLS_CA", "/etc/flowctl/tls/ca.crt"),
            ("FLOWCTL_TLS_CLIENT_AUTH", "required"),
        ] {
            assert_eq!(environment.get(name).map(String::as_str), Some(value), "{name}");
        }
        let wired = file(&place, "payments").await?;
        for line in [
            "ca_file: /etc/flowctl/ca-tls.ttp.pem",
            "cert_file: /etc/flowctl/client-tls/tls.crt",
            "key_file: /etc/flowctl/client-tls/tls.key",
        ] {
            assert!(wired.contains(line), "{line} is not in {wired}");
        }
        assert_eq!(files(&place).await?.get("ca-tls.ttp.pem"), Some(&bundle("b25l")));
        let caller = mounted(&pod_of(&place, "payments-pipeline").await?);
        assert!(
            caller.contains(&"payments-client client-tls/tls.crt".to_owned())
                && caller.contains(&"payments-client client-tls/tls.key".to_owned()),
            "{caller:?}"
        );
        place.settled().await?;

        let generation = deployment_version(&place, "ttp-processor").await?;
        place
            .merge::<ExternalProcessor>("ttp", json!({"spec": {"tls": {"caBundle": bundle("dHdv")}}}))
            .await?;
        wait::until("the callers have the new authority", LIMIT, async || {
            Ok((files(&place).await?.get("ca-tls.ttp.pem") == Some(&bundle("dHdv"))).then_some(()))
        })
        .await?;
        place.settled().await?;
        assert_eq!(replica_sets(&place).await?.len(), 2, "one roll-out of the pipeline");
        assert_eq!(
            deployment_version(&place, "ttp-processor").await?,
            generation,
            "the server's own certificate is in its Secret"
        );
        operator.stop().await?;
        nothing_was_forbidden(&place)
    });
}
