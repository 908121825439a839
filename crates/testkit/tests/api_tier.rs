//! The API tier as its users need it: real controllers, a node that is played, nothing left behind.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use flowctl_testkit::cluster::{Cluster, Options};
use flowctl_testkit::fake_kubelet::{FakeKubelet, Outcome, Selector};
use flowctl_testkit::{Error, Result, Tier, audit, prepare, tier, wait};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);
const HOLD: &str = "FLOWCTL_TEST_HOLD";

fn deployment() -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:dev"}]},
            },
        },
    }))
    .expect("a deployment")
}

/// The processes that have this directory in their command line.
fn processes_of(directory: &Path) -> Vec<String> {
    let needle = directory.display().to_string();
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    let lines = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(&needle)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_becomes_available_and_goes_with_everything_it_owns() -> Result<()> {
    let Some(_) = tier::require(Tier::Api) else {
        return Ok(());
    };
    prepare(Tier::Api).await?;
    let cluster = Cluster::start(Tier::Api, Options::default()).await?;
    let client = cluster.client()?;
    let kubelet = FakeKubelet::start(client.clone()).await?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let created = deployments.create(&PostParams::default(), &deployment()).await;
    created.map_err(Error::kube("create"))?;
    cluster.kubectl(&["expose", "deployment", "web", "--port=80"]).await?;

    let available = async |count: i32| {
        wait::until("the deployment has that many available pods", LIMIT, async || {
            let seen = deployments.get_status("web").await.map_err(Error::kube("read"))?;
            let available = seen.status.and_then(|status| status.available_replicas).unwrap_or(0);
            Ok((available == count).then_some(()))
        })
        .await
    };
    available(2).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    wait::until("the service has both endpoints", LIMIT, async || {
        let list = slices
            .list(&ListParams::default().labels("kubernetes.io/service-name=web"))
            .await;
        let list = list.map_err(Error::kube("list"))?;
        let ready = list
            .items
            .iter()
            .flat_map(|slice| slice.endpoints.iter())
            .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true));
        Ok((ready.count() == 2).then_some(()))
    })
    .await?;

    kubelet.script(
        Selector::labels(&[("app", "web")]),
        Outcome::CrashLoop {
            exit_code: 1,
            restarts: 4,
        },
    );
    available(0).await?;
    let list = pods.list(&ListParams::default()).await.map_err(Error::kube("list"))?;
    let reasons = list.items.iter().flat_map(|pod| {
        let status = pod.status.as_ref().expect("a status");
        status.container_statuses.iter().flatten().map(|container| {
            let state = container.state.as_ref().expect("a state");
            (
                state.waiting.as_ref().and_then(|waiting| waiting.reason.clone()),
                container.restart_count,
            )
        })
    });
    assert!(reasons.clone().count() == 2 && reasons.eq(vec![(Some("CrashLoopBackOff".to_owned()), 4); 2]));
    kubelet.script(Selector::All, Outcome::Ready);
    available(2).await?;

    deployments
        .delete("web", &DeleteParams::default())
        .await
        .map_err(Error::kube("delete"))?;
    let replica_sets: Api<ReplicaSet> = Api::namespaced(client, "default");
    wait::until("the garbage collector has removed everything", LIMIT, async || {
        let sets = replica_sets
            .list(&ListParams::default())
            .await
            .map_err(Error::kube("list"))?
            .items;
        let pods = pods
            .list(&ListParams::default())
            .await
            .map_err(Error::kube("list"))?
            .items;
        Ok((sets.is_empty() && pods.is_empty()).then_some(()))
    })
    .await?;

    let directory = cluster.directory().to_owned();
    assert!(!processes_of(&directory).is_empty());
    cluster.stop().await?;
    assert_eq!(processes_of(&directory), Vec::<String>::new());
    assert!(!directory.exists(), "its directory is removed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_end_as_scripted_and_clusters_run_side_by_side() -> Result<()> {
    let Some(_) = tier::require(Tier::Api) else {
        return Ok(());
    };
    prepare(Tier::Api).await?;
    let (first, second) = tokio::join!(
        Cluster::start(Tier::Api, Options::default()),
        Cluster::start(Tier::Api, Options::default())
    );
    let (first, second) = (first?, second?);
    let client = first.client()?;
    let kubelet = FakeKubelet::start(client.clone()).await?;
    kubelet.script(Selector::labels(&[("job-name", "good")]), Outcome::Exit(0));
    kubelet.script(
        Selector::predicate(|pod| pod.name_any().starts_with("bad")),
        Outcome::Exit(3),
    );
    let jobs: Api<Job> = Api::namespaced(client, "default");
    for name in ["good", "bad"] {
        let job = json!({
            "metadata": {"name": name},
            "spec": {"backoffLimit": 0, "template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "work", "image": "work:dev"}],
            }}},
        });
        let job: Job = serde_json::from_value(job).expect("a job");
        jobs.create(&PostParams::default(), &job)
            .await
            .map_err(Error::kube("create"))?;
    }
    for (name, condition) in [("good", "Complete"), ("bad", "Failed")] {
        wait::until("the job has ended", LIMIT, async || {
            let job = jobs.get_status(name).await.map_err(Error::kube("read"))?;
            let conditions = job.status.and_then(|status| status.conditions).unwrap_or_default();
            Ok(conditions
                .iter()
                .any(|seen| seen.type_ == condition && seen.status == "True")
                .then_some(()))
        })
        .await?;
    }
    let others: Api<Job> = Api::namespaced(second.client()?, "default");
    let seen = others.list(&ListParams::default()).await.map_err(Error::kube("list"))?;
    assert!(
        seen.items.is_empty(),
        "the second cluster knows nothing of the first one's objects"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_tells_whose_rights_a_write_used() -> Result<()> {
    let Some(_) = tier::require(Tier::Api) else {
        return Ok(());
    };
    prepare(Tier::Api).await?;
    let cluster = Cluster::start(Tier::Api, Options::default()).await?;
    let user = "system:serviceaccount:default:tester";
    let deployments: Api<Deployment> = Api::namespaced(cluster.client_as(user)?, "default");
    let refused = deployments.create(&PostParams::default(), &deployment()).await;
    assert!(refused.is_err(), "no role was bound to it");
    cluster
        .kubectl(&[
            "create",
            "rolebinding",
            "t",
            "--clusterrole=edit",
            "--serviceaccount=default:tester",
        ])
        .await?;
    wait::until("the role counts", LIMIT, async || {
        Ok(deployments.create(&PostParams::default(), &deployment()).await.ok())
    })
    .await?;
    let log = cluster.audit_log_path()?;
    let writes = wait::until("the log has the write", LIMIT, async || {
        let writes = audit::writes_by(log, user)?;
        let accepted = |event: &audit::Event| event.response_status.as_ref().is_some_and(|status| status.code == 201);
        Ok(writes.iter().any(accepted).then_some(writes))
    })
    .await?;
    let object = writes[0].object_ref.as_ref().expect("an object");
    assert_eq!(
        (object.resource.as_str(), writes[0].verb.as_str()),
        ("deployments", "create")
    );
    assert_eq!(writes[0].response_status.as_ref().map(|status| status.code), Some(403));
    Ok(())
}

/// Not a test of its own: the process that the next test kills.
#[tokio::test(flavor = "multi_thread")]
async fn holder() -> Result<()> {
    let Some(file) = std::env::var_os(HOLD).map(PathBuf::from) else {
        return Ok(());
    };
    let cluster = Cluster::start(Tier::Api, Options::default()).await?;
    let unfinished = file.with_extension("unfinished");
    std::fs::write(&unfinished, cluster.directory().display().to_string()).map_err(Error::io("write"))?;
    std::fs::rename(&unfinished, &file).map_err(Error::io("rename"))?;
    std::future::pending().await
}

/// A process that has a cluster, and does not outlive its test.
struct Holder(Child);

impl Holder {
    fn kill(&mut self) -> Result<()> {
        self.0.kill().map_err(Error::io("kill it"))?;
        self.0.wait().map(drop).map_err(Error::io("reap it"))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // A failure means that it has ended already.
        let _ = self.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_that_is_killed_leaves_nothing() -> Result<()> {
    let Some(_) = tier::require(Tier::Api) else {
        return Ok(());
    };
    prepare(Tier::Api).await?;
    let scratch = tempfile::tempdir().map_err(Error::io("make a directory"))?;
    let file = scratch.path().join("directory");
    let holder = Command::new(std::env::current_exe().map_err(Error::io("find myself"))?)
        .args(["--exact", "holder"])
        .env(HOLD, &file)
        .stdout(Stdio::null())
        .spawn()
        .map_err(Error::io("start myself"))?;
    let mut holder = Holder(holder);
    let directory = wait::until(
        "the other process has a cluster",
        Duration::from_secs(120),
        async || Ok(std::fs::read_to_string(&file).ok().map(PathBuf::from)),
    )
    .await?;
    assert!(
        processes_of(&directory).len() >= 4,
        "supervisor, etcd, apiserver, controller manager"
    );
    holder.kill()?;
    wait::until("nothing is left of it", LIMIT, async || {
        Ok((processes_of(&directory).is_empty() && !directory.exists()).then_some(()))
    })
    .await
}
