//! `flowctl health [ID]`: one line, and an exit code that scripts can use.

use std::process::ExitCode;

use serde::Serialize;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::args::HealthArgs;
use crate::dial::Server;
use crate::failure::{BETWEEN, FAILED, Failure};
use crate::output::Output;
use crate::source;

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    status: &'a str,
    healthy: bool,
}

pub(crate) async fn run(server: &Server, output: &Output, arguments: &HealthArgs) -> Result<ExitCode, Failure> {
    match &arguments.id {
        Some(id) => {
            let service = source::get(server, id).await?;
            tell(output, id, service.status)
        }
        None => {
            let status = of_server(server).await?;
            let who = format!("control plane at {}", server.place);
            tell(output, &who, status)
        }
    }
}

fn tell(output: &Output, id: &str, status: &str) -> Result<ExitCode, Failure> {
    let healthy = status == "healthy";
    let mark = if healthy { '✓' } else { '✗' };
    let answer = Answer { id, status, healthy };
    output.write(&answer, || format!("{mark} {id} is {status}\n"))?;
    Ok(match status {
        "healthy" => ExitCode::SUCCESS,
        "unhealthy" | "expired" => FAILED.into(),
        _ => BETWEEN.into(),
    })
}

/// What the server says about itself; one without that service is asked for its list, which only a healthy one answers.
async fn of_server(server: &Server) -> Result<&'static str, Failure> {
    match server.health().check(HealthCheckRequest::default()).await {
        Ok(answer) => Ok(match answer.into_inner().status() {
            ServingStatus::Serving => "healthy",
            ServingStatus::NotServing | ServingStatus::Unknown | ServingStatus::ServiceUnknown => "unhealthy",
        }),
        Err(status) if matches!(status.code(), Code::Unimplemented | Code::NotFound) => {
            source::list(server).await.map(|_| "healthy")
        }
        Err(status) => Err(server.failure("ask for the server's health", status)),
    }
}
