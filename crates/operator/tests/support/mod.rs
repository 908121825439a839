//! One cluster for all tests of a binary, and a namespace for each: with an operator that has the generated Roles of
//! that namespace and nothing else, so that every test is also one of the rules.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::LazyLock,
    time::{Duration, Instant},
};

use flowctl_api::{ExternalProcessor, Pipeline, Status, crd};
use flowctl_operator::{
    Options, RunError,
    rbac::{Scope, rules},
    run,
};
use flowctl_plan::{Settings, observed::PodSecurity};
use flowctl_runtime::Shutdown;
use flowctl_testkit::{
    Error, Tier, audit,
    cluster::{self, Cluster},
    fake_kubelet::FakeKubelet,
    tier, wait,
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{NamespaceResourceScope, object::HasStatus},
    discovery::ApiResource,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::JoinHandle};

pub type TestResult = Result<(), Error>;

/// Nothing takes longer, unless something is wrong.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What all tests share. Its processes end with this one.
pub struct World {
    runtime: Runtime,
    pub cluster: Cluster,
    pub kubelet: FakeKubelet,
    _crds: tempfile::TempDir,
}

/// An operator in a process of its own, with leader election.
pub struct Process {
    child: tokio::process::Child,
    pid: nix::unistd::Pid,
    _kubeconfig: tempfile::NamedTempFile,
}

static WORLD: LazyLock<Option<Result<World, Error>>> = LazyLock::new(|| {
    let _ = tier::require(Tier::Api)?;
    if std::env::var_os("RUST_LOG").is_some() {
        let _ = flowctl_runtime::Logs::new(flowctl_runtime::LogFormat::Text).init();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    Some(match runtime.block_on(start()) {
        Ok((cluster, kubelet, crds)) => Ok(World {
            runtime,
            cluster,
            kubelet,
            _crds: crds,
        }),
        Err(error) => Err(error),
    })
});

async fn start() -> Result<(Cluster, FakeKubelet, tempfile::TempDir), Error> {
    let directory = tempfile::tempdir().map_err(Error::io("make a directory"))?;
    let options = cluster::Options {
        crds: definitions(&directory)?,
        ..cluster::Options::default()
    };
    let cluster = Cluster::start(Tier::Api, options).await?;
    let kubelet = FakeKubelet::start(cluster.client()?).await?;
    Ok((cluster, kubelet, directory))
}

/// Our definitions, but for one role that only a newer version would know.
fn definitions(directory: &tempfile::TempDir) -> Result<Vec<PathBuf>, Error> {
    let definitions = crd::all().map_err(|error| Error::impossible(error.to_string()))?;
    let mut paths = Vec::new();
    for definition in definitions {
        let mut value = serde_json::to_value(&definition).map_err(|error| Error::impossible(error.to_string()))?;
        let role = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/role/enum";
        if let Some(roles) = value.pointer_mut(role).and_then(Value::as_array_mut) {
            roles.push(json!("Oracle"));
        }
        let path = directory.path().join(format!("{}.json", definition.name_any()));
        std::fs::write(&path, value.to_string()).map_err(Error::file("write", &path))?;
        paths.push(path);
    }
    Ok(paths)
}

/// Runs a test in a namespace of its own; skipped without the API tier.
pub fn in_namespace(name: &str, test: impl AsyncFnOnce(Place) -> TestResult + Send) {
    let world = match WORLD.as_ref() {
        None => return,
        Some(Ok(world)) => world,
        Some(Err(error)) => panic!("no cluster: {error}"),
    };
    let end = world.runtime.block_on(async {
        let place = Place::new(world, name).await?;
        test(place).await?;
        world.cluster.check()
    });
    if let Err(error) = end {
        panic!("{error}");
    }
}

/// A namespace.
#[derive(Clone)]
pub struct Place {
    pub world: &'static World,
    pub namespace: String,
    pub client: Client,
}

/// An operator in this process.
pub struct Operator {
    shutdown: Shutdown,
    task: JoinHandle<Result<(), RunError>>,
}

// === impl Place ===

impl Place {
    async fn new(world: &'static World, name: &str) -> Result<Self, Error> {
        let place = Self {
            world,
            namespace: name.to_owned(),
            client: world.cluster.client()?,
        };
        place
            .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
            .await?;
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator"}});
        place.apply(account).await?;
        for (scope, role) in [(Scope::Objects, "objects"), (Scope::Own, "own")] {
            place
                .apply(json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                    "metadata": {"name": role}, "rules": rules(scope),
                }))
                .await?;
            place
                .apply(json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                    "metadata": {"name": role},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
                    "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": name}],
                }))
                .await?;
        }
        Ok(place)
    }

    /// The operator's user.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:operator", self.namespace)
    }

    /// How the operator reaches the apiserver: as its service account.
    pub async fn config(&self) -> Result<Config, Error> {
        let file = Kubeconfig::read_from(self.world.cluster.kubeconfig());
        let file = file.map_err(|error| Error::impossible(error.to_string()))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let mut config = config.map_err(|error| Error::impossible(error.to_string()))?;
        config.auth_info.impersonate = Some(self.user());
        let groups = ["system:serviceaccounts", "system:authenticated"];
        config.auth_info.impersonate_groups = Some(groups.map(str::to_owned).into());
        Ok(config)
    }

    /// Starts an operator for this namespace.
    pub async fn operator(&self) -> Result<Operator, Error> {
        self.operator_with(settings()).await
    }

    /// Starts an operator for this namespace with other settings.
    pub async fn operator_with(&self, settings: Settings) -> Result<Operator, Error> {
        let options = Options {
            namespaces: vec![self.namespace.clone()],
            concurrency: 4,
            election: None,
            admin: None,
            resync: Duration::from_secs(600),
            instance: None,
        };
        let shutdown = Shutdown::new();
        let task = tokio::spawn(run(self.config().await?, options, settings, shutdown.clone()));
        Ok(Operator { shutdown, task })
    }

    /// Applies an object in this namespace, as a user does.
    pub async fn apply(&self, mut object: Value) -> Result<DynamicObject, Error> {
        let namespaced = object["kind"] != "Namespace";
        if namespaced {
            object["metadata"]["namespace"] = json!(self.namespace);
        }
        let object: DynamicObject =
            serde_json::from_value(object).map_err(|error| Error::impossible(error.to_string()))?;
        let types = object.types.clone().unwrap_or_default();
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let resource = ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, &types.kind));
        let api: Api<DynamicObject> = match namespaced {
            true => Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
            false => Api::all_with(self.client.clone(), &resource),
        };
        let params = PatchParams::apply("a-user").force();
        let name = object.name_any();
        let applied = api.patch(&name, &params, &Patch::Apply(&object)).await;
        applied.map_err(Error::kube(format!("apply {} {name}", types.kind)))
    }

    /// Objects of a kind in this namespace.
    pub fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn get<K>(&self, name: &str) -> Result<K, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        self.api::<K>()
            .get(name)
            .await
            .map_err(Error::kube(format!("read {name}")))
    }

    pub async fn list<K>(&self) -> Result<Vec<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let list = self.api::<K>().list(&ListParams::default()).await;
        Ok(list.map_err(Error::kube("list"))?.items)
    }

    pub async fn delete<K>(&self, name: &str) -> TestResult
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        self.api::<K>()
            .delete(name, &DeleteParams::background())
            .await
            .map_err(Error::kube(format!("delete {name}")))?;
        Ok(())
    }

    /// Merges a patch into an object, as a user does.
    pub async fn merge<K>(&self, name: &str, patch: Value) -> TestResult
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let patched = self
            .api::<K>()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        patched.map_err(Error::kube(format!("patch {name}")))?;
        Ok(())
    }

    /// Waits until a condition stands as expected for the object's present generation; gives the status.
    pub async fn condition<K>(&self, name: &str, type_: &str, status: &str, reason: &str) -> Result<Status, Error>
    where
        K: Subject,
    {
        let what = format!("{}/{name} has {type_}={status}/{reason}", self.namespace);
        wait::until_explained(&what, LIMIT, async || {
            let object: K = self.get(name).await?;
            let generation = object.meta().generation;
            let Some(seen) = object.status() else {
                return Ok(Err("no status".to_owned()));
            };
            let found = seen.conditions.iter().any(|condition| {
                condition.type_ == type_
                    && condition.status == status
                    && (reason.is_empty() || condition.reason == reason)
                    && condition.observed_generation == generation
            });
            Ok(if found { Ok(seen.clone()) } else { Err(told(seen)) })
        })
        .await
    }

    /// Waits until the object is Ready.
    pub async fn ready<K: Subject>(&self, name: &str) -> Result<Status, Error> {
        self.condition::<K>(name, "Ready", "True", "").await
    }

    /// What this namespace's operator wrote so far; status and events included.
    pub fn writes(&self) -> Result<Vec<audit::Event>, Error> {
        audit::writes_by(self.world.cluster.audit_log_path()?, &self.user())
    }

    /// What this namespace's operator wrote to children so far.
    pub fn child_writes(&self) -> Result<Vec<String>, Error> {
        let of_children = |event: &audit::Event| {
            let object = event.object_ref.as_ref()?;
            let ours = matches!(
                object.api_group.as_str(),
                "flowctl.dev" | "events.k8s.io" | "coordination.k8s.io"
            );
            (!ours).then(|| format!("{} {} {}", event.verb, object.resource, object.name))
        };
        Ok(self.writes()?.iter().filter_map(of_children).collect())
    }

    /// Writes to children and status so far, by the object of ours that they were for. Events are not counted: they are
    /// told, not kept.
    pub fn writes_by_object(&self) -> Result<BTreeMap<String, Vec<String>>, Error> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for event in self.writes()? {
            let Some(object) = event.object_ref.filter(|object| object.api_group != "events.k8s.io") else {
                continue;
            };
            let owner = object.name.split('-').next().unwrap_or_default().to_owned();
            all.entry(owner)
                .or_default()
                .push(format!("{} {} {}", event.verb, object.resource, object.subresource));
        }
        Ok(all)
    }

    /// Waits until the operator has written nothing for a while, and gives the number of its writes.
    pub async fn settled(&self) -> Result<usize, Error> {
        let mut last = (self.writes()?.len(), Instant::now());
        wait::until("the operator has nothing to write", LIMIT, async || {
            let now = self.writes()?.len();
            if now != last.0 {
                last = (now, Instant::now());
            }
            Ok((last.1.elapsed() > Duration::from_secs(3)).then_some(now))
        })
        .await
    }

    /// Requests of the operator that its rules did not allow.
    pub fn forbidden(&self) -> Result<Vec<String>, Error> {
        let user = self.user();
        let all = audit::read(self.world.cluster.audit_log_path()?)?;
        let refused = all.into_iter().filter(|event| {
            event.effective_user() == user && event.response_status.as_ref().is_some_and(|status| status.code == 403)
        });
        Ok(refused.map(|event| format!("{} {}", event.verb, event.uri)).collect())
    }

    /// Everything here that the operator may have made, by kind.
    pub async fn children(&self) -> Result<BTreeMap<String, Vec<String>>, Error> {
        let kinds = [
            "configmaps",
            "controllerrevisions.apps",
            "services",
            "poddisruptionbudgets.policy",
            "deployments.apps",
            "replicasets.apps",
            "jobs.batch",
            "pods",
        ];
        let mut all = BTreeMap::new();
        for kind in kinds {
            let arguments = [
                "get",
                kind,
                "-n",
                &self.namespace,
                "-o",
                "name",
                "-l",
                "app.kubernetes.io/managed-by",
            ];
            let text = self.world.cluster.kubectl(&arguments).await?;
            let names: Vec<String> = text.lines().map(str::to_owned).collect();
            if !names.is_empty() {
                all.insert(kind.to_owned(), names);
            }
        }
        Ok(all)
    }
}

/// One of our two kinds.
pub trait Subject:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + HasStatus<Status = Status>
    + Clone
    + DeserializeOwned
    + std::fmt::Debug
{
}
impl Subject for Pipeline {}
impl Subject for ExternalProcessor {}

// === impl Operator ===

impl Operator {
    /// Stops it and waits for its end, which must be orderly.
    pub async fn stop(self) -> TestResult {
        self.shutdown.request();
        let end = self.task.await.map_err(|error| Error::impossible(error.to_string()))?;
        end.map_err(|error| Error::impossible(error.to_string()))
    }

    /// Ends it between two instructions.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

// === impl Process ===

impl Process {
    /// Starts the program for the place's namespace; `name` stands before its identity in the lease.
    pub fn start(place: &Place, name: &str) -> Result<Self, Error> {
        let path = place.world.cluster.kubeconfig();
        let mut file = Kubeconfig::read_from(path).map_err(|error| Error::impossible(error.to_string()))?;
        for user in file.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()) {
            user.impersonate = Some(place.user());
        }
        let kubeconfig = tempfile::NamedTempFile::new().map_err(Error::io("make a file"))?;
        let text = serde_json::to_string(&file).map_err(|error| Error::impossible(error.to_string()))?;
        std::fs::write(kubeconfig.path(), text).map_err(Error::file("write", kubeconfig.path()))?;
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_flowctl-operator"));
        command.env("KUBECONFIG", kubeconfig.path()).kill_on_drop(true);
        command.args([
            "--namespaces",
            &place.namespace,
            "--lease-namespace",
            &place.namespace,
            "--pod-name",
            name,
        ]);
        command.args(["--admin-address", "127.0.0.1:0", "--log-level", "warn"]);
        let child = command.spawn().map_err(Error::io("start the operator"))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        Ok(Self {
            child,
            pid: nix::unistd::Pid::from_raw(pid),
            _kubeconfig: kubeconfig,
        })
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) -> TestResult {
        nix::sys::signal::kill(self.pid, signal).map_err(|error| Error::impossible(error.to_string()))
    }

    /// Kills it at once.
    pub async fn kill(mut self) -> TestResult {
        self.child.kill().await.map_err(Error::io("kill the operator"))
    }

    /// Waits for its end.
    pub async fn end(mut self) -> Result<std::process::ExitStatus, Error> {
        let end = tokio::time::timeout(LIMIT, self.child.wait()).await;
        end.map_err(|_| Error::impossible("the operator does not end"))?
            .map_err(Error::io("wait for the operator"))
    }
}

/// Settings of the tests' operators.
pub fn settings() -> Settings {
    Settings {
        runner_image: "flowctl-runner:test".to_owned(),
        image_pull_policy: None,
        control_plane: None,
        allowed_control_planes: Vec::new(),
        pod_security: PodSecurity::Restricted,
        cluster_domain: "cluster.local".to_owned(),
    }
}

/// An ExternalProcessor.
pub fn processor(name: &str, role: &str) -> Value {
    json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor", "metadata": {"name": name},
        "spec": {"role": role, "port": 50051, "workload": {"image": format!("{name}:v1")}},
    })
}

/// A Pipeline that refers to a processor `ttp` and a consumer `sink`.
pub fn pipeline(name: &str) -> Value {
    json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline", "metadata": {"name": name},
        "spec": {
            "source": {"type": "BufferedStorageSourceAdapter", "config": {"storage_type": "FS", "path": "/ledgers"}},
            "processors": [
                {"type": "LedgerReader", "config": {"network": "pubnet"}},
                {"name": "ttp", "processorRef": {"name": "ttp"}, "config": {"timeout": "30s"}},
            ],
            "consumers": [{"name": "sink", "processorRef": {"name": "sink"}}],
        },
    })
}

fn told(status: &Status) -> String {
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|condition| format!("{}={}/{}", condition.type_, condition.status, condition.reason))
        .collect();
    format!("{} why {:?}", conditions.join(" "), status.why)
}
