//! The cluster of the benchmark and the account that both the operator and the bare loop write as: with the generated
//! rules and nothing else, so that the apiserver treats them alike.

use flowctl_operator::rbac::{Scope, rules};
use flowctl_testkit::{
    Error, Result, Tier,
    cluster::{Cluster, Options},
    fake_kubelet::FakeKubelet,
};
use kube::{Client, config::Kubeconfig};
use serde_json::{Value, json};

use crate::generate::project_root;

/// Whom both write as.
pub(super) const USER: &str = "system:serviceaccount:bench:operator";

/// A cluster, perhaps with a node that is played.
pub(super) struct Scene {
    pub(super) cluster: Cluster,
    pub(super) client: Client,
    pub(super) kubeconfig: tempfile::NamedTempFile,
    _kubelet: Option<FakeKubelet>,
}

// === impl Scene ===

impl Scene {
    /// Starts it; without pods there are no controllers for workloads either.
    pub(super) async fn start(pods: bool) -> Result<Self> {
        let root = project_root().map_err(|error| Error::impossible(error.to_string()))?;
        let crds = root.join("crds");
        let without = if pods { &[][..] } else { &super::WORKLOADS[..] };
        let options = Options {
            crds: vec![crds],
            without_controllers: without.iter().map(|name| (*name).to_owned()).collect(),
            // It would be turned over at 100 MB.
            apiserver_arguments: vec!["--audit-log-maxsize=8000".to_owned()],
        };
        let cluster = Cluster::start(Tier::Api, options).await?;
        let client = cluster.client()?;
        let kubelet = match pods {
            true => Some(FakeKubelet::start(client.clone()).await?),
            false => None,
        };
        let kubeconfig = impersonating(&cluster)?;
        let scene = Self {
            cluster,
            client,
            kubeconfig,
            _kubelet: kubelet,
        };
        scene.namespace("bench").await?;
        let group = "rbac.authorization.k8s.io";
        let role = json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": "bench"},
            "rules": rules(Scope::Objects)});
        scene.apply(&role).await?;
        let binding = json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "bench"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "bench"},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": "bench"}],
        });
        scene.apply(&binding).await?;
        Ok(scene)
    }

    /// Makes a namespace.
    pub(super) async fn namespace(&self, name: &str) -> Result<String> {
        self.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
            .await?;
        Ok(name.to_owned())
    }

    async fn apply(&self, object: &Value) -> Result<()> {
        let arguments = ["apply", "--server-side", "-f", "-"];
        self.cluster
            .kubectl_input(&arguments, &object.to_string())
            .await
            .map(drop)
    }

    /// Stops everything.
    pub(super) async fn stop(self) -> Result<()> {
        self.cluster.stop().await
    }
}

/// A kubeconfig that acts as the operator's account.
fn impersonating(cluster: &Cluster) -> Result<tempfile::NamedTempFile> {
    let wrong = |error: String| Error::impossible(format!("cannot write a kubeconfig: {error}"));
    let mut file = Kubeconfig::read_from(cluster.kubeconfig()).map_err(|error| wrong(error.to_string()))?;
    for user in file.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()) {
        user.impersonate = Some(USER.to_owned());
        user.impersonate_groups = Some(
            ["system:serviceaccounts", "system:authenticated"]
                .map(str::to_owned)
                .into(),
        );
    }
    write(&file)
}

/// The same kubeconfig with another address of the apiserver.
pub(super) fn through(kubeconfig: &std::path::Path, port: u16) -> Result<tempfile::NamedTempFile> {
    let wrong = |error: String| Error::impossible(format!("cannot write a kubeconfig: {error}"));
    let mut file = Kubeconfig::read_from(kubeconfig).map_err(|error| wrong(error.to_string()))?;
    for cluster in file.clusters.iter_mut().filter_map(|cluster| cluster.cluster.as_mut()) {
        cluster.server = Some(format!("https://127.0.0.1:{port}"));
    }
    write(&file)
}

fn write(file: &Kubeconfig) -> Result<tempfile::NamedTempFile> {
    let text = serde_json::to_string(file).map_err(|error| Error::impossible(error.to_string()))?;
    let written = tempfile::NamedTempFile::new().map_err(Error::io("make a file"))?;
    std::fs::write(written.path(), text).map_err(Error::file("write", written.path()))?;
    Ok(written)
}
