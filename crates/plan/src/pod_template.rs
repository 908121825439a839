//! `podTemplate`: the escape hatch. It is merged over what we render with the API's own merge keys; what it may not touch
//! is an error that names both sides, never a silence. Not to be overridden: what the operator finds its pods and files by
//! (labels, mounts, injected variables, ports), what the kind decides (restart policy), and what has a field of its own
//! (image, command, arguments), because two places for one thing is one too many.

use flowctl_api::{Reason, labels};
use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use serde_json::Value;

use crate::body::{to_json, without_empties};
use crate::list;
use crate::observed::PodSecurity;
use crate::pod::{MAIN, OWN_VOLUMES};
use crate::pod_security::{self, Violation};
use crate::validate::{Problems, ValidContainer};

mod defaults;
mod main_container;
mod probes;

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
        probes::make_room(&mut rendered, user);
        rendered.merge_from(user.clone());
    }
    let template = without_empties(defaults::unsaid(to_json(&rendered)));
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
        for path in list::duplicates(&to_json(user)) {
            self.refuse(&path, "it is there twice; remove one of the two");
        }
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
        if let (Some(old), Some(new)) = (&user.service_account, &user.service_account_name)
            && old != new
        {
            self.refuse(
                "spec.serviceAccount",
                "it is the old name of serviceAccountName, which says otherwise; remove it",
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
}
