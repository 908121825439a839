//! What every pod of ours has in common: paths, volumes, the restricted security context, and the container `main`. It is
//! rendered once for each revision and then kept, so a change here reaches new revisions only.

use std::collections::BTreeMap;

use flowctl_api::labels;
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, Container, ContainerPort, EmptyDirVolumeSource, KeyToPath,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, ProjectedVolumeSource,
    SeccompProfile, SecretProjection, SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::body::Owner;
use crate::env::Environment;
use crate::validate::{Checkpoint, ValidContainer};

/// Name of our container.
pub(crate) const MAIN: &str = "main";
/// Where the pipeline file, certificates and keys are mounted.
pub(crate) const CONFIG_DIR: &str = "/etc/flowctl";
/// Below [`CONFIG_DIR`]: the client certificate towards processors.
pub(crate) const CLIENT_TLS: &str = "client-tls";
/// Below [`CONFIG_DIR`]: the certificate of the gRPC port.
pub(crate) const SERVER_TLS: &str = "tls";
/// Below [`CONFIG_DIR`]: the client certificate towards the control plane.
pub(crate) const CONTROL_PLANE_TLS: &str = "control-plane-tls";
/// Below [`CONFIG_DIR`]: the token that proves to the control plane which pod calls.
pub(crate) const TOKEN: &str = "control-plane-token";
/// In the ConfigMap, and so below [`CONFIG_DIR`]: the authorities of the control plane.
pub(crate) const CONTROL_PLANE_CA: &str = "control-plane-ca.pem";
/// Where the checkpoint volume is mounted.
pub(crate) const CHECKPOINT_DIR: &str = "/var/lib/flowctl/checkpoint";
/// Paths at which nothing else may be mounted.
pub(crate) const OWN_PATHS: [&str; 2] = [CONFIG_DIR, CHECKPOINT_DIR];
/// What the names of our volumes begin with.
pub(crate) const OWN_VOLUMES: &str = "flowctl-";

/// The user and group of images that say nothing else ("nonroot" of the distroless images).
const NONROOT: i64 = 65532;
/// The kubelet replaces a token when most of this is over.
const TOKEN_SECONDS: i64 = 3600;
/// Keys are read by the group (fsGroup) only.
const SECRET_MODE: i32 = 0o440;

/// Whether the image may write to its own file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RootFilesystem {
    /// Our images: nothing but `/tmp` and mounted volumes.
    ReadOnly,
    /// Images of others, of which we know nothing.
    Writable,
}

/// What is mounted below [`CONFIG_DIR`].
#[derive(Clone, Debug, Default)]
pub(crate) struct ConfigDir {
    sources: Vec<VolumeProjection>,
}

/// Volumes with their mounts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mounts {
    pub(crate) volumes: Vec<Volume>,
    pub(crate) mounts: Vec<VolumeMount>,
}

/// What differs from pod to pod.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) owner: &'a Owner,
    pub(crate) hash: &'a str,
    pub(crate) restarted_at: Option<&'a str>,
    pub(crate) restart_policy: &'static str,
    pub(crate) grace_seconds: i64,
    pub(crate) root: RootFilesystem,
    pub(crate) image_pull_policy: Option<&'a str>,
    pub(crate) mounts: Mounts,
    pub(crate) environment: Environment,
}

/// The pod template around a container, which brings image, command, args, ports and probes.
pub(crate) fn template(parts: Parts<'_>, valid: &ValidContainer, main: Container) -> PodTemplateSpec {
    let Mounts {
        mut volumes,
        mut mounts,
    } = parts.mounts;
    volumes.extend(valid.volumes.iter().cloned());
    mounts.extend(valid.volume_mounts.iter().cloned());
    if parts.root == RootFilesystem::ReadOnly && mounts.iter().all(|mount| mount.mount_path != "/tmp") {
        let name = format!("{OWN_VOLUMES}tmp");
        volumes.push(empty_dir(name.clone()));
        mounts.push(VolumeMount {
            name,
            mount_path: "/tmp".to_owned(),
            ..Default::default()
        });
    }
    let main = Container {
        name: MAIN.to_owned(),
        env: Some(parts.environment.entries),
        env_from: Some(valid.env_from.clone()),
        resources: valid.resources.clone(),
        volume_mounts: Some(mounts),
        image_pull_policy: parts.image_pull_policy.map(str::to_owned),
        security_context: Some(container_security(parts.root)),
        // So that the reason of a failure is in the pod's status, and from there in ours.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..main
    };
    let restarted_at = parts.restarted_at.filter(|at| !at.is_empty());
    let annotations = restarted_at.map(|at| BTreeMap::from([(labels::RESTARTED_AT.to_owned(), at.to_owned())]));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(parts.owner.revision_labels(parts.hash)),
            annotations,
            ..Default::default()
        }),
        spec: Some(PodSpec {
            containers: vec![main],
            volumes: Some(volumes),
            restart_policy: Some(parts.restart_policy.to_owned()),
            termination_grace_period_seconds: Some(parts.grace_seconds),
            security_context: Some(pod_security()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            ..Default::default()
        }),
    }
}

/// A port of the container.
pub(crate) fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..Default::default()
    }
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(NONROOT),
        run_as_group: Some(NONROOT),
        fs_group: Some(NONROOT),
        // A large checkpoint volume is not walked at every start.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn container_security(root: RootFilesystem) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: None,
        }),
        read_only_root_filesystem: match root {
            RootFilesystem::ReadOnly => Some(true),
            RootFilesystem::Writable => None,
        },
        ..Default::default()
    }
}

fn empty_dir(name: String) -> Volume {
    Volume {
        name,
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Default::default()
    }
}

// === impl ConfigDir ===

impl ConfigDir {
    /// The files of a ConfigMap.
    pub(crate) fn config_map(&mut self, name: String) {
        let config_map = Some(ConfigMapProjection {
            name,
            ..Default::default()
        });
        self.sources.push(VolumeProjection {
            config_map,
            ..Default::default()
        });
    }

    /// A token of the pod's service account.
    pub(crate) fn token(&mut self, audience: &str) {
        let token = Some(ServiceAccountTokenProjection {
            audience: Some(audience.to_owned()),
            expiration_seconds: Some(TOKEN_SECONDS),
            path: TOKEN.to_owned(),
        });
        self.sources.push(VolumeProjection {
            service_account_token: token,
            ..Default::default()
        });
    }

    /// Keys of a Secret, in a folder.
    pub(crate) fn secret(&mut self, name: &str, folder: &str, keys: &[&str]) {
        let item = |key: &&str| KeyToPath {
            key: (*key).to_owned(),
            path: format!("{folder}/{key}"),
            mode: Some(SECRET_MODE),
        };
        let items = Some(keys.iter().map(item).collect());
        let secret = Some(SecretProjection {
            name: name.to_owned(),
            items,
            ..Default::default()
        });
        self.sources.push(VolumeProjection {
            secret,
            ..Default::default()
        });
    }
}

// === impl Mounts ===

impl Mounts {
    /// Everything below [`CONFIG_DIR`] in one volume: mounts inside a mounted ConfigMap depend on the kubelet's good will.
    pub(crate) fn config(&mut self, config: ConfigDir) {
        if config.sources.is_empty() {
            return;
        }
        let name = format!("{OWN_VOLUMES}config");
        let projected = Some(ProjectedVolumeSource {
            sources: Some(config.sources),
            default_mode: None,
        });
        self.volumes.push(Volume {
            name: name.clone(),
            projected,
            ..Default::default()
        });
        let read_only = Some(true);
        self.mounts.push(VolumeMount {
            name,
            mount_path: CONFIG_DIR.to_owned(),
            read_only,
            ..Default::default()
        });
    }

    /// The checkpoint.
    pub(crate) fn checkpoint(&mut self, checkpoint: &Checkpoint) {
        let name = format!("{OWN_VOLUMES}checkpoint");
        self.volumes.push(match checkpoint {
            Checkpoint::EmptyDir => empty_dir(name.clone()),
            Checkpoint::Claim(claim) => Volume {
                name: name.clone(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim.clone(),
                    read_only: None,
                }),
                ..Default::default()
            },
        });
        self.mounts.push(VolumeMount {
            name,
            mount_path: CHECKPOINT_DIR.to_owned(),
            ..Default::default()
        });
    }
}
