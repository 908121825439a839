//! What a revision is named after: the parts of a spec that reach the pod, and what they resolve to. Not the operator's
//! version, not its defaults, not how many pods there are or how they are replaced: a change of those restarts nothing
//! (invariant R12).
//!
//! The layout of what is hashed is frozen. Renaming a key, adding one that is always there, or writing a default out would
//! restart every workload of every cluster at the next upgrade; a test pins the hashes of two objects. A new optional
//! field of a spec is added with [`Inputs::put`], which leaves out what is not set.

use flowctl_api::pipeline::{Flavor, Mode};
use flowctl_api::{ControlPlane, Object};
use flowctl_pipeline::Place;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::body::{OwnerKind, to_json};
use crate::digest;
use crate::validate::{Checkpoint, ValidContainer, ValidHeartbeat, ValidPipeline, ValidStep, ValidWorkload, Work};
use flowctl_api::external_processor::ClientAuth;

/// What goes into a hash.
#[derive(Debug)]
struct Inputs(Map<String, Value>);

/// The ten hex digits of a Pipeline's revision.
pub(crate) fn of_pipeline(valid: &ValidPipeline, pod_template: Option<&Object>) -> String {
    let mut inputs = Inputs::new(OwnerKind::Pipeline);
    inputs.put(
        "mode",
        Some(match valid.mode {
            Mode::Streaming => "Streaming",
            Mode::Batch => "Batch",
        }),
    );
    inputs.put(
        "flavor",
        Some(match valid.flavor {
            Flavor::Runner => "Runner",
            Flavor::Cdp => "Cdp",
        }),
    );
    inputs.put("steps", Some(valid.steps().map(step).collect::<Vec<_>>()));
    inputs.container(&valid.container, pod_template);
    inputs.put("clientTls", valid.client_tls.as_ref());
    inputs.put(
        "checkpoint",
        valid.checkpoint.as_ref().map(|checkpoint| match checkpoint {
            Checkpoint::Claim(claim) => format!("claim/{claim}"),
            Checkpoint::EmptyDir => "emptyDir".to_owned(),
        }),
    );
    inputs.reporting(
        &valid.heartbeat,
        valid.control_plane.as_ref(),
        valid.restarted_at.as_deref(),
    );
    inputs.hash()
}

/// The ten hex digits of an ExternalProcessor's revision.
pub(crate) fn of_workload(workload: &ValidWorkload, pod_template: Option<&Object>) -> String {
    let mut inputs = Inputs::new(OwnerKind::ExternalProcessor);
    inputs.container(&workload.container, pod_template);
    inputs.list("args", &workload.args);
    inputs.put("port", Some(workload.ports.grpc));
    inputs.list("extraPorts", &workload.ports.extra);
    inputs.put("probe", workload.probe.as_ref());
    inputs.put("tlsSecret", workload.tls_secret.as_ref());
    inputs.put(
        "clientAuth",
        match workload.client_auth {
            ClientAuth::Required => Some("Required"),
            ClientAuth::None => None,
        },
    );
    inputs.list("connections", &workload.connections);
    inputs.reporting(
        &workload.heartbeat,
        workload.control_plane.as_ref(),
        workload.restarted_at.as_deref(),
    );
    inputs.hash()
}

fn step(step: &ValidStep) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
    let place = match step.place {
        Place::Source => "source",
        Place::Processor => "processor",
        Place::Consumer => "consumer",
    };
    put("place", Value::from(place));
    put("name", Value::from(step.name.as_str()));
    if !step.config.is_empty() {
        put("config", Value::Object(step.config.clone()));
    }
    match &step.work {
        Work::BuiltIn(kind) => {
            put("type", Value::from(kind.as_str()));
        }
        Work::External(_, endpoint) => {
            put("endpoint", Value::from(endpoint.address.as_str()));
            put("protocol", Value::from(endpoint.protocol.as_str()));
            if let Some(tls) = &endpoint.tls {
                put("caBundle", to_json(&tls.ca_bundle));
                put("clientAuth", to_json(&tls.client_auth));
            }
        }
    }
    Value::Object(map)
}

// === impl Inputs ===

impl Inputs {
    fn new(kind: OwnerKind) -> Self {
        // The kind keeps the names of two objects' revisions apart, which may share a name and a namespace.
        Self(Map::from_iter([("kind".to_owned(), Value::from(kind.as_str()))]))
    }

    fn put<T: Serialize>(&mut self, key: &str, value: Option<T>) {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), to_json(&value));
        }
    }

    fn list<T: Serialize>(&mut self, key: &str, list: &[T]) {
        self.put(key, (!list.is_empty()).then_some(list));
    }

    fn container(&mut self, container: &ValidContainer, pod_template: Option<&Object>) {
        self.put("image", container.image.as_ref());
        self.list("command", &container.command);
        self.list("env", &container.env);
        self.list("envFrom", &container.env_from);
        self.put("resources", container.resources.as_ref());
        self.list("volumes", &container.volumes);
        self.list("volumeMounts", &container.volume_mounts);
        self.put("podTemplate", pod_template);
    }

    fn reporting(
        &mut self,
        heartbeat: &ValidHeartbeat,
        control_plane: Option<&ControlPlane>,
        restarted_at: Option<&str>,
    ) {
        self.put("heartbeatSeconds", heartbeat.interval_seconds);
        self.put("sharedId", heartbeat.shared_id.as_ref());
        self.put("controlPlane", control_plane);
        self.put("restartedAt", restarted_at.filter(|at| !at.is_empty()));
    }

    fn hash(self) -> String {
        digest::hash10(&digest::sorted(&Value::Object(self.0)).to_string())
    }
}
