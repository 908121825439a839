//! What a `podTemplate` may say about our own container, `main`.

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodTemplateSpec};

use super::{Check, probes};
use crate::pod::{MAIN, OWN_VOLUMES};
use crate::validate::own_path;

/// The protocol of a port that names none.
const TCP: &str = "TCP";

// === impl Check ===

impl Check<'_> {
    pub(super) fn main(&mut self, user: &Container, rendered: &PodTemplateSpec) {
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
        self.ports(user, main);
        self.probes(user);
    }

    fn ports(&mut self, user: &Container, rendered: Option<&Container>) {
        let ours: Vec<_> = rendered
            .into_iter()
            .flat_map(|main| main.ports.iter().flatten())
            .collect();
        let mut seen: Vec<&ContainerPort> = Vec::new();
        for port in user.ports.iter().flatten() {
            let path = format!("spec.containers[{MAIN}].ports[{}]", port.container_port);
            let clash = ours.iter().find(|ours| {
                let number = ours.container_port == port.container_port;
                let name = ours.name == port.name;
                let other = port.name.is_some() && !name || protocol(ours) != protocol(port);
                number && other || !number && port.name.is_some() && name
            });
            if let Some(ours) = clash {
                let (number, name) = (ours.container_port, ours.name.as_deref().unwrap_or_default());
                let message = format!(
                    "the Services reach port {number}/{} by the name {name:?}; leave all three as they are",
                    protocol(ours)
                );
                self.refuse(&path, message);
            }
            let twin = seen
                .iter()
                .find(|other| other.container_port == port.container_port && protocol(other) != protocol(port));
            if let Some(twin) = twin
                && !ours.is_empty()
            {
                let message = format!(
                    "ports of \"{MAIN}\" are merged by number alone, so {} and {} would become one; a container may \
                     listen on a port that is not listed, so remove one of the two",
                    protocol(twin),
                    protocol(port)
                );
                self.refuse(&path, message);
            }
            seen.push(port);
        }
    }

    fn probes(&mut self, user: &Container) {
        for (name, probe) in [
            ("startupProbe", &user.startup_probe),
            ("livenessProbe", &user.liveness_probe),
            ("readinessProbe", &user.readiness_probe),
        ] {
            if probe.as_ref().is_some_and(|probe| probes::handlers(probe) > 1) {
                self.refuse(
                    &format!("spec.containers[{MAIN}].{name}"),
                    "a probe has one of exec, grpc, httpGet and tcpSocket; remove the others",
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

fn protocol(port: &ContainerPort) -> &str {
    port.protocol.as_deref().filter(|name| !name.is_empty()).unwrap_or(TCP)
}
