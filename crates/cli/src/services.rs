//! `flowctl services`: the registry with addresses and last signs of life.

use std::process::ExitCode;

use crate::args::{Kind, ServicesArgs};
use crate::dial::Server;
use crate::failure::Failure;
use crate::output::Output;
use crate::source;
use crate::table::Table;
use crate::time::short;

pub(crate) async fn run(server: &Server, output: &Output, arguments: &ServicesArgs) -> Result<ExitCode, Failure> {
    let kind = arguments.kind.map(|kind| match kind {
        Kind::Source => "source",
        Kind::Processor => "processor",
        Kind::Sink => "sink",
        Kind::Pipeline => "cdp-pipeline",
    });
    let mut services = source::list(server).await?;
    services.retain(|service| {
        kind.is_none_or(|kind| kind == service.kind) && service.service_id.starts_with(&arguments.prefix)
    });
    output.write(&services, || {
        let mut table = Table::new(["ID", "NAME", "TYPE", "STATUS", "LAST HEARTBEAT", "ENDPOINT", "VERSION"]);
        for service in &services {
            let beat = service.beat_ago.map(|ago| format!("{} ago", short(ago)));
            table.row([
                service.service_id.clone(),
                service.name.clone(),
                service.kind.to_owned(),
                service.status.to_owned(),
                beat.unwrap_or_else(|| "never".to_owned()),
                service.endpoint.clone(),
                service.version.clone(),
            ]);
        }
        table.render()
    })?;
    Ok(ExitCode::SUCCESS)
}
