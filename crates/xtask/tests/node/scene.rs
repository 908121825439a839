//! The cluster, the installed operator, the ledgers, and short words for what tests ask of them.

use std::{path::PathBuf, time::Duration};

use flowctl_stellar::{Archive, LedgerRange, sample};
use flowctl_testkit::{
    cluster::{Cluster, Options, Tier},
    images::ProjectImage,
    wait,
};
use serde_json::{Value, json};
use xtask::{generate::project_root, install};

/// Where the operator is installed.
pub(crate) const OPERATOR: &str = "flowctl-system";
/// Where the tests' objects live.
pub(crate) const NAMESPACE: &str = "stellar";

/// Everything that a part of the story needs.
pub(crate) struct Scene {
    /// The cluster.
    pub(crate) cluster: Cluster,
    /// The folder that the pods read, and the range without a gap in it.
    pub(crate) ledgers: PathBuf,
    /// First and last ledger.
    pub(crate) range: (u32, u32),
    /// A range in the same folder that is not whole, and its first missing ledger.
    pub(crate) broken: ((u32, u32), u32),
    _sample: Option<tempfile::TempDir>,
}

impl Scene {
    /// A cluster with the operator in it. Both namespaces enforce pod security `restricted`.
    pub(crate) async fn begin() -> Self {
        let cluster = Cluster::start(Tier::Node, Options::default())
            .await
            .expect("the cluster starts");
        install::images(&cluster, &ProjectImage::IN_TESTS)
            .await
            .expect("the images are there");
        install::operator(&cluster, OPERATOR, &[])
            .await
            .expect("the chart installs");
        install::namespace(&cluster, NAMESPACE)
            .await
            .expect("the namespace is made");
        let real = project_root()
            .expect("a checkout")
            .join("../shared/real-ledgers/pubnet-v13-reassembled");
        let (folder, sample) = if real.is_dir() {
            (real, None)
        } else {
            eprintln!("no real ledgers beside the checkout: the sample takes their place");
            let folder = tempfile::tempdir().expect("a folder");
            sample::write(folder.path(), &sample::Options::default()).expect("sample ledgers");
            (folder.path().to_owned(), Some(folder))
        };
        let ranges = Archive::open(&folder).expect("ledgers").ranges();
        let last = ranges.last().expect("at least one ledger");
        let end = last.end.expect("a folder ends");
        let (range, broken) = match ranges.first() {
            Some(first) if first.start < last.start => {
                let missing = first.end.expect("a folder ends") + 1;
                ((last.start, end), ((first.start, last.start), missing))
            }
            // The sample has no gap inside: what comes after its end is missing.
            _ => ((last.start, end - 1), ((last.start, end + 5), end + 1)),
        };
        let scene = Self {
            cluster,
            ledgers: folder,
            range,
            broken,
            _sample: sample,
        };
        scene.put_ledgers().await;
        scene
    }

    /// Stops the cluster and finds nothing left.
    pub(crate) async fn end(self) {
        self.cluster.stop().await.expect("nothing is left of the cluster");
    }

    async fn put_ledgers(&self) {
        let mut arguments = vec!["create".to_owned(), "configmap".into(), "ledgers".into()];
        for entry in self.ledgers.read_dir().expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                arguments.push(format!("--from-file={}", path.display()));
            }
        }
        arguments.push(format!("--namespace={NAMESPACE}"));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        self.kubectl(&arguments).await;
    }

    /// kubectl, which must succeed.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> String {
        match self.cluster.kubectl(arguments).await {
            Ok(output) => output,
            Err(error) => panic!("{error}"),
        }
    }

    /// Applies an object in the tests' namespace.
    pub(crate) async fn apply(&self, object: &Value) {
        let text = object.to_string();
        let applied = self
            .cluster
            .kubectl_input(&["apply", "--namespace", NAMESPACE, "-f", "-"], &text)
            .await;
        if let Err(error) = applied {
            panic!("{error}");
        }
    }

    /// One object, `pipeline/payments`, as JSON; null when it does not exist.
    pub(crate) async fn get(&self, object: &str) -> Value {
        let found = self
            .kubectl(&[
                "get",
                &qualified(object),
                "--namespace",
                NAMESPACE,
                "--ignore-not-found",
                "-o",
                "json",
            ])
            .await;
        if found.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&found).expect("JSON")
        }
    }

    /// The items that a label selects.
    pub(crate) async fn list(&self, kind: &str, selector: &str) -> Vec<Value> {
        let found = self
            .kubectl(&["get", kind, "--namespace", NAMESPACE, "-l", selector, "-o", "json"])
            .await;
        let found: Value = serde_json::from_str(&found).expect("JSON");
        found["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits as a user would, with `kubectl wait`.
    pub(crate) async fn wait(&self, object: &str, condition: &str, limit: Duration) {
        let (condition, limit) = (format!("--for={condition}"), format!("--timeout={}s", limit.as_secs()));
        let object = qualified(object);
        let waited = self
            .cluster
            .kubectl(&["wait", &object, "--namespace", NAMESPACE, &condition, &limit])
            .await;
        if let Err(error) = waited {
            let described = self.kubectl(&["describe", &object, "--namespace", NAMESPACE]).await;
            let pods = self
                .kubectl(&["get", "pods", "--namespace", NAMESPACE, "-o", "wide"])
                .await;
            panic!("{error}\n{described}\n{pods}");
        }
    }

    /// Waits until `holds` is true of the object.
    pub(crate) async fn until(
        &self,
        object: &str,
        what: &str,
        limit: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let seen = wait::until_explained(what, limit, async || {
            let value = self.get(object).await;
            Ok(if holds(&value) {
                Ok(value)
            } else {
                Err(value["status"].to_string())
            })
        });
        match seen.await {
            Ok(value) => value,
            Err(error) => panic!("{error}"),
        }
    }

    /// The uids of the pods of an owner of ours, sorted.
    pub(crate) async fn pods(&self, owner: &str) -> Vec<String> {
        let pods = self.list("pods", &format!("flowctl.dev/name={owner}")).await;
        let alive = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let mut uids: Vec<_> = alive
            .map(|pod| pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
            .collect();
        uids.sort();
        uids
    }

    /// A Pipeline over these ledgers, printing every event.
    pub(crate) fn pipeline(&self, name: &str, mode: &str, (first, last): (u32, u32)) -> Value {
        let mut config = json!({"storage_type": "FS", "path": "/ledgers", "start_ledger": first, "end_ledger": last});
        if mode == "Streaming"
            && let Some(config) = config.as_object_mut()
        {
            config.shift_remove("end_ledger");
        }
        let mut object = json!({
            "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline", "metadata": {"name": name},
            "spec": {
                "mode": mode,
                "source": {"type": "BufferedStorageSourceAdapter", "config": config},
                "processors": [
                    {"type": "LedgerReader", "config": {"network": "pubnet"}},
                    {"name": "ttp", "processorRef": {"name": "ttp-processor"}, "config": {"timeout": "30s"}},
                ],
                "consumers": [{"type": "StdoutConsumer"}],
                "runtime": {
                    "volumes": [{"name": "ledgers", "configMap": {"name": "ledgers"}}],
                    "volumeMounts": [{"name": "ledgers", "mountPath": "/ledgers", "readOnly": true}],
                },
            },
        });
        if mode == "Batch" {
            object["spec"]["batch"] = json!({"backoffLimit": 0});
        }
        object
    }

    /// The example processor on this port.
    pub(crate) fn processor(&self, port: u16, image: &str) -> Value {
        json!({
            "apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor", "metadata": {"name": "ttp-processor"},
            "spec": {
                "role": "Processor", "port": port, "probe": {"grpc": {}},
                "workload": {"image": image, "env": [{"name": "PORT", "value": port.to_string()}]},
            },
        })
    }

    /// The ledgers of the whole range, decoded here.
    pub(crate) fn decoded(&self) -> Vec<flowctl_stellar::Ledger> {
        let (start, end) = self.range;
        let archive = Archive::open(&self.ledgers).expect("ledgers");
        let ledgers: Result<Vec<_>, _> = archive.ledgers(LedgerRange { start, end: Some(end) }).collect();
        ledgers.expect("a whole range")
    }
}

/// Other projects have kinds named pipelines, too.
fn qualified(object: &str) -> String {
    match object.split_once('/') {
        Some(("pipeline", name)) => format!("pipelines.flowctl.dev/{name}"),
        Some(("processor", name)) => format!("externalprocessors.flowctl.dev/{name}"),
        _ => object.to_owned(),
    }
}
