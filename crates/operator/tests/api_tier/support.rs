//! A cluster or two for all tests of a binary, and a namespace for each: with an operator that proves itself with a token of
//! its service account, and has the generated rules and nothing else, so that every test is also one of the rules.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use flowctl_api::{ExternalProcessor, Pipeline, Status};
use flowctl_operator::{
    HeartbeatOptions, Options, RunError,
    rbac::{Scope, rules},
    run,
};
use flowctl_plan::{Settings, observed::PodSecurity};
use flowctl_runtime::Shutdown;
use flowctl_testkit::{Error, audit, wait};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{NamespaceResourceScope, object::HasStatus},
    discovery::ApiResource,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    INSTALL,
    world::{CLUSTERS, World, shared},
};

pub(crate) type TestResult = Result<(), Error>;

/// Nothing takes longer, unless something is wrong.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// What an operator is granted where its lease is.
pub(crate) const OWN: Scope<'_> = Scope::Own {
    lease: "flowctl-operator",
};

/// How the operators of these tests are installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each of the test binaries has one of them")]
pub(crate) enum Install {
    /// For the namespace of the test alone, with a Role there.
    Roles,
    /// For all namespaces, with a ClusterRole: one test at a time on each cluster.
    ClusterWide,
}

/// Each held by the test whose operator works for all namespaces of that cluster: two of them would do the same work.
static ALL_NAMESPACES: [Mutex<()>; CLUSTERS] = [const { Mutex::new(()) }; CLUSTERS];
/// Whose turn it is.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// Runs a test in a namespace of its own; skipped without the API tier.
pub(crate) fn in_namespace(name: &str, test: impl AsyncFnOnce(Place) -> TestResult + Send) {
    let number = match INSTALL {
        Install::Roles => 0,
        Install::ClusterWide => TURN.fetch_add(1, Ordering::Relaxed) % CLUSTERS,
    };
    let Some((runtime, world)) = shared(number) else {
        return;
    };
    let _alone = (INSTALL == Install::ClusterWide).then(|| {
        ALL_NAMESPACES[number]
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    });
    let end = runtime.block_on(async {
        // The operator must find nothing of other tests to work on.
        if INSTALL == Install::ClusterWide {
            let all = ["delete", "pipelines,externalprocessors", "--all", "--all-namespaces"];
            world.cluster.kubectl(&all).await?;
        }
        let place = Place::new(Arc::clone(&world), name).await?;
        test(place).await?;
        world.cluster.check()
    });
    if let Err(error) = end {
        panic!("{error}");
    }
}

/// A namespace.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) world: Arc<World>,
    pub(crate) namespace: String,
    pub(crate) client: Client,
}

/// An operator in this process.
pub(crate) struct Operator {
    shutdown: Shutdown,
    task: AbortOnDropHandle<Result<(), RunError>>,
}

// === impl Place ===

impl Place {
    pub(crate) async fn new(world: Arc<World>, name: &str) -> Result<Self, Error> {
        let client = world.cluster.client()?;
        let place = Self {
            world,
            namespace: name.to_owned(),
            client,
        };
        place
            .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
            .await?;
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator"}});
        place.apply(account).await?;
        let objects = match INSTALL {
            Install::Roles => "Role",
            Install::ClusterWide => "ClusterRole",
        };
        place.grant(objects, Scope::Objects).await?;
        place.grant("Role", OWN).await?;
        Ok(place)
    }

    /// Gives the operator's account the generated rules of a scope, here (`Role`) or everywhere (`ClusterRole`).
    pub(crate) async fn grant(&self, kind: &str, scope: Scope<'_>) -> TestResult {
        let group = "rbac.authorization.k8s.io";
        let name = match scope {
            Scope::Objects => format!("{}-objects", self.namespace),
            Scope::Own { .. } => format!("{}-own", self.namespace),
        };
        let role = json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": name},
            "rules": rules(scope)});
        self.apply(role).await?;
        let binding = json!({
            "apiVersion": format!("{group}/v1"), "kind": format!("{kind}Binding"), "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": self.namespace}],
        });
        self.apply(binding).await.map(drop)
    }

    /// Gives the operator of another place these rules in this namespace.
    pub(crate) async fn allow(&self, to: &Place, rules: Value) -> TestResult {
        let group = "rbac.authorization.k8s.io";
        let role = json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": "others"},
            "rules": rules});
        self.apply(role).await?;
        let binding = json!({
            "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": "others"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "others"},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": to.namespace}],
        });
        self.apply(binding).await.map(drop)
    }

    /// The operator's user.
    pub(crate) fn user(&self) -> String {
        format!("system:serviceaccount:{}:operator", self.namespace)
    }

    /// A token of the operator's service account.
    pub(crate) async fn token(&self) -> Result<String, Error> {
        let request = TokenRequest {
            spec: TokenRequestSpec::default(),
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = self.api();
        let answer = accounts
            .create_token_request("operator", &PostParams::default(), &request)
            .await;
        let status = answer.map_err(Error::kube("ask for a token"))?.status;
        Ok(status.map(|status| status.token).unwrap_or_default())
    }

    /// A kubeconfig of the operator's service account.
    pub(crate) async fn kubeconfig(&self) -> Result<Kubeconfig, Error> {
        let file = Kubeconfig::read_from(self.world.cluster.kubeconfig());
        let mut file = file.map_err(|error| Error::impossible(error.to_string()))?;
        let token = self.token().await?;
        for user in file.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()) {
            user.token = Some(token.clone().into());
        }
        Ok(file)
    }

    /// How the operator reaches the apiserver: as its service account.
    pub(crate) async fn config(&self) -> Result<Config, Error> {
        let config = Config::from_custom_kubeconfig(self.kubeconfig().await?, &KubeConfigOptions::default()).await;
        config.map_err(|error| Error::impossible(error.to_string()))
    }

    /// Starts an operator for this namespace.
    pub(crate) async fn operator(&self) -> Result<Operator, Error> {
        self.operator_with(self.options(), settings()).await
    }

    /// How an operator for this namespace runs.
    pub(crate) fn options(&self) -> Options {
        Options {
            namespaces: match INSTALL {
                Install::Roles => vec![self.namespace.clone()],
                Install::ClusterWide => Vec::new(),
            },
            concurrency: 4,
            writes_per_second: NonZeroU32::new(50),
            election: None,
            admin: None,
            resync: Duration::from_secs(600),
            instance: None,
            heartbeats: HeartbeatOptions::default(),
        }
    }

    /// Starts an operator that runs and wants otherwise.
    pub(crate) async fn operator_with(&self, options: Options, settings: Settings) -> Result<Operator, Error> {
        Ok(Operator::start(self.config().await?, options, settings))
    }

    /// Applies an object in this namespace, as a user does.
    pub(crate) async fn apply(&self, mut object: Value) -> Result<DynamicObject, Error> {
        let everywhere = [
            "Namespace",
            "ClusterRole",
            "ClusterRoleBinding",
            "CustomResourceDefinition",
        ];
        let namespaced = !everywhere.iter().any(|kind| object["kind"] == *kind);
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
    pub(crate) fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) async fn get<K>(&self, name: &str) -> Result<K, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        self.api::<K>()
            .get(name)
            .await
            .map_err(Error::kube(format!("read {name}")))
    }

    pub(crate) async fn list<K>(&self) -> Result<Vec<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let list = self.api::<K>().list(&ListParams::default()).await;
        Ok(list.map_err(Error::kube("list"))?.items)
    }

    pub(crate) async fn delete<K>(&self, name: &str) -> TestResult
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
    pub(crate) async fn merge<K>(&self, name: &str, patch: Value) -> TestResult
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

    /// Runs kubectl in this namespace.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Result<String, Error> {
        let arguments = [&["--namespace", &self.namespace], arguments].concat();
        self.world.cluster.kubectl(&arguments).await
    }

    /// Waits until a condition stands as expected for the object's present generation; gives the status.
    pub(crate) async fn condition<K>(
        &self,
        name: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> Result<Status, Error>
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
    pub(crate) async fn ready<K: Subject>(&self, name: &str) -> Result<Status, Error> {
        self.condition::<K>(name, "Ready", "True", "").await
    }

    /// What this namespace's operator wrote so far; status, events and its lease included.
    pub(crate) fn writes(&self) -> Result<Vec<audit::Event>, Error> {
        audit::writes_by(self.world.cluster.audit_log_path()?, &self.user())
    }

    /// What this namespace's operator asked for so far, without its lease.
    pub(crate) fn requests(&self) -> Result<Vec<audit::Event>, Error> {
        let mut all = audit::requests_by(self.world.cluster.audit_log_path()?, &self.user())?;
        all.retain(|event| !is_lease(event));
        Ok(all)
    }

    /// What this namespace's operator wrote to children so far.
    pub(crate) fn child_writes(&self) -> Result<Vec<String>, Error> {
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

    /// Writes so far to the status and the children of an object whose name has no `-`. Events are not counted: they are
    /// told, not kept.
    pub(crate) fn writes_for(&self, name: &str) -> Result<Vec<String>, Error> {
        let of_it = |event: &audit::Event| {
            let object = event
                .object_ref
                .as_ref()
                .filter(|object| object.api_group != "events.k8s.io")?;
            let owner = object.name.split('-').next().filter(|owner| *owner == name);
            owner.map(|_| format!("{} {} {}", event.verb, object.resource, object.subresource))
        };
        Ok(self.writes()?.iter().filter_map(of_it).collect())
    }

    /// Waits until the operator has written nothing for a while, and gives the number of its writes.
    pub(crate) async fn settled(&self) -> Result<usize, Error> {
        self.settled_for(Duration::from_secs(3)).await
    }

    /// The same, for so long: a status that was written five times lately is written only each ten seconds.
    pub(crate) async fn settled_for(&self, time: Duration) -> Result<usize, Error> {
        let (mut log, user) = (audit::Tail::new(self.world.cluster.audit_log_path()?), self.user());
        let mut last = (0, Instant::now());
        wait::until("the operator has nothing to write", LIMIT, async || {
            let news = log.news_of(&user)?;
            let writes = news.iter().filter(|event| event.is_write() && !is_lease(event)).count();
            if writes > 0 {
                last = (last.0 + writes, Instant::now());
            }
            Ok((last.1.elapsed() > time).then_some(last.0))
        })
        .await
    }

    /// Requests of the operator that its rules did not allow.
    pub(crate) fn forbidden(&self) -> Result<Vec<String>, Error> {
        let user = self.user();
        let all = audit::requests_by(self.world.cluster.audit_log_path()?, &user)?;
        let refused = all
            .into_iter()
            .filter(|event| event.response_status.as_ref().is_some_and(|status| status.code == 403));
        Ok(refused.map(|event| format!("{} {}", event.verb, event.uri)).collect())
    }

    /// Everything here that the operator may have made, by kind.
    pub(crate) async fn children(&self) -> Result<BTreeMap<String, Vec<String>>, Error> {
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
pub(crate) trait Subject:
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
    /// Starts an operator that reaches the apiserver in this way.
    pub(crate) fn start(config: Config, options: Options, settings: Settings) -> Self {
        let shutdown = Shutdown::new();
        let task = AbortOnDropHandle::new(tokio::spawn(run(config, options, settings, shutdown.clone())));
        Self { shutdown, task }
    }

    /// Stops it and waits for its end, which must be orderly.
    pub(crate) async fn stop(self) -> TestResult {
        self.shutdown.request();
        let end = self.task.await.map_err(|error| Error::impossible(error.to_string()))?;
        end.map_err(|error| Error::impossible(error.to_string()))
    }

    /// Ends it between two instructions.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Settings of the tests' operators.
pub(crate) fn settings() -> Settings {
    Settings {
        runner_image: "flowctl-runner:test".to_owned(),
        image_pull_policy: None,
        control_plane: None,
        allowed_control_planes: Vec::new(),
        pod_security: PodSecurity::Restricted,
        cluster_domain: "cluster.local".to_owned(),
        watched_namespaces: Vec::new(),
    }
}

fn is_lease(event: &audit::Event) -> bool {
    let group = event.object_ref.as_ref().map(|object| object.api_group.as_str());
    group == Some("coordination.k8s.io")
}

fn told(status: &Status) -> String {
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|condition| format!("{}={}/{}", condition.type_, condition.status, condition.reason))
        .collect();
    format!("{} why {:?}", conditions.join(" "), status.why)
}
