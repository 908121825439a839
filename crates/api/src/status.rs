//! The status of both kinds: one vocabulary. Nothing in it moves with time alone (invariant R9).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pipeline::Mode;

/// What the operator saw and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The first cause of not being ready, in one line; empty when Ready.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Accepted, ResolvedRefs, Available, Healthy, Reconciling, Stalled, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// ExternalProcessor: what is wired into pipelines, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// ExternalProcessor: how many objects refer to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<i32>,
    /// Pipeline: its steps that are ExternalProcessors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepStatus>,
    /// Pipeline: ready and all of those steps, `2/2`; absent when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps_ready: Option<String>,
    /// What runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionStatus>,
    /// Pods that exist; for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Selects the pods; for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Ready and wanted pods, `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<String>,
    /// Pods with fresh heartbeats and pods expected to beat, `3/3`; absent while no heartbeats are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beats: Option<String>,
    /// What heartbeats prove; absent while none are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<HeartbeatStatus>,
    /// What took effect after defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<Effective>,
}

/// A step that is an ExternalProcessor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StepStatus {
    /// Name of the step.
    pub name: String,
    /// `<namespace>/<name>` of the ExternalProcessor.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The endpoint that is wired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The processor's Ready condition: True, False or Unknown.
    pub ready: String,
    /// The processor's ready and wanted pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<String>,
}

/// What heartbeats prove. Nothing in it moves with each beat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatStatus {
    /// Ids that are expected: pods that run, or one for all of them.
    pub expected: i32,
    /// Those of them that beat.
    pub fresh: i32,
    /// One id stands for all pods, so the evidence is about all of them together.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// The ids and what is thought of each, those with trouble first; at most 16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceStatus>,
}

/// What is thought of one id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// The id.
    pub id: String,
    /// A reason of the condition Healthy.
    pub verdict: String,
    /// The last sign of life before the verdict, for one that says that there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The id that its pod uses instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_as: Option<String>,
    /// It never registered, as far as is known.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub never_registered: bool,
    /// The control plane asks who calls, and nobody proved that the beats are this pod's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unverified: bool,
}

/// Which revision runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionStatus {
    /// The revision that is wanted: ten hex digits.
    pub current: String,
    /// The one before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// Injected variables that the user set instead.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taken_by_user: Vec<String>,
}

/// What took effect after defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Effective {
    /// The image that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Pipeline: Streaming or Batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The control plane that the pods report to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<String>,
    /// Seconds between two heartbeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval_seconds: Option<i32>,
}
