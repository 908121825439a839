//! A port-forward to the cluster's control plane, made through the apiserver with the rights of the caller: nothing listens
//! on this machine, and it ends with the program.

use std::time::Duration;

use flowctl_bridge::Endpoint;
use flowctl_runtime::in_one_line;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tower::service_fn;

use crate::args::Target;
use crate::dial::{self, Server};
use crate::failure::Failure;

/// What the chart labels the pods of a control plane with.
const SELECTOR: &str = "app.kubernetes.io/name=flowctl,app.kubernetes.io/component=control-plane";
/// The port's name in the pod.
const PORT: &str = "grpc";
/// The server's flag for its own name.
const ADVERTISED: &str = "--advertise-address=";
/// Where one is looked for when listing everywhere is forbidden, besides the context's own namespace.
const USUAL: &str = "flowctl-system";

/// Finds the control plane's pod and connects to it.
pub(crate) async fn open(target: &Target) -> Result<Server, Failure> {
    // Another library of the program may have chosen already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = configuration(target).await?;
    let own = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| unreachable(&error))?;
    let found = find(&client, target.namespace.as_deref(), &own).await?;
    let place = format!("pod {}/{}", found.namespace, found.name);
    let scheme = if target.wants_tls() { "https" } else { "http" };
    // The host is for certificates and messages; the bytes go through the apiserver. Certificates are for the name that clients in the
    // cluster use, which the server itself is told.
    let host = found
        .host
        .clone()
        .unwrap_or_else(|| format!("flowctl.{}.svc", found.namespace));
    let endpoint = Endpoint::parse(&format!("{scheme}://{host}:{}", found.port))
        .map_err(|error| Failure::Other(error.to_string()))?;
    let prepared = dial::prepare(target, &endpoint)?;
    let pods: Api<Pod> = Api::namespaced(client, &found.namespace);
    let connector = service_fn(move |_| {
        let (pods, name, port) = (pods.clone(), found.name.clone(), found.port);
        async move {
            let mut forward = pods.portforward(&name, &[port]).await.map_err(std::io::Error::other)?;
            let stream = forward.take_stream(port);
            let stream = stream.ok_or_else(|| std::io::Error::other("the apiserver opened no stream"))?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let channel = prepared
        .connect_with_connector(connector)
        .await
        .map_err(|error| Failure::Unreachable(format!("cannot forward a port to {place}: {}", in_one_line(&error))))?;
    Server::new(target, channel, place)
}

async fn configuration(target: &Target) -> Result<Config, Failure> {
    let options = KubeConfigOptions {
        context: target.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = match &target.kubeconfig {
        Some(file) => {
            let read = Kubeconfig::read_from(file).map_err(|error| unreachable(&error))?;
            Config::from_custom_kubeconfig(read, &options).await
        }
        None => Config::from_kubeconfig(&options).await,
    };
    let mut config = config.map_err(|error| unreachable(&error))?;
    config.connect_timeout = Some(Duration::from_secs(5));
    // A forwarded connection lasts as long as the program.
    config.read_timeout = None;
    Ok(config)
}

struct Found {
    namespace: String,
    name: String,
    port: u16,
    /// The name that it tells clients.
    host: Option<String>,
}

async fn find(client: &Client, namespace: Option<&str>, own: &str) -> Result<Found, Failure> {
    let places: Vec<Option<&str>> = match namespace {
        Some(namespace) => vec![Some(namespace)],
        None => vec![None, Some(USUAL), Some(own)],
    };
    let mut refusal = None;
    for place in places {
        let pods: Api<Pod> = match place {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        match pods.list(&ListParams::default().labels(SELECTOR)).await {
            Ok(list) => {
                if let Some(found) = list.items.iter().find_map(usable) {
                    return Ok(found);
                }
            }
            Err(error) => refusal = Some(error),
        }
    }
    Err(match refusal {
        Some(error) => unreachable(&error),
        None => Failure::Unreachable(format!(
            "no control plane is ready in {}: no ready pod has the labels {SELECTOR}; is the chart installed with \
             controlPlane.enabled, or else give --endpoint",
            namespace.map_or_else(|| "the cluster".to_owned(), |name| format!("namespace {name}")),
        )),
    })
}

/// A pod that is ready and has the port.
fn usable(pod: &Pod) -> Option<Found> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let containers = &pod.spec.as_ref()?.containers;
    let ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    let port = ports.into_iter().find(|port| port.name.as_deref() == Some(PORT))?;
    let arguments = containers.iter().flat_map(|container| container.args.iter().flatten());
    let advertised = arguments
        .filter_map(|argument| argument.strip_prefix(ADVERTISED))
        .next_back();
    let host = advertised.and_then(|address| Some(address.rsplit_once(':')?.0.to_owned()));
    let leaving = pod.metadata.deletion_timestamp.is_some();
    (ready && !leaving).then(|| {
        Some(Found {
            namespace: pod.metadata.namespace.clone()?,
            name: pod.metadata.name.clone()?,
            port: u16::try_from(port.container_port).ok()?,
            host,
        })
    })?
}

fn unreachable(error: &dyn std::error::Error) -> Failure {
    Failure::Unreachable(format!(
        "cannot ask the cluster for its control plane: {}",
        in_one_line(error)
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // With TLS, nobody could use the plugin: the chart's certificate is for its Service's full name, not for one of ours.
    #[test]
    fn the_name_is_the_one_that_the_server_tells_clients() {
        let pod = |arguments: serde_json::Value| -> Pod {
            let ports = json!([{"name": "http", "containerPort": 9090}, {"name": "grpc", "containerPort": 8080}]);
            let container = json!({"name": "flowctl", "args": arguments, "ports": ports});
            let pod = json!({
                "metadata": {"name": "f-0", "namespace": "flowctl-system"},
                "spec": {"containers": [container]},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            });
            serde_json::from_value(pod).expect("a pod")
        };
        let host = |arguments| usable(&pod(arguments)).expect("it is ready").host;
        let full = "f-control-plane.flowctl-system.svc.cluster.local";
        assert_eq!(
            host(json!([
                "server",
                "--port=8080",
                format!("--advertise-address={full}:8080")
            ]))
            .as_deref(),
            Some(full)
        );
        assert_eq!(host(json!(["server"])), None);
    }
}
