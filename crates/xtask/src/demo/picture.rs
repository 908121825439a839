//! What the demo shows at its end, and what to try next.

use anyhow::Result;
use flowctl_testkit::cluster::Cluster;

use super::ledgers::Ledgers;

/// The objects, the wired file, who reports to the control plane in `control_plane`, and the totals by asset.
pub(super) async fn show(
    cluster: &Cluster,
    namespace: &str,
    control_plane: &str,
    ledgers: &Ledgers,
    totals: &str,
) -> Result<()> {
    println!("\n$ kubectl get pipelines,externalprocessors --namespace {namespace}\n");
    let objects = "pipelines.flowctl.dev,externalprocessors.flowctl.dev";
    println!(
        "{}",
        cluster.kubectl(&["get", objects, "--namespace", namespace]).await?
    );

    let revision = cluster
        .kubectl(&[
            "get",
            "pipeline.flowctl.dev",
            "payments",
            "--namespace",
            namespace,
            "-o",
            "jsonpath={.status.revision.current}",
        ])
        .await?;
    let file = format!("payments-{}", revision.trim());
    println!("The pipeline file of `payments`, with the endpoints that the operator wrote (ConfigMap {file}):\n");
    let text = cluster
        .kubectl(&[
            "get",
            "configmap",
            &file,
            "--namespace",
            namespace,
            "-o",
            r"jsonpath={.data.pipeline\.yaml}",
        ])
        .await?;
    for line in text.lines() {
        println!("    {line}");
    }
    println!("\n$ kubectl flowctl --namespace {control_plane} status\n");
    println!("{}", cluster.flowctl(control_plane, &["status"]).await?);
    let origin = if ledgers.is_sample() {
        "sample ledgers, not a real network"
    } else {
        "real ledgers"
    };
    println!("What the sink counted ({origin}):\n\n{totals}");
    Ok(())
}

/// How to go on with a cluster that runs on.
pub(super) fn next_steps(cluster: &Cluster, namespace: &str, succeeded: bool) -> Result<()> {
    let command = cluster.kubectl_command()?;
    let kubectl = command.as_std().get_program().to_string_lossy().into_owned();
    let context: Vec<_> = command
        .as_std()
        .get_args()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    let state = if succeeded {
        "The cluster is still running."
    } else {
        "The demo failed, and the cluster is still running."
    };
    println!("\n{state} To look around:\n");
    println!("    export KUBECONFIG={}", cluster.kubeconfig().display());
    println!("    alias k='{kubectl} {} --namespace {namespace}'", context.join(" "));
    println!("    k describe pipeline payments                           # conditions and events");
    println!("    k scale externalprocessor/ttp-processor --replicas 3   # no pipeline restarts");
    println!("    k delete externalprocessor ttp-processor               # then: k get fpl -o wide");
    println!("    k apply -f examples/processors.yaml                    # and it heals");
    println!("    k logs -l flowctl.dev/name=backfill --tail 3           # the events of the last ledgers");
    println!("\nTo take it down:  cargo xtask demo --down");
    Ok(())
}
