//! What is in a Secret stays there: the operator refers to Secrets in every way that a spec allows, and neither reads
//! nor repeats one.

use std::fs;

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_testkit::Error;
use k8s_openapi::{ByteString, api::apps::v1::Deployment};
use serde_json::{Value, json};

use crate::{
    objects::nothing_was_forbidden,
    probes::{ask, free_address},
    process::{Launch, Process},
    support::{Place, in_namespace},
};

/// The Secrets, with their keys. Each value is a canary.
const SECRETS: [(&str, &[&str]); 6] = [
    ("database", &["password", "url"]),
    ("server-tls", &["tls.crt", "tls.key", "ca.crt"]),
    ("client-tls", &["tls.crt", "tls.key"]),
    ("report-tls", &["tls.crt", "tls.key"]),
    ("registry", &[".dockerconfigjson"]),
    ("unused", &["token"]),
];

fn canary(secret: &str, key: &str) -> String {
    // What a registry's Secret holds must be JSON.
    let word = format!("canary-{secret}-{}", key.trim_start_matches('.').replace('.', "-"));
    match secret {
        "registry" => json!({"auths": {"registry.example": {"auth": word}}}).to_string(),
        _ => word,
    }
}

fn secret(name: &str, keys: &[&str]) -> Value {
    let values = keys.iter().map(|key| ((*key).to_owned(), json!(canary(name, key))));
    let type_ = match name {
        "registry" => "kubernetes.io/dockerconfigjson",
        _ => "Opaque",
    };
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": type_,
        "stringData": serde_json::Map::from_iter(values),
    })
}

/// What a container's part of a spec can say about Secrets.
fn container() -> Value {
    json!({
        "env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "database", "key": "password"}}}],
        "envFrom": [{"prefix": "DB_", "secretRef": {"name": "database"}}],
        "volumes": [
            {"name": "whole", "secret": {"secretName": "database"}},
            {"name": "part", "projected": {"sources": [{"secret": {"name": "database",
                "items": [{"key": "url", "path": "url"}]}}]}},
        ],
        "volumeMounts": [
            {"name": "whole", "mountPath": "/secrets/whole", "readOnly": true},
            {"name": "part", "mountPath": "/secrets/part", "readOnly": true},
        ],
        "podTemplate": {"spec": {
            "imagePullSecrets": [{"name": "registry"}],
            "initContainers": [{
                "name": "migrate", "image": "migrate:v1",
                "env": [{"name": "URL", "valueFrom": {"secretKeyRef": {"name": "database", "key": "url"}}}],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        }},
    })
}

fn control_plane() -> Value {
    json!({"endpoint": "flowctl.flowctl-system:8080", "tls": {"secretName": "report-tls"}})
}

fn with(mut part: Value, more: Value) -> Value {
    if let (Some(part), Value::Object(more)) = (part.as_object_mut(), more) {
        part.extend(more);
    }
    part
}

fn processor() -> Value {
    let authority = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor", "metadata": {"name": "ttp"},
        "spec": {
            "role": "Processor", "port": 50051, "workload": with(container(), json!({"image": "ttp:v1"})),
            "tls": {"secretName": "server-tls", "caBundle": authority, "clientAuth": "Required"},
            "controlPlane": control_plane(),
        },
    })
}

fn pipeline() -> Value {
    json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline", "metadata": {"name": "payments"},
        "spec": {
            "source": {"type": "BufferedStorageSourceAdapter",
                "config": {"storage_type": "FS", "path": "/ledgers/${PASSWORD}"}},
            "processors": [{"name": "ttp", "processorRef": {"name": "ttp"}, "config": {"token": "${DB_password}"}}],
            "consumers": [{"type": "SaveToPostgreSQL", "config": {"connection_string": "${DB_url}"}}],
            // An image of one's own may have steps of its own.
            "runtime": with(container(), json!({"image": "runner:mine", "clientTls": {"secretName": "client-tls"}})),
            "controlPlane": control_plane(),
        },
    })
}

/// Every object of every kind in the namespace as JSON, without Secrets, or only those.
async fn objects(place: &Place, only_secrets: bool) -> Result<String, Error> {
    let cluster = &place.world.cluster;
    let kinds = if only_secrets {
        "secrets".to_owned()
    } else {
        let all = cluster
            .kubectl(&["api-resources", "--namespaced", "--verbs=list", "-o", "name"])
            .await?;
        let others: Vec<&str> = all.lines().filter(|kind| *kind != "secrets").collect();
        assert!(
            others.contains(&"controllerrevisions.apps") && others.contains(&"configmaps"),
            "{others:?}"
        );
        others.join(",")
    };
    cluster
        .kubectl(&[
            "get",
            &kinds,
            "-n",
            &place.namespace,
            "-o",
            "json",
            "--show-managed-fields",
        ])
        .await
}

/// The canaries that a text holds, as they are or as Kubernetes encodes them.
fn found(text: &str) -> Vec<String> {
    let encoded = |canary: &str| {
        let bytes = json!(ByteString(canary.as_bytes().to_vec()));
        bytes.as_str().is_some_and(|encoded| text.contains(encoded))
    };
    let all = SECRETS
        .iter()
        .flat_map(|(name, keys)| keys.iter().map(|key| canary(name, key)));
    all.filter(|canary| text.contains(canary.as_str()) || encoded(canary))
        .collect()
}

// Whoever may read a Pipeline, its ConfigMap or the operator's log must learn no password from it: those who may read
// Secrets are others.
#[test]
fn what_is_in_a_secret_is_nowhere_else() {
    in_namespace("secrecy", async |place| {
        for (name, keys) in SECRETS {
            place.apply(secret(name, keys)).await?;
        }
        let directory = tempfile::tempdir().map_err(Error::io("make a directory"))?;
        let path = directory.path().join("log");
        let log = fs::File::create(&path).map_err(Error::file("make", &path))?;
        let admin = free_address().await?;
        let launch = Launch {
            admin,
            log_level: "debug",
            log: Some(log),
            ..Launch::default()
        };
        let operator = Process::launch(&place, "operator", launch)?;
        place.apply(processor()).await?;
        place.apply(pipeline()).await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        place.ready::<Pipeline>("payments").await?;
        // Failures are what is told in the most words: a name that is taken, and a roll-out that cannot be.
        let foreign = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken-processor"},
            "spec": {"ports": [{"port": 80}]}});
        place.apply(foreign).await?;
        let mut taken = processor();
        taken["metadata"]["name"] = json!("taken");
        place.apply(taken).await?;
        place
            .condition::<ExternalProcessor>("taken", "Available", "False", "NameConflict")
            .await?;
        place
            .merge::<ExternalProcessor>("ttp", json!({"spec": {"port": 50052}}))
            .await?;
        place.ready::<ExternalProcessor>("ttp").await?;
        place.ready::<Pipeline>("payments").await?;
        place.settled().await?;

        let metrics = ask(admin, "/metrics").await.map_err(Error::io("ask for metrics"))?;
        operator.stop().await?;
        let told = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let kept = objects(&place, false).await?;
        assert!(
            kept.contains("events.k8s.io") && kept.contains("${DB_url}"),
            "events and files are looked at"
        );
        assert!(told.contains("reconcile"), "the log says what is done");
        for (what, text) in [("objects", &kept), ("log", &told), ("metrics", &metrics)] {
            assert_eq!(found(text), Vec::<String>::new(), "in the {what}");
        }
        // The same search finds all of them where they are.
        assert_eq!(found(&objects(&place, true).await?).len(), 11);

        for deployment in ["payments-pipeline", "ttp-processor"] {
            let live = json!(place.get::<Deployment>(deployment).await?).to_string();
            let own = if deployment == "ttp-processor" {
                "server-tls"
            } else {
                "client-tls"
            };
            for name in ["database", "report-tls", "registry", own] {
                assert!(live.contains(&format!("\"{name}\"")), "{deployment} refers to {name}");
            }
        }
        let requests = place.requests()?;
        let of_secrets = requests.iter().filter(|event| event.uri.contains("/secrets"));
        assert_eq!(of_secrets.count(), 0, "Secrets are not asked for");
        assert!(requests.len() > 20, "but other things are");
        nothing_was_forbidden(&place)
    });
}
