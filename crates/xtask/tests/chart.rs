//! The chart against a real apiserver, without a node: what an administrator's install would be refused for.

use std::{path::Path, time::Duration};

use flowctl_testkit::{
    cluster::{Cluster, Options},
    tier::{Tier, require},
    wait,
};
use serde_json::json;
use xtask::generate::project_root;

const INSTALLS: &[&[&str]] = &[
    &[],
    &["--set", "watchNamespaces={default,kube-public}"],
    &[
        "--set",
        "replicas=2,metrics.service=false,rbac.aggregate=false,crds.keep=false,controlPlane.external.endpoint=flowctl.x:8080,controlPlane.external.caBundle=PEM,controlPlane.clientSecretName=c,metrics.heartbeatKeys={processed,stellar.*}",
    ],
    &[
        "--set",
        "leaderElection=false,runner.image=registry.example.com/runner:2,runner.pullPolicy=Always,log.format=text",
    ],
    &[
        "--set",
        "controlPlane.persistence.enabled=true,controlPlane.identity=required,controlPlane.tls.secretName=t,controlPlane.tls.caBundle=PEM",
    ],
    &["--set", "controlPlane.enabled=false"],
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
        // Helm writes large numbers with an exponent, unless it is told otherwise; then the control plane would not start.
        assert_eq!(
            manifests.contains("- server\n"),
            manifests.contains("- --history-bytes=67108864\n"),
            "{values:?}"
        );
        let identity = values.iter().any(|value| value.contains("identity=required"));
        assert_eq!(
            identity,
            manifests.contains("resources: [tokenreviews]"),
            "{values:?}: the control plane may review tokens only where it checks them"
        );
        assert!(
            !manifests.to_lowercase().contains("- secrets"),
            "{values:?}: the operator may never read Secrets"
        );
    }
    // Its kind is the Prometheus operator's, which is not here; what it says is not a template's.
    let rules = template(
        &cluster,
        &chart,
        &["--set", "metrics.prometheusRule=true,metrics.serviceMonitor=true,metrics.interval=15s,metrics.labels.release=monitoring"],
    )
    .await
    .expect("the chart renders");
    let rules = rules
        .split("\n---\n")
        .find(|part| part.contains("kind: PrometheusRule"));
    let rules: serde_json::Value = serde_saphyr::from_str(rules.expect("a PrometheusRule")).expect("YAML");
    let expressions = rules["spec"]["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .flat_map(|group| {
            let rules = group["rules"].as_array().expect("rules");
            rules.iter().map(|rule| rule["expr"].as_str().expect("an expression"))
        });
    assert!(expressions.count() >= 10, "{rules}");
    assert_eq!(rules["metadata"]["labels"]["release"], "monitoring");
    // Components would report to nobody, or to a name that the certificate does not carry.
    for (values, control_plane) in [
        (
            &[][..],
            Some("flowctl-operator-control-plane.default.svc.cluster.local:8080"),
        ),
        (
            &["--set", "clusterDomain=corp.example"],
            Some("flowctl-operator-control-plane.default.svc.corp.example:8080"),
        ),
        (
            &["--set", "controlPlane.external.endpoint=flowctl.x:8080"],
            Some("flowctl.x:8080"),
        ),
        (&["--set", "controlPlane.enabled=false"], None),
    ] {
        let manifests = template(&cluster, &chart, values).await.expect("the chart renders");
        let flags: Vec<_> = manifests
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- --control-plane="))
            .collect();
        assert_eq!(flags, Vec::from_iter(control_plane), "{values:?}");
        let runs_one = control_plane.is_some_and(|endpoint| endpoint.starts_with("flowctl-operator"));
        assert_eq!(runs_one, manifests.contains("- server\n"), "{values:?}");
    }
    for (wrong, named) in [
        ("podSecurity=privileged", "podSecurity"),
        ("replica=2", "replica"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("concurrency=0", "concurrency"),
        ("controlPlane.endpoint=flowctl.x:8080", "endpoint"),
        ("controlPlane.heartbeatTtl=30", "heartbeatTtl"),
        ("controlPlane.tls.secretName=t", "caBundle"),
        ("controlPlane.tls.caBundle=PEM", "secretName"),
        ("replicas=2,leaderElection=false", "leaderElection"),
        ("metrics.interval=often", "interval"),
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

/// A user, a verb, and a resource with its subresource.
type Question = (&'static str, &'static str, String);

/// What the apiserver answers to `kubectl auth can-i`, of many questions at once, in namespace `team`.
async fn may(cluster: &Cluster, questions: &[Question]) -> Vec<bool> {
    let review = |(user, verb, resource): &Question| {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": {
                "namespace": "team", "group": "flowctl.dev", "verb": verb, "resource": resource, "subresource": subresource,
            }},
        })
    };
    let reviews: Vec<_> = questions.iter().map(review).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": reviews}).to_string();
    let output = "jsonpath={.status.allowed}{\"\\n\"}";
    let answers = cluster
        .kubectl_input(&["create", "-f", "-", "-o", output], &list)
        .await
        .expect("answers");
    let answers: Vec<_> = answers.lines().map(|line| line == "true").collect();
    assert_eq!(answers.len(), questions.len(), "an answer to each question");
    answers
}

// Teams are given `edit` or `view` in their namespace and nothing else: without these rules an administrator would have
// to write them, and with a rule too many a team could write what only the operator may.
#[tokio::test]
async fn editors_and_viewers_of_a_namespace_get_the_kinds_with_their_role() {
    if require(Tier::Api).is_none() {
        return;
    }
    let cluster = Cluster::start(Tier::Api, Options::default())
        .await
        .expect("the cluster starts");
    let chart = project_root().expect("a checkout").join("charts/flowctl-operator");
    let manifests = template(&cluster, &chart, &[]).await.expect("the chart renders");
    let applied = cluster
        .kubectl_input(&["apply", "--server-side", "-f", "-"], &manifests)
        .await;
    applied.expect("the chart is applied");
    let kubectl = async |arguments: &[&str]| cluster.kubectl(arguments).await.expect("kubectl");
    kubectl(&["create", "namespace", "team"]).await;
    for role in ["view", "edit", "admin"] {
        let (name, user) = (format!("{role}s"), format!("--user={role}er"));
        let role = format!("--clusterrole={role}");
        kubectl(&["create", "rolebinding", &name, &role, &user, "--namespace", "team"]).await;
    }
    let kinds = ["pipelines", "externalprocessors"];
    // The controller manager puts the roles together.
    wait::until("the roles are put together", Duration::from_secs(60), async || {
        let users = ["viewer", "editer", "adminer"];
        let question = users.map(|user| (user, "get", kinds[0].to_owned()));
        Ok(may(&cluster, &question).await.iter().all(|may| *may).then_some(()))
    })
    .await
    .expect("aggregated");

    let (mut questions, mut expected): (Vec<Question>, Vec<bool>) = (Vec::new(), Vec::new());
    let mut ask = |user, verb, resource: &str, answer| {
        questions.push((user, verb, resource.to_owned()));
        expected.push(answer);
    };
    for user in ["viewer", "editer", "adminer"] {
        let edits = user != "viewer";
        for kind in kinds {
            for verb in ["get", "list", "watch"] {
                ask(user, verb, kind, true);
            }
            for verb in ["create", "update", "patch", "delete", "deletecollection"] {
                ask(user, verb, kind, edits);
            }
            ask(user, "get", &format!("{kind}/status"), true);
            ask(user, "patch", &format!("{kind}/status"), false);
        }
        ask(user, "get", "externalprocessors/scale", true);
        for verb in ["update", "patch"] {
            ask(user, verb, "externalprocessors/scale", edits);
        }
    }
    ask("stranger", "get", kinds[0], false);
    let answers = may(&cluster, &questions).await;
    let wrong: Vec<_> = questions
        .iter()
        .zip(answers.iter().zip(&expected))
        .filter(|(_, (answer, expected))| answer != expected)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    cluster.stop().await.expect("nothing is left");
}

async fn template(cluster: &Cluster, chart: &Path, values: &[&str]) -> Result<String, flowctl_testkit::Error> {
    let chart = chart.display().to_string();
    let mut arguments = vec!["template", "flowctl-operator", &chart, "--namespace", "default"];
    arguments.extend(values);
    cluster.helm(&arguments).await
}
