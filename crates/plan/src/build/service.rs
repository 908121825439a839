//! Services, and the budget of a processor's pods. Services find ports by name, so that during a roll-out each pod is
//! reached at the port that it has.

use serde_json::{Value, json};

use super::spec;
use crate::body::Owner;
use crate::validate::{GRPC, Ports};
use crate::{Child, ChildKind, names};

/// Name of the runner's port for health and metrics.
pub(crate) const HTTP: &str = "http";
/// The runner's port for health and metrics.
pub(crate) const HTTP_PORT: i32 = 8089;

/// The Service of a runner's metrics and health port.
pub(crate) fn pipeline_service(owner: &Owner) -> Child {
    let port = json!({"name": HTTP, "port": HTTP_PORT, "targetPort": HTTP, "protocol": "TCP", "appProtocol": "http"});
    let body = json!({"type": "ClusterIP", "selector": owner.selector(), "ports": [port]});
    owner.child(
        ChildKind::Service,
        names::pipeline(&owner.name),
        owner.labels(),
        spec(body),
    )
}

/// Both Services of a processor: one address for all pods, and one address for each (ready ones only).
pub(crate) fn processor_services(owner: &Owner, ports: &Ports) -> [Child; 2] {
    // Proxies and gateways read it: HTTP/2 without TLS has a name of its own.
    let grpc = if ports.encrypted { "https" } else { "kubernetes.io/h2c" };
    let mut list = vec![json!({
        "name": GRPC, "port": ports.grpc, "targetPort": GRPC, "protocol": "TCP", "appProtocol": grpc,
    })];
    list.extend(
        ports
            .extra
            .iter()
            .map(|extra| json!({"name": extra.name, "port": extra.port, "targetPort": extra.name, "protocol": "TCP"})),
    );
    let service = |name: String, headless: Value| {
        let body = json!({
            "type": "ClusterIP", "clusterIP": headless, "selector": owner.selector(), "ports": list,
        });
        owner.child(ChildKind::Service, name, owner.labels(), spec(body))
    };
    [
        service(names::processor(&owner.name), Value::Null),
        service(names::processor_pods(&owner.name), Value::from("None")),
    ]
}

/// At most one pod of a processor is evicted at a time; one that is not ready does not hold up a drain.
pub(crate) fn budget(owner: &Owner) -> Child {
    let body = json!({
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": owner.selector()},
    });
    owner.child(
        ChildKind::PodDisruptionBudget,
        names::processor(&owner.name),
        owner.labels(),
        spec(body),
    )
}
