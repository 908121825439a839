//! Removal: garbage collection does it, with the operator there or not.

use std::time::Duration;

use flowctl_testkit::wait;

use super::scene::{NAMESPACE, OPERATOR, Scene};

const KINDS: &str = "deployments,replicasets,jobs,pods,services,configmaps,controllerrevisions,poddisruptionbudgets";

pub(crate) async fn everything_goes_with_the_operator_running_and_stopped(scene: &Scene) {
    let both = "pipelines.flowctl.dev,externalprocessors.flowctl.dev";
    scene
        .kubectl(&["delete", both, "--all", "--namespace", NAMESPACE])
        .await;
    nothing_left(scene).await;

    // Again, and now nobody is there to clean up.
    scene.apply(&scene.processor(50051, "ttp-processor:dev")).await;
    scene.apply(&scene.pipeline("payments", "Streaming", scene.range)).await;
    scene
        .wait("pipeline/payments", "condition=Ready", Duration::from_secs(120))
        .await;
    scene
        .kubectl(&[
            "scale",
            "deployment/flowctl-operator",
            "--replicas=0",
            "--namespace",
            OPERATOR,
        ])
        .await;
    let operator = [
        "wait",
        "pods",
        "--for=delete",
        "-l",
        "app.kubernetes.io/name=flowctl-operator",
    ];
    scene
        .kubectl(&[&operator[..], &["--namespace", OPERATOR, "--timeout=60s"]].concat())
        .await;
    scene
        .kubectl(&["delete", both, "--all", "--namespace", NAMESPACE])
        .await;
    nothing_left(scene).await;
    scene
        .kubectl(&["delete", "namespace", NAMESPACE, "--timeout=90s"])
        .await;
    scene
        .cluster
        .helm(&["uninstall", "flowctl-operator", "--namespace", OPERATOR, "--wait"])
        .await
        .expect("uninstalled");
    scene
        .kubectl(&[
            "delete",
            "crd",
            "pipelines.flowctl.dev",
            "externalprocessors.flowctl.dev",
            "--timeout=60s",
        ])
        .await;
}

async fn nothing_left(scene: &Scene) {
    let gone = wait::until_explained("nothing of ours is left", Duration::from_secs(120), async || {
        let left = scene.list(KINDS, "app.kubernetes.io/managed-by=flowctl-operator").await;
        let names: Vec<_> = left
            .iter()
            .map(|one| format!("{} {}", one["kind"], one["metadata"]["name"]))
            .collect();
        Ok(if names.is_empty() {
            Ok(())
        } else {
            Err(names.join(", "))
        })
    });
    if let Err(error) = gone.await {
        panic!("{error}");
    }
}
