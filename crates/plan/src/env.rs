//! The environment that the operator injects. Real components read different names for one thing, so all of them are
//! set, equal. An entry of the user with the same name wins and stands in the place of ours, because later entries may
//! refer to it (`$(POD_NAME)`); which ones those are is told in the status.

use flowctl_api::ControlPlane;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector};

use crate::body::{Owner, OwnerKind};

/// Seconds between two heartbeats when the spec names none.
pub(crate) const DEFAULT_HEARTBEAT_SECONDS: i32 = 10;

/// The names under which components read their id.
const IDS: [&str; 4] = [
    "FLOWCTL_COMPONENT_ID",
    "COMPONENT_ID",
    "SERVICE_ID",
    "FLOWCTL_SERVICE_ID",
];
/// The names under which pipelines read theirs.
const PIPELINE_IDS: [&str; 2] = ["CDP_PIPELINE_NAME", "PIPELINE_ID"];

/// Everything else that may be injected.
const OTHERS: [&str; 17] = [
    "POD_NAME",
    "POD_NAMESPACE",
    "POD_IP",
    "FLOWCTL_ENDPOINT",
    "ENABLE_FLOWCTL",
    "FLOWCTL_ENABLED",
    "FLOWCTL_HEARTBEAT_INTERVAL",
    "HEARTBEAT_INTERVAL_SECONDS",
    "FLOWCTL_CHECKPOINT_DIR",
    "FLOWCTL_TLS_CERT",
    "FLOWCTL_TLS_KEY",
    "FLOWCTL_TLS_CA",
    "FLOWCTL_TLS_CLIENT_AUTH",
    "FLOWCTL_CONTROL_PLANE_TLS_CERT",
    "FLOWCTL_CONTROL_PLANE_TLS_KEY",
    "FLOWCTL_CONTROL_PLANE_TLS_CA",
    "FLOWCTL_TOKEN_FILE",
];

/// Whether the operator may inject a variable of that name.
pub(crate) fn is_ours(name: &str) -> bool {
    IDS.contains(&name) || PIPELINE_IDS.contains(&name) || OTHERS.contains(&name)
}

/// What the common part of the environment is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) owner: &'a Owner,
    /// The one id of all pods; `None`: each pod has its own.
    pub(crate) shared_id: Option<&'a str>,
    pub(crate) heartbeat_seconds: i32,
    pub(crate) control_plane: Option<&'a ControlPlane>,
}

/// An environment, and which of the injected names the user took.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Environment {
    pub(crate) entries: Vec<EnvVar>,
    pub(crate) taken_by_user: Vec<String>,
}

/// What every component is told: its pod, its ids, its control plane.
pub(crate) fn identity(identity: Identity<'_>) -> Vec<EnvVar> {
    let owner = identity.owner;
    let mut entries = vec![
        from_field("POD_NAME", "metadata.name"),
        from_field("POD_NAMESPACE", "metadata.namespace"),
        from_field("POD_IP", "status.podIP"),
    ];
    let id = match identity.shared_id {
        Some(id) => id.to_owned(),
        // Expanded by the kubelet, because POD_NAME stands before it.
        None => format!("{}.$(POD_NAME)", owner.dotted()),
    };
    entries.extend(IDS.map(|name| entry(name, id.clone())));
    match owner.kind {
        OwnerKind::Pipeline => entries.extend(PIPELINE_IDS.map(|name| entry(name, owner.dotted()))),
        OwnerKind::ExternalProcessor => {}
    }
    if let Some(control_plane) = identity.control_plane {
        let seconds = identity.heartbeat_seconds;
        entries.extend([
            entry("FLOWCTL_ENDPOINT", control_plane.endpoint.clone()),
            entry("ENABLE_FLOWCTL", "true"),
            entry("FLOWCTL_ENABLED", "true"),
            entry("FLOWCTL_HEARTBEAT_INTERVAL", format!("{seconds}s")),
            entry("HEARTBEAT_INTERVAL_SECONDS", seconds.to_string()),
        ]);
    }
    entries
}

/// The injected entries with the user's in their place, then the rest of the user's.
pub(crate) fn merge(injected: Vec<EnvVar>, user: &[EnvVar]) -> Environment {
    let mut merged = Environment::default();
    for ours in injected {
        match user.iter().find(|theirs| theirs.name == ours.name) {
            Some(theirs) => {
                merged.taken_by_user.push(ours.name);
                merged.entries.push(theirs.clone());
            }
            None => merged.entries.push(ours),
        }
    }
    let rest = user.iter().filter(|entry| !merged.taken_by_user.contains(&entry.name));
    merged.entries.extend(rest.cloned().collect::<Vec<_>>());
    merged
}

/// An entry with a value.
pub(crate) fn entry(name: impl Into<String>, value: impl Into<String>) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: Some(value.into()),
        value_from: None,
    }
}

fn from_field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector {
        field_path: path.to_owned(),
        ..Default::default()
    };
    let source = EnvVarSource {
        field_ref: Some(field),
        ..Default::default()
    };
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component would register under an id with a literal `$(POD_NAME)` in it, and never be found.
    #[test]
    fn a_users_pod_name_keeps_its_place_before_the_ids() {
        let injected = vec![
            from_field("POD_NAME", "metadata.name"),
            entry("COMPONENT_ID", "$(POD_NAME)"),
        ];
        let user = [entry("LOG_LEVEL", "debug"), entry("POD_NAME", "mine")];
        let merged = merge(injected, &user);
        let names: Vec<_> = merged.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["POD_NAME", "COMPONENT_ID", "LOG_LEVEL"]);
        assert_eq!(merged.entries[0].value.as_deref(), Some("mine"));
        assert_eq!(merged.taken_by_user, ["POD_NAME"]);
    }
}
