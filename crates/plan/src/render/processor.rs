//! A new revision of an ExternalProcessor.

use std::collections::BTreeMap;

use flowctl_api::external_processor::{ClientAuth, Probe as Wanted};
use k8s_openapi::api::core::v1::{Container, GRPCAction, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{control_plane_tls, control_plane_token, reports_to};
use crate::body::Owner;
use crate::env::{self, Identity, entry};
use crate::heartbeat::Heartbeats;
use crate::pod::{self, ConfigDir, Mounts, Parts, RootFilesystem};
use crate::revision::{Content, Rendered};
use crate::validate::{GRPC, Problems, ValidWorkload};
use crate::{Settings, names, pod_template};

/// Seconds from SIGTERM to SIGKILL.
const GRACE_SECONDS: i64 = 30;

/// Renders a workload; `None` when it has problems.
pub(crate) fn processor(
    owner: &Owner,
    valid: &ValidWorkload,
    hash: &str,
    settings: &Settings,
    heartbeats: &Heartbeats,
    problems: &mut Problems,
) -> Option<Rendered> {
    let control_plane = reports_to(valid.control_plane.as_ref(), owner, settings);
    let mut files = BTreeMap::new();
    let mut config = ConfigDir::default();
    let mut injected = env::identity(Identity {
        owner,
        shared_id: valid.heartbeat.shared_id.as_deref(),
        heartbeat_seconds: valid.heartbeat.seconds(),
        control_plane: control_plane.as_ref(),
    });
    injected.extend(control_plane_tls(control_plane.as_ref(), &mut files, &mut config));
    injected.extend(control_plane_token(control_plane.as_ref(), heartbeats, &mut config));
    if !files.is_empty() {
        config.config_map(names::revision(&owner.name, hash));
    }
    if let Some(secret) = &valid.tls_secret {
        let folder = format!("{}/{}", pod::CONFIG_DIR, pod::SERVER_TLS);
        injected.push(entry("FLOWCTL_TLS_CERT", format!("{folder}/tls.crt")));
        injected.push(entry("FLOWCTL_TLS_KEY", format!("{folder}/tls.key")));
        let keys: &[&str] = match valid.client_auth {
            ClientAuth::None => &["tls.crt", "tls.key"],
            ClientAuth::Required => {
                injected.push(entry("FLOWCTL_TLS_CA", format!("{folder}/ca.crt")));
                injected.push(entry("FLOWCTL_TLS_CLIENT_AUTH", "required"));
                &["tls.crt", "tls.key", "ca.crt"]
            }
        };
        config.secret(secret, pod::SERVER_TLS, keys);
    }
    injected.extend(valid.connections.iter().cloned());
    let mut mounts = Mounts::default();
    mounts.config(config);

    let environment = env::merge(injected, &valid.container.env);
    let taken_by_user = environment.taken_by_user.clone();
    let parts = Parts {
        owner,
        hash,
        restarted_at: valid.restarted_at.as_deref(),
        restart_policy: "Always",
        grace_seconds: GRACE_SECONDS,
        root: RootFilesystem::Writable,
        image_pull_policy: settings.image_pull_policy.as_deref(),
        mounts,
        environment,
    };
    let template = pod::template(parts, &valid.container, main(valid));
    let template = pod_template::merged(template, &valid.container, settings.pod_security, problems);
    let content = Content {
        template,
        taken_by_user,
        job: None,
    };
    problems.is_empty().then_some(Rendered { content, files })
}

fn main(valid: &ValidWorkload) -> Container {
    let mut ports = vec![pod::port(GRPC, valid.ports.grpc)];
    ports.extend(valid.ports.extra.iter().map(|extra| pod::port(&extra.name, extra.port)));
    Container {
        image: valid.container.image.clone(),
        command: Some(valid.container.command.clone()),
        args: Some(valid.args.clone()),
        ports: Some(ports),
        readiness_probe: Some(readiness(valid.probe.as_ref(), valid.ports.grpc)),
        ..Default::default()
    }
}

/// Readiness only. Real components open their gRPC port after the control plane has answered: a liveness or startup probe
/// on it would turn an outage of the control plane into a crash loop of our own making.
fn readiness(wanted: Option<&Wanted>, grpc: i32) -> Probe {
    let bare = Probe {
        period_seconds: Some(5),
        timeout_seconds: Some(3),
        failure_threshold: Some(3),
        ..Default::default()
    };
    match wanted.map(|wanted| (&wanted.grpc, &wanted.http)) {
        Some((Some(probe), _)) => Probe {
            grpc: Some(GRPCAction {
                port: grpc,
                service: probe.service.clone(),
            }),
            ..bare
        },
        Some((None, Some(probe))) => Probe {
            http_get: Some(HTTPGetAction {
                path: Some(probe.path.clone().unwrap_or_else(|| "/readyz".to_owned())),
                port: IntOrString::Int(probe.port),
                ..Default::default()
            }),
            ..bare
        },
        Some((None, None)) | None => Probe {
            tcp_socket: Some(TCPSocketAction {
                port: IntOrString::String(GRPC.to_owned()),
                ..Default::default()
            }),
            ..bare
        },
    }
}
