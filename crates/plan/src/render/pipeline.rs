//! A new revision of a Pipeline.

use std::collections::BTreeMap;

use flowctl_api::Reason;
use flowctl_api::pipeline::{Flavor, Mode};
use flowctl_pipeline::PipelineFile;
use k8s_openapi::api::core::v1::{Container, EnvVar, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{control_plane_tls, control_plane_token, reports_to};
use crate::body::to_json;
use crate::env::{self, Identity, entry};
use crate::heartbeat::Heartbeats;
use crate::pod::{self, ConfigDir, Mounts, Parts, RootFilesystem};
use crate::revision::{Content, Rendered};
use crate::validate::{Problems, ValidPipeline};
use crate::{Settings, build, names, pod_template, wire};

/// Seconds from SIGTERM to SIGKILL: the runner drains for 25, and has time left to write its checkpoint.
const GRACE_SECONDS: i64 = 45;
/// Most bytes of a ConfigMap's data.
const MAX_BYTES: usize = 1024 * 1024;

/// Renders a Pipeline; `None` when it has problems.
pub(crate) fn pipeline(
    valid: &ValidPipeline,
    hash: &str,
    settings: &Settings,
    heartbeats: &Heartbeats,
    problems: &mut Problems,
) -> Option<Rendered> {
    let file = wire::file(valid);
    let text = flowctl_pipeline::write(&file);
    let mut files = wire::authorities(valid);
    // A file that does not fit is said to be too large, once.
    if text.len() <= MAX_BYTES {
        check_file(valid, &file, &text, problems);
    }
    files.insert(wire::FILE.to_owned(), text);

    let control_plane = reports_to(valid.control_plane.as_ref(), &valid.owner, settings);
    let mut config = ConfigDir::default();
    config.config_map(names::revision(&valid.owner.name, hash));
    let mut injected = env::identity(Identity {
        owner: &valid.owner,
        shared_id: valid.heartbeat.shared_id.as_deref(),
        heartbeat_seconds: valid.heartbeat.seconds(),
        control_plane: control_plane.as_ref(),
    });
    let tls = control_plane_tls(control_plane.as_ref(), &mut files, &mut config);
    injected.extend(tls.iter().map(|long| EnvVar {
        name: long.name.replace("_CONTROL_PLANE_", "_"),
        ..long.clone()
    }));
    injected.extend(tls);
    injected.extend(control_plane_token(control_plane.as_ref(), heartbeats, &mut config));
    check_size(valid, &files, problems);
    if let Some(secret) = &valid.client_tls {
        config.secret(secret, pod::CLIENT_TLS, &["tls.crt", "tls.key"]);
    }
    let mut mounts = Mounts::default();
    mounts.config(config);
    if let Some(checkpoint) = &valid.checkpoint {
        mounts.checkpoint(checkpoint);
        injected.push(entry("FLOWCTL_CHECKPOINT_DIR", pod::CHECKPOINT_DIR));
    }

    let environment = env::merge(injected, &valid.container.env);
    let taken_by_user = environment.taken_by_user.clone();
    let parts = Parts {
        owner: &valid.owner,
        hash,
        restarted_at: valid.restarted_at.as_deref(),
        restart_policy: match valid.mode {
            Mode::Streaming => "Always",
            Mode::Batch => "Never",
        },
        grace_seconds: GRACE_SECONDS,
        root: match valid.flavor {
            Flavor::Runner => RootFilesystem::ReadOnly,
            Flavor::Cdp => RootFilesystem::Writable,
        },
        image_pull_policy: settings.image_pull_policy.as_deref(),
        mounts,
        environment,
    };
    let template = pod::template(parts, &valid.container, main(valid, settings));
    let template = pod_template::merged(template, &valid.container, settings.pod_security, problems);
    let job = match valid.mode {
        Mode::Streaming => None,
        Mode::Batch => Some(build::frozen(valid.flavor)),
    };
    let content = Content {
        template,
        taken_by_user,
        job,
    };
    problems.is_empty().then_some(Rendered { content, files })
}

fn main(valid: &ValidPipeline, settings: &Settings) -> Container {
    let path = format!("{}/{}", pod::CONFIG_DIR, wire::FILE);
    let image = valid
        .container
        .image
        .clone()
        .unwrap_or_else(|| settings.runner_image.clone());
    let bare = Container {
        image: Some(image),
        command: Some(valid.container.command.clone()),
        ..Default::default()
    };
    match valid.flavor {
        Flavor::Runner => Container {
            args: Some(vec!["run".to_owned(), path]),
            ports: Some(vec![pod::port(build::HTTP, build::HTTP_PORT)]),
            startup_probe: Some(probe("/livez", 2, 60)),
            liveness_probe: Some(probe("/livez", 10, 6)),
            readiness_probe: Some(probe("/readyz", 5, 3)),
            ..bare
        },
        // Exactly these, in this order: only then does the Go binary register and keep checkpoints. It opens no port.
        Flavor::Cdp => {
            let mut args = vec!["-config".to_owned(), path];
            if valid.checkpoint.is_some() {
                args.extend(["-checkpoint-dir".to_owned(), pod::CHECKPOINT_DIR.to_owned()]);
            }
            Container {
                args: Some(args),
                ..bare
            }
        }
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(build::HTTP.to_owned()),
            ..Default::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(3),
        failure_threshold: Some(failures),
        ..Default::default()
    }
}

/// Whether the program that reads the file will take it. The catalogue of step types is the one of our runner, so it is
/// asked only where our runner runs: another image or another command may know more.
fn check_file(valid: &ValidPipeline, file: &PipelineFile, text: &str, problems: &mut Problems) {
    match flowctl_pipeline::read(text) {
        Ok(read) if read == *file => {}
        Ok(_) => problems.invalid(
            "spec",
            "the pipeline file would not be read as it was written; simplify the steps' config",
        ),
        Err(faults) => {
            for fault in faults.iter() {
                problems.invalid(spec_path(&fault.path, file), with_hint(fault));
            }
            return;
        }
    }
    let ours = valid.container.image.is_none() && valid.container.command.is_empty();
    if valid.flavor == Flavor::Runner
        && ours
        && let Err(faults) = flowctl_pipeline::check_runnable(file)
    {
        for fault in faults.iter() {
            problems.invalid(spec_path(&fault.path, file), with_hint(fault));
        }
    }
}

fn with_hint(fault: &flowctl_pipeline::Diagnostic) -> String {
    match &fault.hint {
        Some(hint) => format!("{}; {hint}", fault.problem),
        None => fault.problem.clone(),
    }
}

/// The config that alone has more than `bytes`; else the whole spec.
fn largest_config(valid: &ValidPipeline, bytes: usize) -> String {
    let source = std::iter::once(("spec.source".to_owned(), &valid.source));
    let listed = [("processors", &valid.processors), ("consumers", &valid.consumers)];
    let listed = listed.into_iter().flat_map(|(list, steps)| {
        let steps = steps.iter().enumerate();
        steps.map(move |(index, step)| (format!("spec.{list}[{index}]"), step))
    });
    source
        .chain(listed)
        .find(|(_, step)| to_json(&step.config).to_string().len() > bytes)
        .map_or_else(|| "spec".to_owned(), |(field, _)| format!("{field}.config"))
}

/// `pipelines.<key>.processors[1].config.x` of the file is `spec.processors[1].config.x` of the object.
fn spec_path(path: &str, file: &PipelineFile) -> String {
    let root = format!("pipelines.{}.", file.key);
    match path.strip_prefix(&root) {
        Some(rest) => format!("spec.{rest}"),
        None => "spec".to_owned(),
    }
}

fn check_size(valid: &ValidPipeline, files: &BTreeMap<String, String>, problems: &mut Problems) {
    let bytes: usize = files.iter().map(|(name, text)| name.len() + text.len()).sum();
    if bytes > MAX_BYTES {
        problems.refuse(
            Reason::ConfigTooLarge,
            largest_config(valid, bytes / 2),
            format!(
                "the pipeline file and the CA bundles are {bytes} bytes, and a ConfigMap takes {MAX_BYTES}; move large values \
                 of config into files on a volume"
            ),
        );
    }
}
