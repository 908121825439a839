//! `Pipeline`: a source, processors and consumers, in the vocabulary of the pipeline file.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    common::{Container, ControlPlane, Empty, Heartbeat, Object, ProcessorRef},
    schema,
};

/// What flows, and what runs it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "flowctl.dev",
    version = "v1alpha1",
    kind = "Pipeline",
    namespaced,
    status = "crate::Status",
    derive = "PartialEq",
    shortname = "fpl",
    category = "flowctl",
    doc = "A data pipeline: a source, processors and consumers. The operator writes the endpoints of the ExternalProcessors that it refers to into its file and runs it.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Health", type_ = "string", json_path = ".status.conditions[?(@.type==\"Healthy\")].status"),
    printcolumn(name = "Steps", type_ = "string", json_path = ".status.stepsReady"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision.current"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Beats", type_ = "string", json_path = ".status.beats", priority = 1),
    printcolumn(name = "Mode", type_ = "string", json_path = ".status.effective.mode", priority = 1),
    printcolumn(name = "Verdict", type_ = "string", json_path = ".status.conditions[?(@.type==\"Healthy\")].reason", priority = 1),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.why", priority = 1),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.effective.image", priority = 1),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 48")
        .message("the name must be a DNS-1035 label of at most 48 characters (a-z, 0-9 and '-', a letter first): Services are named after it"),
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.batch) || (has(self.mode) && self.mode == 'Batch')").message("batch is only used with mode: Batch").field_path(".batch"))]
#[x_kube(validation = Rule::new("!has(self.strategy) || !has(self.mode) || self.mode == 'Streaming'").message("strategy is only used with mode: Streaming").field_path(".strategy"))]
pub struct PipelineSpec {
    /// Streaming (default): runs for ever. Batch: a finite range that ends, then Complete or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Where messages come from.
    pub source: Step,
    /// What is done to them, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 31))]
    pub processors: Vec<Step>,
    /// Where they end; each consumer sees every message.
    #[schemars(length(min = 1, max = 32))]
    pub consumers: Vec<Step>,
    /// What runs the pipeline file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// Where progress is kept; default: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// How liveness is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Heartbeat>,
    /// The control plane that it reports to; default: the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlane>,
    /// How a Streaming pipeline is replaced; default Recreate: two copies process the same ledgers twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// How often a Batch pipeline is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// Stop the pipeline; nothing is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Any new value makes a new revision: a restart with today's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub restarted_at: Option<String>,
}

/// Whether the pipeline ends. Streaming (default): it runs for ever. Batch: a finite range, then Complete or Failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Runs for ever, as a Deployment.
    #[default]
    Streaming,
    /// Runs to its end, as a Job.
    Batch,
}

/// One step of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.type) != has(self.processorRef)").message("a step has exactly one of `type` (built into the runner) and `processorRef` (an ExternalProcessor)"))]
#[x_kube(validation = Rule::new("!has(self.processorRef) || !has(self.config) || !has(self.config.endpoint)").message("config.endpoint is written by the operator when processorRef is set; remove one of the two").field_path(".config.endpoint"))]
pub struct Step {
    /// Name of the step, unique in the pipeline; default: the processor's name or the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// Type of a built-in step.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub kind: Option<String>,
    /// The ExternalProcessor that does the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor_ref: Option<ProcessorRef>,
    /// Configuration of the step: any keys, kept as they are, except that `endpoint`, where there is one, is text of at most
    /// 2048 characters; `${NAME}` is taken from the environment when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::step_config")]
    pub config: Option<Object>,
}

/// Which program reads the pipeline file. Runner (default): this project's. Cdp: cdp-pipeline-workflow's Go binary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Flavor {
    /// The runner of this project.
    #[default]
    Runner,
    /// The Go binary of cdp-pipeline-workflow.
    Cdp,
}

/// What runs the pipeline file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.flavor) || self.flavor != 'Cdp' || (has(self.image) && has(self.command) && size(self.command) > 0)").message("flavor Cdp needs image and command: the published images have no entrypoint"))]
pub struct Runtime {
    /// Which program it is; default Runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<Flavor>,
    /// Image, environment, volumes.
    #[serde(flatten)]
    pub container: Container,
    /// Client certificate for processors that require one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_tls: Option<ClientTls>,
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientTls {
    /// Secret with `tls.crt` and `tls.key`, mounted into the pod.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// Where progress is kept; exactly one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.claimName) != has(self.emptyDir)").message("exactly one of claimName and emptyDir must be set"))]
pub struct Checkpoint {
    /// A PersistentVolumeClaim: progress survives the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
    /// Kept as long as the pod: survives a restart of the container only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<Empty>,
}

/// Which pod is first. Recreate (default): the old one ends first. RollingUpdate: ledgers may be processed twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StrategyType {
    /// The old pod ends before the new one starts.
    #[default]
    Recreate,
    /// The new pod starts first: ledgers may be processed twice.
    RollingUpdate,
}

/// How a Streaming pipeline is replaced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.rollingUpdate) || (has(self.type) && self.type == 'RollingUpdate')").message("rollingUpdate is only used with type: RollingUpdate").field_path(".rollingUpdate"))]
pub struct Strategy {
    /// Default Recreate.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<StrategyType>,
    /// Bounds of a rolling update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_update: Option<RollingUpdate>,
}

/// Bounds of a rolling update, as in a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollingUpdate {
    /// Pods above the wanted number; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<IntOrString>,
    /// Pods below the wanted number; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
}

/// How often a Batch pipeline is tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    /// Tries after the first one; default 3. A pipeline file that the runner refuses is never tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub backoff_limit: Option<i32>,
    /// Seconds for all tries together; default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31536000))]
    pub active_deadline_seconds: Option<i64>,
}
