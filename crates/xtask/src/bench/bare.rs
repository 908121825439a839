//! The bare loop's share: the requests that make everything as planned, made beforehand, and sent by a program of its own
//! that was compiled as the operator is.

use std::io::{BufWriter, Write as _};

use anyhow::{Context as _, Result, ensure};
use flowctl_api::labels::{MANAGER, STATUS_MANAGER};
use flowctl_bench::{Recorded, Sent};
use http::{Request, header::CONTENT_TYPE};
use kube::{
    Resource as _,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::Request as Builder,
};
use serde_json::{Value, json};

use super::{
    objects::{self, Planned},
    program::Programs,
    scene::Scene,
};

/// Makes objects in a namespace of its own, and lets the bare loop write their children and statuses.
pub(super) async fn run(
    scene: &Scene,
    programs: &Programs,
    place: &str,
    count: usize,
    in_flight: usize,
) -> Result<Sent> {
    scene.namespace(place).await?;
    objects::create(scene, place, count).await?;
    let file = tempfile::NamedTempFile::new().context("cannot make a file")?;
    let mut writer = BufWriter::new(file.as_file());
    for planned in objects::planned(scene, place).await? {
        for request in requests(place, &planned)? {
            serde_json::to_writer(&mut writer, &request)?;
            writer.write_all(b"\n")?;
        }
    }
    writer.flush().context("cannot write the requests")?;
    drop(writer);
    let mut command = tokio::process::Command::new(&programs.bare_loop);
    command.arg(file.path()).args(["--in-flight", &in_flight.to_string()]);
    command.env("KUBECONFIG", scene.kubeconfig.path()).kill_on_drop(true);
    let said = flowctl_testkit::command::run(&mut command).await?;
    let sent: Sent = serde_json::from_str(&said).context("cannot read what the bare loop said")?;
    ensure!(
        sent.refused.is_empty(),
        "the apiserver refused the bare loop: {:?}",
        sent.refused
    );
    Ok(sent)
}

fn requests(place: &str, planned: &Planned) -> Result<Vec<Recorded>> {
    let mut all = Vec::new();
    for child in &planned.children {
        let builder = Builder::new(DynamicObject::url_path(&objects::resource(child.id.kind), Some(place)));
        let request = if child.id.kind.write_once() {
            let params = PostParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PostParams::default()
            };
            builder.create(&params, child.body.to_string().into_bytes())
        } else {
            builder.patch(&child.id.name, &PatchParams::apply(MANAGER), &Patch::Apply(&child.body))
        };
        all.push(recorded(request?)?);
    }
    let Value::Object(object) = &planned.object else {
        return Ok(all);
    };
    let text = |pointer: &str| {
        planned
            .object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let name = text("/metadata/name");
    let body = json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"],
        "metadata": {"namespace": place, "name": name, "uid": text("/metadata/uid")},
        "status": planned.status,
    });
    let path = match text("/kind") {
        "Pipeline" => flowctl_api::Pipeline::url_path(&(), Some(place)),
        _ => flowctl_api::ExternalProcessor::url_path(&(), Some(place)),
    };
    let params = PatchParams::apply(STATUS_MANAGER).force();
    let request = Builder::new(path).patch_subresource("status", name, &params, &Patch::Apply(&body))?;
    all.push(recorded(request)?);
    Ok(all)
}

fn recorded(request: Request<Vec<u8>>) -> Result<Recorded> {
    let content_type = request
        .headers()
        .get(CONTENT_TYPE)
        .context("a request has no content type")?;
    Ok(Recorded {
        method: request.method().to_string(),
        path: request.uri().to_string(),
        content_type: content_type.to_str()?.to_owned(),
        body: String::from_utf8(request.into_body()).context("a body is no text")?,
    })
}
