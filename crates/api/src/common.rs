//! What both kinds share: references, environment, TLS, heartbeats, the control plane.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, ResourceRequirements, VolumeMount};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{quantity, schema};

/// An open JSON object.
pub type Object = serde_json::Map<String, serde_json::Value>;

/// What a component does in a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Role {
    /// Produces messages.
    Source,
    /// Turns messages into messages.
    Processor,
    /// Takes messages to their end.
    Consumer,
    /// Takes events in from outside.
    Ingestor,
    /// Anything else that is reached over gRPC.
    Service,
}

/// The wire dialect that a component speaks; default pipeline.v1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// `pipeline.v1.ProcessorService` and `ConsumerService`.
    #[serde(rename = "pipeline.v1")]
    PipelineV1,
    /// `flowctl.v1` services of the flowctl SDK.
    #[serde(rename = "flowctl.v1")]
    FlowctlV1,
    /// `polku.v1` ingestor plugins.
    #[serde(rename = "polku.v1")]
    PolkuV1,
    /// `contractdata.v1` control with Arrow Flight.
    #[serde(rename = "contractdata.v1")]
    ContractDataV1,
}

/// Names an ExternalProcessor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ProcessorRef {
    /// Name of the ExternalProcessor.
    #[schemars(length(min = 1, max = 48))]
    pub name: String,
    /// Its namespace; default: this object's. Another one needs a grant there (`allowedNamespaces`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// What a container gets: shared by `workload` and `runtime`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Image of the container; only a Pipeline with flavor Runner may leave it out, and takes the operator's runner image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Replaces the image's entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// Environment; a name of ours given here wins over ours, and the status says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "quantity::env")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,
    /// Environment from ConfigMaps and Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub env_from: Vec<EnvFromSource>,
    /// Requests and limits.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "quantity::resources"
    )]
    pub resources: Option<ResourceRequirements>,
    /// Volumes of the pod, as in a pod's spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::volumes")]
    pub volumes: Vec<Object>,
    /// Where the volumes are mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["mountPath".into()]))]
    pub volume_mounts: Vec<VolumeMount>,
    /// Merged over the rendered pod template (`metadata`, `spec`) with the API's own merge keys; our container is `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::open_object")]
    pub pod_template: Option<Object>,
}

/// Whether heartbeats are judged. Auto (default): once it has registered. Required: from the start. Off: not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HeartbeatPolicy {
    /// Judged once it has registered; never seen is unknown, and readiness is untouched.
    #[default]
    Auto,
    /// Judged from the start.
    Required,
    /// Not looked at.
    Off,
}

/// How heartbeats are told apart. PerPod (default): each pod has an id. Shared: one id, fixed in the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HeartbeatIdentity {
    /// Each pod has an id of its own, injected by the operator.
    #[default]
    PerPod,
    /// One id for all pods, fixed in the image.
    Shared,
}

/// How liveness is told to the control plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.staleAfterSeconds) || self.staleAfterSeconds >= 3 * (has(self.intervalSeconds) ? self.intervalSeconds : 10)").message("staleAfterSeconds must be at least three times intervalSeconds (default 10)").field_path(".staleAfterSeconds"))]
#[x_kube(validation = Rule::new("has(self.componentId) == (has(self.identity) && self.identity == 'Shared')").message("componentId is required with identity Shared, and only allowed there").field_path(".componentId"))]
pub struct Heartbeat {
    /// Whether heartbeats are judged; default Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<HeartbeatPolicy>,
    /// How heartbeats are told apart; default PerPod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<HeartbeatIdentity>,
    /// The id that the image registers under, with identity Shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub component_id: Option<String>,
    /// Seconds between two beats; default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60))]
    pub interval_seconds: Option<i32>,
    /// Silence in seconds after which a pod is stale; default three intervals, at least 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 3, max = 3600))]
    pub stale_after_seconds: Option<i32>,
}

/// Client TLS towards a control plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneTls {
    /// Secret with `tls.crt` and `tls.key`, mounted into the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// PEM certificates that sign the control plane's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,
}

/// The flowctl control plane that components report to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlane {
    /// `host:port`, without a scheme.
    #[schemars(length(min = 3, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?:[0-9]{1,5}$')").message("endpoint must be host:port without a scheme, for example flowctl.flowctl-system:8080"))]
    pub endpoint: String,
    /// TLS towards it; default: plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ControlPlaneTls>,
}

/// A choice that carries nothing, written `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

impl JsonSchema for Empty {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Empty".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schema::empty_object(generator)
    }
}

// === impl Role ===

impl Role {
    /// The role as it stands in the spec.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Source => "Source",
            Role::Processor => "Processor",
            Role::Consumer => "Consumer",
            Role::Ingestor => "Ingestor",
            Role::Service => "Service",
        }
    }
}

// === impl Protocol ===

impl Protocol {
    /// The protocol as it stands in the spec and in the pipeline file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::PipelineV1 => "pipeline.v1",
            Protocol::FlowctlV1 => "flowctl.v1",
            Protocol::PolkuV1 => "polku.v1",
            Protocol::ContractDataV1 => "contractdata.v1",
        }
    }
}
