//! The chart against a real apiserver, without a node: what an administrator's install would be refused for.

use std::path::Path;

use flowctl_testkit::{
    cluster::{Cluster, Options},
    tier::{Tier, require},
};
use xtask::generate::project_root;

const INSTALLS: &[&[&str]] = &[
    &[],
    &["--set", "watchNamespaces={default,kube-public}"],
    &[
        "--set",
        "replicas=2,metrics.service=false,rbac.aggregate=false,crds.keep=false,controlPlane.endpoint=flowctl.x:8080,controlPlane.caBundle=PEM",
    ],
    &[
        "--set",
        "leaderElection=false,runner.image=registry.example.com/runner:2,runner.pullPolicy=Always,log.format=text",
    ],
];

#[tokio::test]
async fn every_way_to_install_is_accepted_and_wrong_values_are_named() {
    if require(Tier::Api).is_none() {
        return;
    }
    let cluster = Cluster::start(Tier::Api, Options::default())
        .await
        .expect("the cluster starts");
    let chart = project_root().expect("a checkout").join("charts/flowctl-operator");
    for values in INSTALLS {
        let manifests = template(&cluster, &chart, values).await.expect("the chart renders");
        let accepted = cluster
            .kubectl_input(&["apply", "--server-side", "--dry-run=server", "-f", "-"], &manifests)
            .await;
        assert!(accepted.is_ok(), "{values:?}: {accepted:?}");
        let restricted = values.iter().any(|value| value.contains("watchNamespaces"));
        assert_eq!(
            restricted,
            !manifests.contains("kind: ClusterRole\n"),
            "{values:?}: cluster-wide rights"
        );
        assert!(
            !manifests.to_lowercase().contains("- secrets"),
            "{values:?}: the operator may never read Secrets"
        );
    }
    for (wrong, named) in [
        ("podSecurity=privileged", "podSecurity"),
        ("replica=2", "replica"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("concurrency=0", "concurrency"),
        ("replicas=2,leaderElection=false", "leaderElection"),
    ] {
        let refused = template(&cluster, &chart, &["--set", wrong])
            .await
            .expect_err(wrong)
            .to_string();
        assert!(
            refused.contains(named),
            "{wrong}: the message does not name {named}: {refused}"
        );
    }
    cluster.stop().await.expect("nothing is left");
}

async fn template(cluster: &Cluster, chart: &Path, values: &[&str]) -> Result<String, flowctl_testkit::Error> {
    let chart = chart.display().to_string();
    let mut arguments = vec!["template", "flowctl-operator", &chart, "--namespace", "default"];
    arguments.extend(values);
    cluster.helm(&arguments).await
}
