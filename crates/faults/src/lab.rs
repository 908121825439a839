//! Where cases run: one cluster for all of them, a namespace for each, with an operator behind a proxy of its own. What is
//! asked about a case comes from the apiserver directly and from its audit log, never through the proxy.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use flowctl_testkit::{
    Error, Result, Tier, audit,
    binaries::project_root,
    cluster::{Cluster, Options},
    fake_kubelet::FakeKubelet,
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use crate::{
    case::{Step, sample},
    history::Recorder,
    picture::{Picture, picture},
    process::{Operator, Settings, program},
    proxy::Proxy,
    signature::role,
};

/// The cluster and what watches it.
pub struct Lab {
    pub(crate) cluster: Cluster,
    client: Client,
    _kubelet: FakeKubelet,
    pub(crate) recorder: Recorder,
    audit: Mutex<Audit>,
    program: PathBuf,
    directory: tempfile::TempDir,
    places: AtomicU32,
}

/// The log, as far as it was read: the writes of each user.
#[derive(Debug)]
struct Audit {
    tail: audit::Tail,
    writes: BTreeMap<String, Vec<audit::Event>>,
}

/// A namespace with an operator behind a proxy.
pub(crate) struct Place<'a> {
    lab: &'a Lab,
    pub(crate) namespace: String,
    pub(crate) proxy: Proxy,
    pub(crate) operator: Operator,
    begun: Instant,
    last: Mutex<Option<(u64, Picture)>>,
}

/// Between two hours of the log's rotation there is more of it than its default size allows.
const AUDIT_MEGABYTES: &str = "--audit-log-maxsize=20000";

// === impl Lab ===

impl Lab {
    /// Starts a cluster; it ends when this is dropped.
    ///
    /// # Errors
    ///
    /// When the API tier cannot run here, or the operator cannot be built.
    pub async fn start() -> Result<Self> {
        let program = tokio::task::spawn_blocking(program);
        let program = program.await.map_err(|error| Error::impossible(error.to_string()))??;
        let crds = ["externalprocessors", "pipelines"];
        let options = Options {
            crds: crds
                .map(|name| project_root().join(format!("crds/{name}.flowctl.dev.yaml")))
                .to_vec(),
            apiserver_arguments: vec![AUDIT_MEGABYTES.to_owned()],
            ..Options::default()
        };
        let cluster = Cluster::start(Tier::Api, options).await?;
        let client = cluster.client()?;
        let kubelet = FakeKubelet::start(client.clone()).await?;
        let recorder = Recorder::start(&client).await?;
        let audit = Audit {
            tail: audit::Tail::new(cluster.audit_log_path()?),
            writes: BTreeMap::new(),
        };
        Ok(Self {
            cluster,
            client,
            _kubelet: kubelet,
            recorder,
            audit: Mutex::new(audit),
            program,
            directory: tempfile::tempdir().map_err(Error::io("make a directory"))?,
            places: AtomicU32::new(0),
        })
    }

    /// A new namespace, in which an operator has begun to run.
    pub(crate) async fn place(&self, arguments: &[String]) -> Result<Place<'_>> {
        let number = self.places.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("faults-{number:05}");
        self.apply(
            None,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        )
        .await?;
        // Rights are not what is tested here.
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "operator"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": namespace}],
        });
        self.apply(Some(&namespace), binding).await?;
        let proxy = Proxy::start(self.config(&namespace).await?).await?;
        let directory = self.directory.path().join(&namespace);
        std::fs::create_dir(&directory).map_err(Error::file("make", &directory))?;
        let kubeconfig = directory.join("kubeconfig");
        std::fs::write(&kubeconfig, proxy.kubeconfig(None)).map_err(Error::file("write", &kubeconfig))?;
        let operator = Operator::start(Settings {
            program: self.program.clone(),
            namespace: namespace.clone(),
            arguments: arguments.to_vec(),
            directory,
        });
        let process = operator.process();
        proxy.victim(move || process.kill());
        Ok(Place {
            lab: self,
            namespace,
            proxy,
            operator,
            begun: Instant::now(),
            last: Mutex::new(None),
        })
    }

    /// As the operator of a namespace.
    async fn config(&self, namespace: &str) -> Result<Config> {
        let file = Kubeconfig::read_from(self.cluster.kubeconfig());
        let file = file.map_err(|error| Error::impossible(error.to_string()))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let mut config = config.map_err(|error| Error::impossible(error.to_string()))?;
        config.auth_info.impersonate = Some(user(namespace));
        let groups = ["system:serviceaccounts", "system:authenticated"];
        config.auth_info.impersonate_groups = Some(groups.map(str::to_owned).into());
        Ok(config)
    }

    async fn apply(&self, namespace: Option<&str>, object: Value) -> Result<()> {
        let (api, name) = self.api(namespace, &object)?;
        let params = PatchParams::apply("a-user").force();
        api.patch(&name, &params, &Patch::Apply(&object))
            .await
            .map(drop)
            .map_err(Error::kube(format!("apply {name}")))
    }

    /// Where an object is, and its name.
    fn api(&self, namespace: Option<&str>, object: &Value) -> Result<(Api<DynamicObject>, String)> {
        let object: DynamicObject =
            serde_json::from_value(object.clone()).map_err(|error| Error::impossible(error.to_string()))?;
        let types = object.types.clone().unwrap_or_default();
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
        let api = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        Ok((api, object.name_any()))
    }

    /// What the operator of a namespace wrote so far, but its lease.
    fn writes(&self, namespace: &str) -> Result<Vec<audit::Event>> {
        let mut audit = self.audit();
        for event in audit.tail.news()? {
            let lease = event
                .object_ref
                .as_ref()
                .is_some_and(|object| object.resource == "leases");
            if event.is_write() && !lease {
                audit
                    .writes
                    .entry(event.effective_user().to_owned())
                    .or_default()
                    .push(event);
            }
        }
        Ok(audit.writes.get(&user(namespace)).cloned().unwrap_or_default())
    }

    fn audit(&self) -> MutexGuard<'_, Audit> {
        self.audit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lab")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

fn user(namespace: &str) -> String {
    format!("system:serviceaccount:{namespace}:operator")
}

// === impl Place ===

impl Place<'_> {
    /// Does what a user does.
    pub(crate) async fn step(&self, step: &Step) -> Result<()> {
        let place = Some(self.namespace.as_str());
        match step {
            Step::Create(name) => self.lab.apply(place, sample(name)?).await,
            Step::Delete(name) => {
                let (api, name) = self.lab.api(place, &sample(name)?)?;
                let deleted = api.delete(&name, &DeleteParams::background()).await;
                deleted.map(drop).map_err(Error::kube(format!("delete {name}")))
            }
            Step::Change(changes) => {
                for (name, change) in changes {
                    let (api, name) = self.lab.api(place, &sample(name)?)?;
                    let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await;
                    patched.map_err(Error::kube(format!("patch {name}")))?;
                }
                Ok(())
            }
        }
    }

    /// How everything is now.
    pub(crate) fn picture(&self) -> Picture {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let events = self.lab.recorder.events(&self.namespace);
        match &*last {
            Some((seen, picture)) if *seen == events => picture.clone(),
            _ => {
                let record = self.lab.recorder.record(&self.namespace);
                let picture = picture(&self.namespace, &record);
                *last = Some((record.events, picture.clone()));
                picture
            }
        }
    }

    /// Writes of the operator so far, but its lease.
    pub(crate) fn writes(&self) -> Result<usize> {
        Ok(self.lab.writes(&self.namespace)?.len())
    }

    /// How often each object was created by the operator, as the apiserver answered.
    pub(crate) fn creations(&self) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for event in self.lab.writes(&self.namespace)? {
            let made = event.response_status.as_ref().is_some_and(|status| status.code == 201);
            if let Some(object) = event.object_ref.filter(|object| made && object.resource != "events") {
                *counts
                    .entry(format!("{} {}", object.resource, role("", &object.name)))
                    .or_default() += 1;
            }
        }
        Ok(counts)
    }

    /// How long it has been there.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The last lines of the operator's log.
    pub(crate) fn log(&self) -> String {
        let path = self.lab.directory.path().join(&self.namespace).join("operator.log");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(40)..)
            .unwrap_or_default()
            .join("\n")
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.lab.recorder.forget(&self.namespace);
        self.lab.audit().writes.remove(&user(&self.namespace));
    }
}
