//! Renders a new revision with today's defaults: the pod template, and the files beside it. It is asked only for revisions
//! that are not stored, so what it says reaches new revisions only; and so do its objections: a spec that was accepted
//! once is not refused by a later operator.

mod pipeline;
mod processor;

use std::collections::BTreeMap;

use flowctl_api::{ConditionType, ControlPlane, Status};
use k8s_openapi::api::core::v1::EnvVar;

use crate::Settings;
use crate::body::Owner;
use crate::env::entry;
use crate::heartbeat::Heartbeats;
use crate::pod::{self, ConfigDir};
use crate::validate::dialled;

pub(crate) use pipeline::pipeline;
pub(crate) use processor::processor;

/// The revision of what is rendered to be judged only.
pub(crate) const UNNAMED: &str = "0000000000";

/// Whether this very spec was accepted before. Then it is not judged again while something else keeps it from being
/// rendered; before that, its author sees everything that is wrong at once.
pub(crate) fn was_accepted(status: Option<&Status>, generation: Option<i64>) -> bool {
    let mut conditions = status.into_iter().flat_map(|status| &status.conditions);
    generation.is_some()
        && conditions.any(|condition| {
            condition.type_ == ConditionType::Accepted.as_str()
                && condition.status == "True"
                && condition.observed_generation == generation
        })
}

/// The control plane that pods report to: the spec's, by the name that is dialled, or else the operator's without its
/// Secret, which lies in the operator's namespace.
fn reports_to(named: Option<&ControlPlane>, owner: &Owner, settings: &Settings) -> Option<ControlPlane> {
    if let Some(named) = named {
        let dialled = dialled(&named.endpoint, &owner.namespace, settings);
        return Some(ControlPlane {
            endpoint: dialled.unwrap_or_else(|| named.endpoint.clone()),
            tls: named.tls.clone(),
        });
    }
    let mut own = settings.control_plane.clone()?;
    if let Some(tls) = &mut own.tls {
        tls.secret_name = None;
    }
    Some(own)
}

/// What pods need to prove to the control plane who they are, when it asks. It is known only once the control plane was
/// heard; a revision that was rendered before stays as it is.
fn control_plane_token(
    control_plane: Option<&ControlPlane>,
    heartbeats: &Heartbeats,
    config: &mut ConfigDir,
) -> Option<EnvVar> {
    let audience = heartbeats.token_audience(&control_plane?.endpoint)?;
    config.token(audience);
    Some(entry(
        "FLOWCTL_TOKEN_FILE",
        format!("{}/{}", pod::CONFIG_DIR, pod::TOKEN),
    ))
}

/// What pods need for TLS towards the control plane: files, mounts and variables. `FLOWCTL_TLS_*` means this in a pipeline
/// (seed 001, its TLS section), and the certificate of the gRPC port in a component, so the long names are set in both.
fn control_plane_tls(
    control_plane: Option<&ControlPlane>,
    files: &mut BTreeMap<String, String>,
    config: &mut ConfigDir,
) -> Vec<EnvVar> {
    let Some(tls) = control_plane.and_then(|control_plane| control_plane.tls.as_ref()) else {
        return Vec::new();
    };
    let mut variables = Vec::new();
    if let Some(secret) = &tls.secret_name {
        config.secret(secret, pod::CONTROL_PLANE_TLS, &["tls.crt", "tls.key"]);
        let folder = format!("{}/{}", pod::CONFIG_DIR, pod::CONTROL_PLANE_TLS);
        variables.push(entry("FLOWCTL_CONTROL_PLANE_TLS_CERT", format!("{folder}/tls.crt")));
        variables.push(entry("FLOWCTL_CONTROL_PLANE_TLS_KEY", format!("{folder}/tls.key")));
    }
    if let Some(bundle) = &tls.ca_bundle {
        files.insert(pod::CONTROL_PLANE_CA.to_owned(), bundle.clone());
        let path = format!("{}/{}", pod::CONFIG_DIR, pod::CONTROL_PLANE_CA);
        variables.push(entry("FLOWCTL_CONTROL_PLANE_TLS_CA", path));
    }
    variables
}
