//! `ExternalProcessor`: one processor, consumer or ingestor that runs as a service of its own and speaks gRPC.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{Container, ControlPlane, Empty, Heartbeat, ProcessorRef, Protocol, Role};

/// What runs, and how it is reached.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "flowctl.dev",
    version = "v1alpha1",
    kind = "ExternalProcessor",
    namespaced,
    status = "crate::Status",
    derive = "PartialEq",
    shortname = "xproc",
    category = "flowctl",
    doc = "A processor, consumer or ingestor that runs as its own service, in any language, and speaks gRPC.",
    scale(
        spec_replicas_path = ".spec.workload.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Health", type_ = "string", json_path = ".status.conditions[?(@.type==\"Healthy\")].status"),
    printcolumn(name = "Pods", type_ = "string", json_path = ".status.pods"),
    printcolumn(name = "Beats", type_ = "string", json_path = ".status.beats"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint"),
    printcolumn(name = "Used-By", type_ = "integer", json_path = ".status.usedBy"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Verdict", type_ = "string", json_path = ".status.conditions[?(@.type==\"Healthy\")].reason", priority = 1),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.why", priority = 1),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 48")
        .message("the name must be a DNS-1035 label of at most 48 characters (a-z, 0-9 and '-', a letter first): Services are named after it"),
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.workload) != has(self.external)").message("exactly one of `workload` (the operator runs it) and `external` (it runs elsewhere) must be set"))]
#[x_kube(validation = Rule::new("has(self.external) || has(self.port)").message("port is required: the gRPC port that the container listens on").field_path(".port"))]
#[x_kube(validation = Rule::new("!has(self.external) || !has(self.port)").message("port is not used with `external`: its endpoint carries the port").field_path(".port"))]
#[x_kube(validation = Rule::new("!has(self.extraPorts) || !has(self.port) || self.extraPorts.all(p, p.port != self.port)").message("a port in extraPorts is the gRPC port").field_path(".extraPorts"))]
#[x_kube(validation = Rule::new("!has(self.extraPorts) || self.extraPorts.all(p, self.extraPorts.exists_one(q, q.port == p.port))").message("ports in extraPorts must differ").field_path(".extraPorts"))]
pub struct ExternalProcessorSpec {
    /// Its place in a pipeline; cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("role cannot be changed; create another ExternalProcessor"))]
    pub role: Role,
    /// The wire dialect; default pipeline.v1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// What the operator runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// Where it runs, when somebody else runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// The gRPC port of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Further ports, on both Services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub extra_ports: Vec<ExtraPort>,
    /// Readiness; default: a TCP connection to the gRPC port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// How callers are balanced over the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceOptions>,
    /// How liveness is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Heartbeat>,
    /// TLS of the gRPC port; default: plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// Event types that it takes and gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<Contract>,
    /// Upstreams that this component pulls from: their endpoints reach it by environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["env".into()]))]
    pub connections: Vec<Connection>,
    /// Other namespaces whose objects may refer to this one; default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
    /// The control plane that it reports to; default: the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlane>,
    /// Stop all pods; replicas keep their number for later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Any new value makes a new revision: a restart with today's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub restarted_at: Option<String>,
}

/// What the operator runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.image)").message("image is required").field_path(".image"))]
pub struct Workload {
    /// Image, environment, volumes.
    #[serde(flatten)]
    pub container: Container,
    /// Arguments of the entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub args: Vec<String>,
    /// Number of pods; autoscalers set it through the scale subresource.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
}

/// A processor that somebody else runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// `host:port` of its gRPC port, without a scheme; `tls` tells whether it is encrypted.
    #[schemars(length(min = 3, max = 260))]
    #[x_kube(validation = Rule::new("self.matches('^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\\\\[[0-9A-Fa-f:.]+\\\\]):[0-9]{1,5}$')").message("endpoint must be host:port without a scheme, for example plugins.internal:9002"))]
    pub endpoint: String,
}

/// A further port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct ExtraPort {
    /// Name of the port, at most 15 characters; not `grpc`, which is ours.
    #[schemars(length(min = 1, max = 15))]
    #[x_kube(validation = Rule::new("self != 'grpc' && self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.matches('[a-z]')").message("a port name has a-z, 0-9 and '-', at least one letter, and is not `grpc`"))]
    pub name: String,
    /// The port of the container and of the Services.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// How readiness is told; exactly one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("[has(self.grpc), has(self.http), has(self.tcp)].filter(x, x).size() == 1").message("exactly one of grpc, http and tcp must be set"))]
pub struct Probe {
    /// grpc.health.v1 on the gRPC port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcProbe>,
    /// An HTTP GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// A TCP connection to the gRPC port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Empty>,
}

/// grpc.health.v1 on the gRPC port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GrpcProbe {
    /// Name of the service that is asked for; default: the whole server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service: Option<String>,
}

/// An HTTP GET that answers 200 to 399 when ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HttpProbe {
    /// Path; default `/readyz`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
    /// Port of the container.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// Which Service is wired. PerPod (default): the headless one, for every pod. ClusterIP: a connection stays with one pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Balancing {
    /// The headless Service is wired: a caller sees every pod.
    #[default]
    PerPod,
    /// The ClusterIP Service is wired: a connection stays with one pod.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
}

/// Options of the Services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceOptions {
    /// Which Service is wired into pipelines; default PerPod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancing: Option<Balancing>,
}

/// Whether callers must show a certificate. None (default). Required: pipelines name one in `runtime.clientTls`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientAuth {
    /// They need none.
    #[default]
    None,
    /// They do: pipelines name one in `runtime.clientTls`.
    Required,
}

/// TLS of the gRPC port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretName) || has(self.caBundle)").message("set secretName (the server's certificate) or caBundle (how callers trust it), or leave tls out"))]
pub struct ServerTls {
    /// Secret with `tls.crt` and `tls.key` (and `ca.crt` for client certificates), mounted into the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// PEM certificates that sign the server's; handed to callers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,
    /// Whether callers must show a certificate; default None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
}

/// Event types that a component takes and gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Contract {
    /// Event types that it takes; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
    pub input_event_types: Vec<String>,
    /// Event types that it gives; empty: not declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
    pub output_event_types: Vec<String>,
}

/// An upstream whose endpoint reaches the component by environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z_][A-Za-z0-9_]*$')").message("an environment variable has letters, digits and '_', and no digit first"))]
    pub env: String,
    /// The upstream.
    pub processor_ref: ProcessorRef,
}

/// Namespaces whose objects may refer to this one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AllowedNamespaces {
    /// Names of namespaces.
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    #[serde(default)]
    pub names: Vec<String>,
}

const fn default_replicas() -> i32 {
    1
}
