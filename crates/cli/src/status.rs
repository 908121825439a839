//! `flowctl status`: every service, or one in detail, as seed 001 shows it (section "Status Commands").

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use crate::args::StatusArgs;
use crate::dial::Server;
use crate::failure::Failure;
use crate::output::Output;
use crate::source;
use crate::table::{Table, cleaned};
use crate::time::short;
use crate::view::ServiceView;

/// Clears the terminal and goes to its corner.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

pub(crate) async fn run(server: &Server, output: &Output, arguments: &StatusArgs) -> Result<ExitCode, Failure> {
    let output = output.or_json(arguments.json);
    loop {
        show(server, &output, arguments).await?;
        if !arguments.watch {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(arguments.interval).await;
    }
}

async fn show(server: &Server, output: &Output, arguments: &StatusArgs) -> Result<(), Failure> {
    let clear = match arguments.watch && std::io::stdout().is_terminal() {
        true => CLEAR,
        false => "",
    };
    match &arguments.id {
        Some(id) => {
            let service = source::get(server, id).await?;
            output.write(&service, || clear.to_owned() + &detail(&service, arguments.verbose))
        }
        None => {
            let services = source::list(server).await?;
            output.write(&services, || clear.to_owned() + &overview(&services, arguments.verbose))
        }
    }
}

fn overview(services: &[ServiceView], verbose: bool) -> String {
    if verbose {
        let details = services.iter().map(|service| detail(service, true));
        return details.collect::<Vec<_>>().join("\n");
    }
    let mut table = Table::new(["ID", "TYPE", "STATUS", "UPTIME"]);
    for service in services {
        table.row([
            service.service_id.clone(),
            service.kind.to_owned(),
            service.status.to_owned(),
            service.uptime().map(short).unwrap_or_default(),
        ]);
    }
    table.render()
}

fn detail(service: &ServiceView, verbose: bool) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        if !value.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key}: {}", cleaned(value));
        }
    };
    let head = if service.is_pipeline() { "Pipeline" } else { "Service" };
    line(head, &service.service_id);
    line("Type", service.kind);
    line("Status", service.status);
    line("Config", service.config.as_deref().unwrap_or_default());
    line("Network", service.network.as_deref().unwrap_or_default());
    line("Uptime", &service.uptime().map(short).unwrap_or_default());
    if verbose {
        line("Name", &service.name);
        line("Version", &service.version);
        line("Description", &service.description);
        line("Endpoint", &service.endpoint);
        line("Registered from", service.peer_address.as_deref().unwrap_or_default());
        line("Liveness", service.liveness.unwrap_or_default());
        line("Reported status", service.reported_status);
        line("Registered at", service.registered_at.as_deref().unwrap_or_default());
        let beat = service.last_heartbeat.as_deref().zip(service.beat_ago);
        let beat = beat.map(|(at, ago)| format!("{at} ({} ago)", short(ago)));
        line("Last heartbeat", beat.as_deref().unwrap_or("never"));
        let heartbeats = service.heartbeats.map(|count| count.to_string());
        line("Heartbeats", &heartbeats.unwrap_or_default());
        line("Input event types", &service.input_event_types.join(", "));
        line("Output event types", &service.output_event_types.join(", "));
        if service.max_inflight > 0 {
            line("Max in flight", &service.max_inflight.to_string());
        }
        line("Identity", service.identity.as_deref().unwrap_or_default());
        section(&mut text, "Metadata", service.metadata.iter());
    }
    let mut metrics: Vec<_> = service.metrics.iter().collect();
    metrics.sort_by_cached_key(|(key, _)| place(key));
    section(&mut text, "Metrics", metrics.into_iter());
    section(&mut text, "Health Details", service.health_details.iter());
    text
}

fn section<'a, V: std::fmt::Display + 'a>(
    text: &mut String,
    title: &str,
    entries: impl Iterator<Item = (&'a String, V)>,
) {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return;
    }
    let _ = writeln!(text, "\n{title}:");
    for (key, value) in entries {
        let _ = writeln!(text, "  {}: {}", cleaned(key), cleaned(&value.to_string()));
    }
}

/// As seed 001 lists them: the pipeline, then its steps in the order of the flow; of each, what it read, found and wrote.
fn place(key: &str) -> (usize, &str, usize, &str) {
    const KINDS: [&str; 4] = ["pipeline", "source", "processor", "consumer"];
    const NUMBERS: [&str; 10] = [
        "uptime_seconds",
        "component_count",
        "processed_ledgers",
        "current_ledger",
        "events_found",
        "successful_events",
        "failed_events",
        "filtered_events",
        "files_written",
        "total_bytes",
    ];
    let rank = |all: &[&str], one: &str| all.iter().position(|known| *known == one).unwrap_or(all.len());
    let (kind, rest) = key.split_once('.').unwrap_or(("", key));
    // Names of steps may have dots, names of numbers have none.
    let (step, number) = rest.rsplit_once('.').unwrap_or(("", rest));
    (rank(&KINDS, kind), step, rank(&NUMBERS, number), key)
}

#[cfg(test)]
mod tests {
    use flowctl_proto::flowctl::ServiceType;
    use flowctl_proto::flowctl::registry::v1::{Liveness, MetricValue, Service, metric_value};
    use flowctl_proto::flowctl::v1::HealthStatus;

    use super::*;

    fn metric(value: f64) -> MetricValue {
        MetricValue {
            value: Some(metric_value::Value::Number(value)),
        }
    }

    fn pipeline() -> ServiceView {
        let status = MetricValue {
            value: Some(metric_value::Value::Text("healthy".into())),
        };
        ServiceView::from_registry(Service {
            service_id: "cdp-contract-events-123".into(),
            r#type: ServiceType::Pipeline.into(),
            liveness: Liveness::Live.into(),
            reported_status: HealthStatus::Healthy.into(),
            metadata: [("config_file", "contract_events.yaml"), ("network", "mainnet")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            metrics: [
                ("pipeline.uptime_seconds", metric(15780.0)),
                ("pipeline.component_count", metric(3.0)),
                ("consumer.SaveToParquet.total_bytes", metric(48_318_382_080.0)),
                (
                    "source.BufferedStorageSourceAdapter.processed_ledgers",
                    metric(125_000.0),
                ),
                (
                    "source.BufferedStorageSourceAdapter.current_ledger",
                    metric(52_125_000.0),
                ),
                ("processor.ContractEventProcessor.successful_events", metric(45600.0)),
                ("processor.ContractEventProcessor.events_found", metric(45678.0)),
                ("consumer.SaveToParquet.files_written", metric(234.0)),
                ("SaveToParquet_status", status),
            ]
            .map(|(key, value)| (key.to_owned(), value))
            .into(),
            ..Default::default()
        })
    }

    // Scripts cut these columns and lines apart, as the seed's own do.
    #[test]
    fn it_looks_as_seed_001_shows_it() {
        assert_eq!(
            overview(&[pipeline()], false),
            "ID                        TYPE           STATUS    UPTIME\n\
             cdp-contract-events-123   cdp-pipeline   healthy   4h 23m\n"
        );
        assert_eq!(
            detail(&pipeline(), false),
            "Pipeline: cdp-contract-events-123\n\
             Type: cdp-pipeline\n\
             Status: healthy\n\
             Config: contract_events.yaml\n\
             Network: mainnet\n\
             Uptime: 4h 23m\n\
             \n\
             Metrics:\n\
             \x20 pipeline.uptime_seconds: 15780\n\
             \x20 pipeline.component_count: 3\n\
             \x20 source.BufferedStorageSourceAdapter.processed_ledgers: 125000\n\
             \x20 source.BufferedStorageSourceAdapter.current_ledger: 52125000\n\
             \x20 processor.ContractEventProcessor.events_found: 45678\n\
             \x20 processor.ContractEventProcessor.successful_events: 45600\n\
             \x20 consumer.SaveToParquet.files_written: 234\n\
             \x20 consumer.SaveToParquet.total_bytes: 48318382080\n\
             \n\
             Health Details:\n\
             \x20 SaveToParquet_status: healthy\n"
        );
    }
}
