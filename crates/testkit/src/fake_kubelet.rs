//! Plays the node on the API tier: gives pods a node, lets them run, fail or wait as a script says, and removes pods
//! that are being deleted, as a kubelet does. It runs no container and must not be needed on the node tier.

mod status;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::{Error, Result};

/// The node that the pods of the API tier are bound to.
pub const NODE: &str = "fake-node";

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Runs and is ready. What happens to pods that no rule selects.
    Ready,
    /// Runs, never ready.
    NotReady,
    /// Its first container ends again and again, with this exit code (0 too), restarted this often so far.
    CrashLoop {
        /// What it ended with.
        exit_code: i32,
        /// How often it was restarted.
        restarts: i32,
    },
    /// Its first container is killed for its memory again and again.
    OomKilled {
        /// How often it was restarted.
        restarts: i32,
    },
    /// Its image cannot be pulled.
    ImagePullBackOff,
    /// It ran to its end: the phase is Succeeded for 0, else Failed.
    Exit(i32),
    /// No node is found for it; the message is the scheduler's.
    Unschedulable(String),
    /// Nobody looks at it.
    Pending,
}

/// Selects pods.
#[derive(Clone)]
pub enum Selector {
    /// Every pod.
    All,
    /// Pods that have all these labels.
    Labels(Vec<(String, String)>),
    /// Pods for which this is true.
    Predicate(Arc<dyn Fn(&Pod) -> bool + Send + Sync>),
}

/// A running fake kubelet. Dropping it stops it; the pods stay as they are.
#[derive(Debug)]
pub struct FakeKubelet {
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

/// What both of its tasks need.
struct Shared {
    client: Client,
    rules: Mutex<Vec<(Selector, Outcome)>>,
    /// What was done to a pod, by uid.
    done: Mutex<HashMap<String, Outcome>>,
    changed: Notify,
    addresses: Mutex<u16>,
}

// === impl Selector ===

impl Selector {
    /// Pods that have these labels.
    pub fn labels(labels: &[(&str, &str)]) -> Self {
        Self::Labels(
            labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    /// Pods for which this is true.
    pub fn predicate(predicate: impl Fn(&Pod) -> bool + Send + Sync + 'static) -> Self {
        Self::Predicate(Arc::new(predicate))
    }

    fn selects(&self, pod: &Pod) -> bool {
        match self {
            Self::All => true,
            Self::Labels(labels) => labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value)),
            Self::Predicate(predicate) => predicate(pod),
        }
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => formatter.write_str("All"),
            Self::Labels(labels) => formatter.debug_tuple("Labels").field(labels).finish(),
            Self::Predicate(_) => formatter.write_str("Predicate"),
        }
    }
}

// === impl FakeKubelet ===

impl FakeKubelet {
    /// Makes its node and begins to watch the pods of all namespaces.
    ///
    /// # Errors
    /// When the node cannot be made.
    pub async fn start(client: Client) -> Result<Self> {
        register_node(&client).await?;
        let shared = Arc::new(Shared {
            client,
            rules: Mutex::default(),
            done: Mutex::default(),
            changed: Notify::new(),
            addresses: Mutex::new(0),
        });
        let watching = tokio::spawn(watch(Arc::clone(&shared)));
        let reviewing = tokio::spawn(review(Arc::clone(&shared)));
        Ok(Self {
            shared,
            tasks: [watching, reviewing],
        })
    }

    /// Adds a rule. The newest rule that selects a pod decides; pods that exist already are changed too, except
    /// those that have run to their end.
    pub fn script(&self, selector: Selector, outcome: Outcome) {
        self.shared
            .rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((selector, outcome));
        self.shared.changed.notify_one();
    }
}

impl Drop for FakeKubelet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

// === impl Shared ===

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    fn outcome(&self, pod: &Pod) -> Outcome {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let rule = rules.iter().rev().find(|(selector, _)| selector.selects(pod));
        rule.map_or(Outcome::Ready, |(_, outcome)| outcome.clone())
    }

    /// An address for a pod, of a range that nobody routes (RFC 2544).
    fn next_address(&self) -> String {
        let mut last = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        *last = last.wrapping_add(1);
        let [high, low] = last.to_be_bytes();
        format!("198.18.{high}.{low}")
    }

    /// Does for a pod what is due. Errors are retried with the pod's next event or the next review: a pod that
    /// changed or went in between is no news.
    async fn handle(&self, pod: &Pod) {
        let namespace = pod.namespace().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        if let Err(error) = self.advance(&api, pod).await {
            match error {
                kube::Error::Api(status) if status.is_not_found() || status.is_conflict() => {}
                error => eprintln!("fake kubelet: pod {namespace}/{}: {error}", pod.name_any()),
            }
        }
    }

    async fn advance(&self, api: &Api<Pod>, pod: &Pod) -> Result<(), kube::Error> {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        if pod.metadata.deletion_timestamp.is_some() {
            let now = DeleteParams {
                grace_period_seconds: Some(0),
                ..DeleteParams::default()
            };
            return api.delete(&name, &now).await.map(drop);
        }
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .unwrap_or("Pending");
        let outcome = self.outcome(pod);
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).get(&uid) == Some(&outcome);
        if done || matches!(phase, "Succeeded" | "Failed") || outcome == Outcome::Pending {
            return Ok(());
        }
        let needs_node = !matches!(outcome, Outcome::Unschedulable(_));
        let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        if needs_node && !bound {
            return bind(api, pod).await;
        }
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        let address = address.unwrap_or_else(|| self.next_address());
        let patch = json!({"metadata": {"uid": uid}, "status": status::of(pod, &outcome, &address)});
        api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch))
            .await?;
        self.done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid, outcome);
        Ok(())
    }
}

/// Follows the pods. The watcher heals itself; it ends only with this task.
async fn watch(shared: Arc<Shared>) {
    let pods: Api<Pod> = Api::all(shared.client.clone());
    let mut events = watcher(pods, watcher::Config::default()).boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => shared.handle(&pod).await,
            Ok(watcher::Event::Delete(_) | watcher::Event::Init | watcher::Event::InitDone) => {}
            // The apiserver goes before us when a cluster stops.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
        }
    }
}

/// Looks at all pods again whenever the script changes.
async fn review(shared: Arc<Shared>) {
    loop {
        shared.changed.notified().await;
        let pods: Api<Pod> = Api::all(shared.client.clone());
        if let Ok(list) = pods.list(&ListParams::default()).await {
            for pod in &list.items {
                shared.handle(pod).await;
            }
        }
    }
}

async fn bind(api: &Api<Pod>, pod: &Pod) -> Result<(), kube::Error> {
    let name = pod.name_any();
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "uid": pod.uid()},
        "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
    });
    let _: serde_json::Value = api
        .create_subresource("binding", &name, &PostParams::default(), &binding)
        .await?;
    Ok(())
}

/// The endpoint controllers leave out pods whose node they cannot find.
async fn register_node(client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}},
        "status": {
            "capacity": {"cpu": "64", "memory": "256Gi", "pods": "1000"},
            "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "1000"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "FakeKubelet"}],
        },
    });
    let parameters = PatchParams::apply("fake-kubelet").force();
    nodes
        .patch(NODE, &parameters, &Patch::Apply(&node))
        .await
        .map_err(Error::kube("make the fake node"))?;
    nodes
        .patch_status(NODE, &parameters, &Patch::Apply(&node))
        .await
        .map_err(Error::kube("make it ready"))?;
    Ok(())
}
