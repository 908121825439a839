//! Tokens of a real apiserver: what a kubelet projects into a pod, what it must open here, and what it must not.

mod support;

use std::sync::Arc;

use flowctl_control_plane::{IdentityMode, KubeReviewer, ReviewError, Reviewer as _, Server, ServerArgs};
use flowctl_proto::flowctl::v1::HealthStatus;
use flowctl_testkit::cluster::{Cluster, Options};
use flowctl_testkit::{Tier, audit, tier};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use support::{Running, args, component, register, run, until, v1_beat};
use tonic::{Code, Request, Status};

const OURS: &str = "flowctl-system";
const THEIRS: &str = "shop";

/// The control plane's own account, which may create token reviews and nothing else.
const REVIEWER: &str = "system:serviceaccount:flowctl-system:control-plane";

fn read<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object")
}

async fn prepare(client: &Client) {
    let post = PostParams::default();
    for name in [OURS, THEIRS] {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces
            .create(&post, &read(json!({"metadata": {"name": name}})))
            .await
            .expect("a namespace");
    }
    for (namespace, name) in [(OURS, "control-plane"), (THEIRS, "pay")] {
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        accounts
            .create(&post, &read(json!({"metadata": {"name": name}})))
            .await
            .expect("an account");
    }
    let rules = json!([{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}]);
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let role = read(json!({"metadata": {"name": "reviewer"}, "rules": rules}));
    roles.create(&post, &role).await.expect("a role");
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    let binding = read(json!({
        "metadata": {"name": "reviewer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reviewer"},
        "subjects": [{"kind": "ServiceAccount", "name": "control-plane", "namespace": OURS}],
    }));
    bindings.create(&post, &binding).await.expect("a binding");
}

/// Makes a pod (which nobody runs) and gives its uid.
async fn pod(client: &Client, name: &str) -> String {
    let pods: Api<Pod> = Api::namespaced(client.clone(), THEIRS);
    let pod = read(json!({
        "metadata": {"name": name},
        "spec": {"serviceAccountName": "pay", "containers": [{"name": "main", "image": "none"}]},
    }));
    let made = pods.create(&PostParams::default(), &pod).await.expect("a pod");
    made.metadata.uid.expect("a uid")
}

/// A token as the kubelet asks for it.
async fn token(client: &Client, account: (&str, &str), audiences: &[&str], pod: Option<(&str, &str)>) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), account.0);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: audiences.iter().map(|one| (*one).to_owned()).collect(),
            bound_object_ref: pod.map(|(name, uid)| BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(name.to_owned()),
                uid: Some(uid.to_owned()),
            }),
            expiration_seconds: Some(600),
        },
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request(account.1, &PostParams::default(), &request)
        .await;
    answer.expect("a token").status.expect("a token").token
}

/// How the control plane reaches the apiserver: as its own account.
async fn reviewer(cluster: &Cluster, token: &str) -> KubeReviewer {
    let mut file = Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig");
    for user in &mut file.auth_infos {
        user.auth_info = Some(read(json!({"token": token})));
    }
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    KubeReviewer::new(config.expect("a config")).expect("a client")
}

async fn server(reviewer: KubeReviewer) -> Running {
    let args = ServerArgs {
        identity: Some(IdentityMode::Required),
        ..args()
    };
    run(Server::new(args).reviewer(Arc::new(reviewer))).await
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

async fn claim(server: &Running, token: &str, id: &str) -> Result<(), Status> {
    let request = with(token, register(component(id)));
    server.v1().register_component(request).await.map(drop)
}

async fn beat(server: &Running, token: &str, id: &str) -> Result<(), Status> {
    let request = with(token, v1_beat(id, HealthStatus::Healthy, &[]));
    server.v1().heartbeat(request).await.map(drop)
}

fn code(outcome: Result<(), Status>) -> Code {
    outcome.map_or_else(|status| status.code(), |()| Code::Ok)
}

// What the fake in the other tests believes of an apiserver must be true of a real one, with the rights that the chart
// gives and no others.
#[tokio::test(flavor = "multi_thread")]
async fn real_tokens_open_what_is_the_pods_own() {
    if tier::require(Tier::Api).is_none() {
        return;
    }
    let cluster = Cluster::start(Tier::Api, Options::default()).await.expect("a cluster");
    let client = cluster.client().expect("a client");
    prepare(&client).await;
    let own_token = token(&client, (OURS, "control-plane"), &[], None).await;
    let server_1 = server(reviewer(&cluster, &own_token).await).await;

    let pay = (
        "pay-pipeline-6c5b8d7f9-aaaaa",
        pod(&client, "pay-pipeline-6c5b8d7f9-aaaaa").await,
    );
    let other = (
        "pay-pipeline-6c5b8d7f9-bbbbb",
        pod(&client, "pay-pipeline-6c5b8d7f9-bbbbb").await,
    );
    let account = (THEIRS, "pay");
    let good = token(&client, account, &["flowctl"], Some((pay.0, &pay.1))).await;
    let own_id = format!("{THEIRS}.pay.{}", pay.0);

    // Its own, fifty times: one review.
    assert_eq!(code(claim(&server_1, &good, &own_id).await), Code::Ok);
    for _ in 0..50 {
        assert_eq!(code(beat(&server_1, &good, &own_id).await), Code::Ok);
    }
    assert_eq!(code(claim(&server_1, &good, "cdp-shop.pay").await), Code::Ok);
    let log = cluster.audit_log_path().expect("an audit log");
    let reviews = until("the review to be logged", async || {
        let log = audit::read(log).expect("a log");
        let of_ours = log.into_iter().filter(|event| event.user.username == REVIEWER);
        let of_ours: Vec<_> = of_ours.filter(|event| event.verb == "create").collect();
        (!of_ours.is_empty()).then_some(of_ours)
    })
    .await;
    assert_eq!(reviews.len(), 1, "{reviews:?}");

    // Others' ids, others' tokens.
    let foreign = format!("{THEIRS}.pay.{}", other.0);
    assert_eq!(code(claim(&server_1, &good, &foreign).await), Code::PermissionDenied);
    assert_eq!(
        code(claim(&server_1, &good, "cdp-shop.refund").await),
        Code::PermissionDenied
    );
    let for_the_apiserver = token(&client, account, &[], Some((pay.0, &pay.1))).await;
    let for_somebody_else = token(&client, account, &["vault"], Some((pay.0, &pay.1))).await;
    let unbound = token(&client, account, &["flowctl"], None).await;
    assert_eq!(
        code(claim(&server_1, &for_the_apiserver, &own_id).await),
        Code::Unauthenticated
    );
    assert_eq!(
        code(claim(&server_1, &for_somebody_else, &own_id).await),
        Code::Unauthenticated
    );
    assert_eq!(code(claim(&server_1, &unbound, &own_id).await), Code::PermissionDenied);
    let (head, signature) = good.rsplit_once('.').expect("a token");
    let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
    assert_eq!(code(claim(&server_1, &forged, &own_id).await), Code::Unauthenticated);

    // The pod that takes over, and the one that it replaced.
    let newer = token(&client, account, &["flowctl"], Some((other.0, &other.1))).await;
    assert_eq!(code(claim(&server_1, &newer, "cdp-shop.pay").await), Code::Ok);
    assert_eq!(
        code(beat(&server_1, &good, "cdp-shop.pay").await),
        Code::FailedPrecondition
    );
    assert_eq!(code(beat(&server_1, &newer, "cdp-shop.pay").await), Code::Ok);
    server_1.stop().await;

    // A pod that is deleted: its token is over with it. The apiserver remembers for some seconds, and we for a minute, so
    // a server that remembers nothing is asked after the apiserver has forgotten.
    let pods: Api<Pod> = Api::namespaced(client.clone(), THEIRS);
    let at_once = DeleteParams::default().grace_period(0);
    pods.delete(pay.0, &at_once).await.expect("deleted");
    let asking = reviewer(&cluster, &own_token).await;
    until("the apiserver to forget", async || {
        let review = asking.review(good.clone(), "flowctl".to_owned()).await;
        matches!(review, Err(ReviewError::Refused(_))).then_some(())
    })
    .await;
    let server_2 = server(asking).await;
    assert_eq!(code(claim(&server_2, &good, &own_id).await), Code::Unauthenticated);
    server_2.stop().await;

    // Without the right to ask, nobody is let in, and the clients are told to come again.
    let rights: Api<ClusterRoleBinding> = Api::all(client.clone());
    rights
        .delete("reviewer", &DeleteParams::default())
        .await
        .expect("taken away");
    let server_3 = server(reviewer(&cluster, &own_token).await).await;
    until("the right to be gone", async || {
        let fresh = token(&client, account, &["flowctl"], Some((other.0, &other.1))).await;
        (code(claim(&server_3, &fresh, "cdp-shop.pay").await) == Code::Unavailable).then_some(())
    })
    .await;
    server_3.stop().await;
    cluster.stop().await.expect("stopped");
}
