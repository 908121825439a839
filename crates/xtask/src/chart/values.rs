//! The values of the chart: the schema that Helm checks a user's values against is generated from these types. A value
//! is described once, here; `values.yaml` shows the defaults.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// Values of the flowctl-operator chart.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Values {
    /// The operator's image.
    pub image: Image,
    /// Secrets with which images are pulled: `[{name: …}]`.
    pub image_pull_secrets: Vec<BTreeMap<String, String>>,
    /// What runs Pipelines whose `runtime.image` is not set. A change touches new revisions only.
    pub runner: Runner,
    /// Operators; two or more elect a leader.
    #[schemars(range(min = 0, max = 10))]
    pub replicas: u32,
    /// Whether they elect a leader; without it there must be one.
    pub leader_election: bool,
    /// Namespaces to watch; empty: all of them.
    pub watch_namespaces: Vec<String>,
    /// What components register with and send heartbeats to, unless their object names another.
    pub control_plane: ControlPlane,
    /// What `spec.controlPlane.endpoint` may be besides a Service of the cluster: host names, or `*.suffix`.
    pub allowed_control_planes: Vec<String>,
    /// What `podTemplate` may ask for.
    pub pod_security: PodSecurity,
    /// DNS domain of the cluster.
    #[schemars(length(min = 1))]
    pub cluster_domain: String,
    /// Objects that are worked on at once.
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: u32,
    /// Writes in a second, children and statuses together; 0: no limit.
    #[schemars(range(min = 0, max = 10000))]
    pub writes_per_second: u32,
    /// What the operator logs.
    pub log: Log,
    /// The CustomResourceDefinitions.
    pub crds: Crds,
    /// Roles and bindings.
    pub rbac: Rbac,
    /// The operator's identity.
    pub service_account: ServiceAccount,
    /// How `/metrics` is reached.
    pub metrics: Metrics,
    /// Requests and limits of the operator.
    pub resources: BTreeMap<String, Value>,
    /// Annotations of the operator's pods.
    pub pod_annotations: BTreeMap<String, String>,
    /// Labels of the operator's pods.
    pub pod_labels: BTreeMap<String, String>,
    /// Nodes that the operator may run on.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the operator tolerates.
    pub tolerations: Vec<BTreeMap<String, Value>>,
    /// Affinity of the operator's pods.
    pub affinity: BTreeMap<String, Value>,
    /// Priority class of the operator's pods.
    pub priority_class_name: String,
    /// Further arguments of the operator.
    pub extra_args: Vec<String>,
    /// Values that parent charts share; not read.
    #[serde(default)]
    pub global: BTreeMap<String, Value>,
}

/// An image.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Image {
    /// Registry and name.
    #[schemars(length(min = 1))]
    pub repository: String,
    /// Default: the chart's appVersion.
    pub tag: String,
    /// When it is pulled.
    pub pull_policy: PullPolicy,
}

/// When an image is pulled.
#[derive(Debug, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node has none.
    IfNotPresent,
    /// Never.
    Never,
    /// As Kubernetes decides.
    #[serde(rename = "")]
    Default,
}

/// What runs Pipelines whose `runtime.image` is not set.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Runner {
    /// Image; default: flowctl-runner with the operator's tag.
    pub image: String,
    /// imagePullPolicy of what the operator makes.
    pub pull_policy: PullPolicy,
}

/// What components register with and send heartbeats to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ControlPlane {
    /// Whether one is run beside the operator.
    pub enabled: bool,
    /// Its image.
    pub image: Image,
    /// How long a service may be silent.
    #[schemars(regex(pattern = DURATION))]
    pub heartbeat_ttl: String,
    /// How long an expired service is kept.
    #[schemars(regex(pattern = DURATION))]
    pub retention: String,
    /// Bytes of the histories of metrics; half of the memory limit at most.
    pub history_bytes: u64,
    /// Whether tokens of callers are checked.
    pub identity: Identity,
    /// A volume for registrations, runs and alerts.
    pub persistence: Persistence,
    /// TLS of its port.
    pub tls: ControlPlaneTls,
    /// Requests and limits.
    pub resources: BTreeMap<String, Value>,
    /// Annotations of its pod.
    pub pod_annotations: BTreeMap<String, String>,
    /// Further arguments.
    pub extra_args: Vec<String>,
    /// One that runs elsewhere; then none is run here.
    pub external: ExternalControlPlane,
    /// Secret with tls.crt and tls.key that the operator shows to a control plane that asks for a certificate.
    pub client_secret_name: String,
}

/// As Go writes it, for example `30s`.
const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$";

/// Whether tokens of callers are checked.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// They are not looked at.
    Off,
    /// A caller without a good one is served, and shown as such.
    Permissive,
    /// A caller without a good one can write nothing.
    Required,
}

/// A volume for registrations, runs and alerts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Persistence {
    /// Whether there is one.
    pub enabled: bool,
    /// Its size.
    #[schemars(length(min = 1))]
    pub size: String,
    /// Its storage class; default: the cluster's.
    pub storage_class: String,
    /// A claim of the user's instead.
    pub existing_claim: String,
}

/// TLS of the control plane's port.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ControlPlaneTls {
    /// Secret with tls.crt and tls.key; empty: plain.
    pub secret_name: String,
    /// PEM certificates that sign it.
    pub ca_bundle: String,
}

/// A control plane that runs elsewhere.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExternalControlPlane {
    /// `host:port` without a scheme; empty: none.
    pub endpoint: String,
    /// PEM certificates that sign it; empty: plain.
    pub ca_bundle: String,
}

/// What `podTemplate` may ask for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PodSecurity {
    /// Pod security standard "restricted".
    Restricted,
    /// Pod security standard "baseline".
    Baseline,
}

/// What the operator logs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Its shape.
    pub format: LogFormat,
    /// As in RUST_LOG.
    #[schemars(length(min = 1))]
    pub level: String,
}

/// Shape of log lines.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// The CustomResourceDefinitions.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Crds {
    /// Whether the chart installs them.
    pub install: bool,
    /// Whether they stay when the release is uninstalled.
    pub keep: bool,
}

/// Roles and bindings.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rbac {
    /// Whether the chart makes them.
    pub create: bool,
    /// Whether both kinds are added to the cluster's view, edit and admin roles.
    pub aggregate: bool,
}

/// The operator's identity.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccount {
    /// Whether the chart makes it.
    pub create: bool,
    /// Default: the release's full name.
    pub name: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// How `/metrics` is reached.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Metrics {
    /// A Service.
    pub service: bool,
    /// A ServiceMonitor of the Prometheus operator.
    pub service_monitor: bool,
    /// A PrometheusRule of the Prometheus operator, with alerts.
    pub prometheus_rule: bool,
    /// Labels of both, by which a Prometheus selects them.
    pub labels: BTreeMap<String, String>,
    /// Between two scrapes; empty: what Prometheus does by default.
    #[schemars(regex(pattern = r"^([0-9]+(ms|s|m|h))?$"))]
    pub interval: String,
    /// What components measure and report with their beats, shown by the operator too: names, or beginnings with `*`.
    #[schemars(inner(length(min = 1, max = 128)))]
    pub heartbeat_keys: Vec<String>,
}
