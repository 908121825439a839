//! `podTemplate`: the escape hatch. It is merged over what we render with the API's own merge keys; what it may not touch
//! is an error that names both sides, never a silence. Not to be overridden: what the operator finds its pods and files by
//! (labels, mounts, injected variables, ports), what the kind decides (restart policy), and what has a field of its own
//! (image, command, arguments), because two places for one thing is one too many.

use flowctl_api::{Reason, labels};
use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use serde_json::Value;

use crate::body::{to_json, without_empties};
use crate::observed::PodSecurity;
use crate::pod::{MAIN, OWN_VOLUMES};
use crate::pod_security::{self, Violation};
use crate::validate::{Problems, ValidContainer, own_path};

/// Labels and annotations with these prefixes or names are ours.
const OWN_KEYS: [&str; 2] = ["flowctl.dev/", labels::APP_MANAGED_BY];

/// The rendered template with the user's merged over it, as JSON without empties. Problems: what it may not touch, and
/// what pod security does not allow.
pub(crate) fn merged(
    mut rendered: PodTemplateSpec,
    container: &ValidContainer,
    level: PodSecurity,
    problems: &mut Problems,
) -> Value {
    if let Some(user) = &container.pod_template {
        let mut check = Check {
            base: format!("{}.podTemplate", container.field),
            container,
            problems,
        };
        check.template(user, &rendered);
        rendered.merge_from(user.clone());
    }
    let template = without_empties(to_json(&rendered));
    for violation in pod_security::violations(&template, level) {
        let field = field_of(&violation, container);
        problems.refuse(Reason::PodTemplateRefused, field, violation.message);
    }
    template
}

/// Where in the spec a violation comes from: a volume of the list, or the pod template.
fn field_of(violation: &Violation, container: &ValidContainer) -> String {
    let volume = violation
        .path
        .strip_prefix("spec.volumes[")
        .and_then(|rest| rest.split_once(']'));
    if let Some((name, rest)) = volume
        && let Some(index) = container.volumes.iter().position(|volume| volume.name == name)
    {
        return format!("{}.volumes[{index}]{rest}", container.field);
    }
    format!("{}.podTemplate.{}", container.field, violation.path)
}

struct Check<'a> {
    base: String,
    container: &'a ValidContainer,
    problems: &'a mut Problems,
}

// === impl Check ===

impl Check<'_> {
    fn refuse(&mut self, path: &str, message: impl Into<String>) {
        let field = format!("{}.{path}", self.base);
        self.problems.refuse(Reason::PodTemplateRefused, field, message);
    }

    fn template(&mut self, user: &PodTemplateSpec, rendered: &PodTemplateSpec) {
        self.metadata(user);
        if let Some(spec) = &user.spec {
            self.spec(spec, rendered);
            for (index, container) in spec.init_containers.iter().flatten().enumerate() {
                let path = format!("spec.initContainers[{index}]");
                match container.name.as_str() {
                    "" => self.refuse(&path, "a container needs a name"),
                    MAIN => self.refuse(
                        &format!("{path}.name"),
                        "the operator's container is named \"main\"; choose another name",
                    ),
                    _ => {}
                }
            }
            for (index, container) in spec.containers.iter().enumerate() {
                match container.name.as_str() {
                    "" => self.refuse(
                        &format!("spec.containers[{index}]"),
                        "a container needs a name; the operator's is \"main\"",
                    ),
                    MAIN => self.main(container, rendered),
                    _ => {}
                }
            }
        }
    }

    fn metadata(&mut self, user: &PodTemplateSpec) {
        let Some(metadata) = &user.metadata else { return };
        let present = without_empties(to_json(metadata));
        for key in present.as_object().into_iter().flat_map(|map| map.keys()) {
            if !matches!(key.as_str(), "labels" | "annotations") {
                self.refuse(
                    &format!("metadata.{key}"),
                    "a pod template has labels and annotations only; remove it",
                );
            }
        }
        for (list, entries) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
            for key in entries.iter().flatten().map(|(key, _)| key) {
                if OWN_KEYS.iter().any(|own| key.starts_with(own)) {
                    self.refuse(
                        &format!("metadata.{list}.{key}"),
                        "the operator finds its pods by it; remove it",
                    );
                }
            }
        }
    }

    fn spec(&mut self, user: &PodSpec, rendered: &PodTemplateSpec) {
        let ours = rendered.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if let (Some(theirs), Some(ours)) = (user.restart_policy.as_deref(), ours)
            && theirs != ours
        {
            self.refuse(
                "spec.restartPolicy",
                format!("the operator sets {ours}, which this kind of workload needs; remove it"),
            );
        }
        if user.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()) {
            self.refuse(
                "spec.ephemeralContainers",
                "a pod template cannot have any; use kubectl debug on a pod",
            );
        }
        if user.active_deadline_seconds.is_some() {
            self.refuse(
                "spec.activeDeadlineSeconds",
                "it would end the pod; use spec.batch.activeDeadlineSeconds of a Batch pipeline",
            );
        }
        for (index, volume) in user.volumes.iter().flatten().enumerate() {
            let path = format!("spec.volumes[{index}].name");
            if volume.name.is_empty() {
                self.refuse(&path, "a volume needs a name");
            }
            if volume.name.starts_with(OWN_VOLUMES) {
                self.refuse(
                    &path,
                    format!(
                        "{:?} begins with {OWN_VOLUMES:?}, as the operator's own volumes do; choose another name",
                        volume.name
                    ),
                );
            }
            if self.container.volumes.iter().any(|other| other.name == volume.name) {
                let field = self.container.field;
                self.refuse(
                    &path,
                    format!("{field}.volumes has {:?} too; remove one of the two", volume.name),
                );
            }
        }
    }

    fn main(&mut self, user: &Container, rendered: &PodTemplateSpec) {
        let field = self.container.field;
        let fields = [
            ("image", user.image.is_some()),
            ("command", user.command.as_ref().is_some_and(|list| !list.is_empty())),
            ("args", user.args.as_ref().is_some_and(|list| !list.is_empty())),
        ];
        for (key, _) in fields.into_iter().filter(|(_, set)| *set) {
            let path = format!("spec.containers[{MAIN}].{key}");
            let repair = match (key, field) {
                ("args", "spec.runtime") => {
                    "the operator writes the arguments that name the pipeline file; remove it".to_owned()
                }
                _ => format!("it is set by {field}.{key}; set it there"),
            };
            self.refuse(&path, repair);
        }
        let main = rendered
            .spec
            .iter()
            .flat_map(|spec| &spec.containers)
            .find(|main| main.name == MAIN);
        self.env(user, main);
        self.mounts(user);
        let ours = main.into_iter().flat_map(|main| main.ports.iter().flatten());
        let ours: Vec<_> = ours.map(|port| (port.container_port, port.name.as_deref())).collect();
        for port in user.ports.iter().flatten() {
            let clash = ours.iter().find(|(number, name)| {
                let renamed = *number == port.container_port && port.name.is_some() && port.name.as_deref() != *name;
                let moved = *number != port.container_port && port.name.is_some() && port.name.as_deref() == *name;
                renamed || moved
            });
            if let Some((number, name)) = clash {
                let path = format!("spec.containers[{MAIN}].ports[{}]", port.container_port);
                let name = name.unwrap_or_default();
                self.refuse(
                    &path,
                    format!("the Services reach port {number} by the name {name:?}; leave both as they are"),
                );
            }
        }
    }

    /// A variable stands in one place: injected, in the list of the spec, or here.
    fn env(&mut self, user: &Container, rendered: Option<&Container>) {
        let field = self.container.field;
        if user.env_from.is_some() && !self.container.env_from.is_empty() {
            let path = format!("spec.containers[{MAIN}].envFrom");
            self.refuse(
                &path,
                format!("it would replace {field}.envFrom; remove one of the two"),
            );
        }
        let rendered: Vec<_> = rendered
            .into_iter()
            .flat_map(|main| main.env.iter().flatten())
            .collect();
        for entry in user.env.iter().flatten() {
            let path = format!("spec.containers[{MAIN}].env[{}]", entry.name);
            if self.container.env.iter().any(|other| other.name == entry.name) {
                self.refuse(&path, format!("{field}.env has it too; remove one of the two"));
            } else if rendered.iter().any(|other| other.name == entry.name) {
                self.refuse(
                    &path,
                    format!(
                        "the operator injects {}; to replace it, set it in {field}.env",
                        entry.name
                    ),
                );
            }
        }
    }

    fn mounts(&mut self, user: &Container) {
        let field = self.container.field;
        for mount in user.volume_mounts.iter().flatten() {
            let path = format!("spec.containers[{MAIN}].volumeMounts[{}]", mount.mount_path);
            if let Some(ours) = own_path(&mount.mount_path) {
                self.refuse(&path, format!("the operator mounts {ours}; choose another path"));
            } else if mount.name.starts_with(OWN_VOLUMES) {
                self.refuse(
                    &path,
                    format!("{:?} is the operator's own volume; mount one of yours", mount.name),
                );
            }
            if self
                .container
                .volume_mounts
                .iter()
                .any(|other| other.mount_path == mount.mount_path)
            {
                self.refuse(
                    &path,
                    format!("{field}.volumeMounts has this path too; remove one of the two"),
                );
            }
        }
    }
}
