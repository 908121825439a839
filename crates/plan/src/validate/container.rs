//! What a container gets: volumes and the pod template read strictly, mounts and names that fit together.

use std::collections::BTreeSet;

use flowctl_api::{Container, Reason};
use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, PodTemplateSpec, ResourceRequirements, Volume, VolumeMount};

use super::Problems;
use crate::pod::{OWN_PATHS, OWN_VOLUMES};
use crate::strict;

/// A container that can be built.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ValidContainer {
    /// Path of the container in the spec: `spec.workload` or `spec.runtime`.
    pub(crate) field: &'static str,
    pub(crate) image: Option<String>,
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<EnvVar>,
    pub(crate) env_from: Vec<EnvFromSource>,
    pub(crate) resources: Option<ResourceRequirements>,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) volume_mounts: Vec<VolumeMount>,
    pub(crate) pod_template: Option<PodTemplateSpec>,
}

/// Checks `spec.workload` or `spec.runtime`.
pub(super) fn check(container: &Container, field: &'static str, problems: &mut Problems) -> ValidContainer {
    let pod_template = container.pod_template.as_ref().and_then(|template| {
        let (read, faults) = strict::parse::<PodTemplateSpec>(template);
        let path = format!("{field}.podTemplate");
        refuse(faults, &path, Reason::PodTemplateRefused, problems);
        read
    });
    let volumes = volumes(container, field, problems);
    let from_template = pod_template.iter().filter_map(|template| template.spec.as_ref());
    let from_template = from_template.flat_map(|spec| spec.volumes.iter().flatten());
    // A volume that is refused is known all the same: its mounts are not wrong.
    let listed = container
        .volumes
        .iter()
        .filter_map(|volume| volume.get("name")?.as_str());
    let known: BTreeSet<_> = listed.chain(from_template.map(|volume| volume.name.as_str())).collect();
    mounts(&container.volume_mounts, &known, field, problems);
    unique(
        container.env.iter().map(|entry| entry.name.as_str()),
        &format!("{field}.env"),
        problems,
    );
    let claims = container
        .resources
        .iter()
        .flat_map(|resources| resources.claims.iter().flatten());
    unique(
        claims.map(|claim| claim.name.as_str()),
        &format!("{field}.resources.claims"),
        problems,
    );
    ValidContainer {
        field,
        image: container.image.clone(),
        command: container.command.clone(),
        env: container.env.clone(),
        env_from: container.env_from.clone(),
        resources: container.resources.clone(),
        volumes,
        volume_mounts: container.volume_mounts.clone(),
        pod_template,
    }
}

/// Every volume in its place, so that one is still found by its index when another cannot be read.
fn volumes(container: &Container, field: &str, problems: &mut Problems) -> Vec<Volume> {
    let mut volumes = Vec::new();
    for (index, object) in container.volumes.iter().enumerate() {
        let path = format!("{field}.volumes[{index}]");
        let (read, faults) = strict::parse::<Volume>(object);
        match &read {
            Some(volume) if volume.name.is_empty() => problems.invalid(path.as_str(), "a volume needs a name"),
            Some(volume) if volume.name.starts_with(OWN_VOLUMES) => problems.invalid(
                format!("{path}.name"),
                format!(
                    "{:?} begins with {OWN_VOLUMES:?}, as the operator's own volumes do; choose another name",
                    volume.name
                ),
            ),
            Some(_) | None => {}
        }
        refuse(faults, &path, Reason::Invalid, problems);
        volumes.push(read.unwrap_or_default());
    }
    let names = volumes.iter().map(|volume| volume.name.as_str());
    let names = names.filter(|name| !name.is_empty());
    unique(names, &format!("{field}.volumes"), problems);
    volumes
}

fn mounts(mounts: &[VolumeMount], known: &BTreeSet<&str>, field: &str, problems: &mut Problems) {
    for (index, mount) in mounts.iter().enumerate() {
        let path = format!("{field}.volumeMounts[{index}]");
        if !known.contains(mount.name.as_str()) {
            let names: Vec<_> = known.iter().copied().collect();
            let hint = match flowctl_pipeline::nearest(&mount.name, names.iter().copied()) {
                Some(similar) => format!("did you mean {similar:?}?"),
                None => format!("add it to {field}.volumes"),
            };
            problems.invalid(
                format!("{path}.name"),
                format!("there is no volume {:?}; {hint}", mount.name),
            );
        }
        if let Some(ours) = own_path(&mount.mount_path) {
            problems.invalid(
                format!("{path}.mountPath"),
                format!(
                    "{:?} lies where the operator mounts {ours}; choose another path",
                    mount.mount_path
                ),
            );
        }
    }
    let paths = mounts.iter().map(|mount| mount.mount_path.as_str());
    unique(paths, &format!("{field}.volumeMounts"), problems);
}

/// The path of ours that a mount would hide.
pub(crate) fn own_path(path: &str) -> Option<&'static str> {
    let path = path.trim_end_matches('/');
    OWN_PATHS.into_iter().find(|ours| {
        path.strip_prefix(*ours)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

fn unique<'a>(names: impl Iterator<Item = &'a str>, field: &str, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            problems.invalid(field, format!("{name:?} is there twice; remove one of the two"));
        }
    }
}

fn refuse(faults: Vec<strict::Fault>, base: &str, reason: Reason, problems: &mut Problems) {
    for fault in faults {
        let field = if fault.path.is_empty() {
            base.to_owned()
        } else {
            format!("{base}.{}", fault.path)
        };
        problems.refuse(reason, field, fault.message);
    }
}
