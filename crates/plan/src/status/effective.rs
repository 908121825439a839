//! What took effect after defaults, read from the pod template that runs: a revision keeps the defaults of the day on
//! which it was rendered, so today's settings would not tell the truth.

use flowctl_api::{ControlPlane, status::Effective};
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};

use super::container::MAIN;
use crate::validate::dialled;
use crate::{RevisionPlan, Settings};

/// The variable that carries the control plane's address into a pod.
const ENDPOINT: &str = "FLOWCTL_ENDPOINT";
/// The variable that carries the heartbeat interval, in seconds.
const INTERVAL: &str = "HEARTBEAT_INTERVAL_SECONDS";

/// Reads it from the template; before there is one, the planned image is what will take effect.
pub(super) fn read(template: Option<&PodTemplateSpec>, revision: Option<&RevisionPlan>) -> Effective {
    let main = template
        .and_then(|template| template.spec.as_ref())
        .and_then(|spec| spec.containers.iter().find(|container| container.name == MAIN));
    Effective {
        image: main
            .and_then(|main| main.image.clone())
            .or_else(|| revision?.image.clone()),
        mode: None,
        control_plane: main.and_then(|main| variable(main, ENDPOINT)).map(str::to_owned),
        heartbeat_interval_seconds: main.and_then(|main| variable(main, INTERVAL)?.parse().ok()),
    }
}

/// For a processor that somebody else runs: the control plane at which its beats would be read.
pub(super) fn elsewhere(own: Option<&ControlPlane>, namespace: &str, settings: &Settings) -> Effective {
    let default = settings.control_plane.as_ref().map(|plane| plane.endpoint.clone());
    let named = own.map(|own| dialled(&own.endpoint, namespace, settings));
    Effective {
        // One that may not be named is dialled by nobody.
        control_plane: named.unwrap_or(default),
        ..Effective::default()
    }
}

fn variable<'c>(container: &'c Container, name: &str) -> Option<&'c str> {
    let variable = container.env.iter().flatten().find(|variable| variable.name == name)?;
    variable.value.as_deref().filter(|value| !value.is_empty())
}
