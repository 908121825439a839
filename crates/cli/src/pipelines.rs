//! `flowctl pipelines`: pipelines and their runs, which live in the legacy dialect.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use flowctl_proto::flowctl::registry::v1::{ListPipelinesRequest, StopPipelineRequest};
use flowctl_proto::flowctl::{
    GetPipelineRunRequest, ListPipelineRunsRequest, PipelineRun, RunStatus, StopPipelineRunRequest,
};
use serde::Serialize;
use tonic::Code;

use crate::args::{PipelinesCommand, RunState};
use crate::dial::Server;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{Table, cleaned};
use crate::time::{rfc3339, short};

#[derive(Serialize)]
struct PipelineView {
    name: String,
    last_run: Option<String>,
    status: &'static str,
    runs: u32,
    active_runs: u32,
}

#[derive(Serialize)]
struct RunView {
    run_id: String,
    pipeline: String,
    status: &'static str,
    started_at: Option<String>,
    ended_at: Option<String>,
    duration_seconds: Option<u64>,
    events_processed: i64,
    events_per_second: f64,
    bytes_processed: i64,
    component_ids: Vec<String>,
    components: BTreeMap<String, ComponentView>,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    config_yaml: String,
}

#[derive(Serialize)]
struct ComponentView {
    events_in: i64,
    events_out: i64,
    bytes_in: i64,
    bytes_out: i64,
    processing_time_ms: f64,
}

#[derive(Serialize)]
struct Stopped {
    stopped: Vec<RunView>,
}

pub(crate) async fn run(server: &Server, output: &Output, command: PipelinesCommand) -> Result<ExitCode, Failure> {
    match command {
        PipelinesCommand::List => list(server, output).await?,
        PipelinesCommand::Runs {
            pipeline,
            status,
            limit,
        } => runs(server, output, pipeline, status, limit).await?,
        PipelinesCommand::RunInfo { run } => run_info(server, output, run).await?,
        PipelinesCommand::Stop { target } => stop(server, output, target).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(server: &Server, output: &Output) -> Result<(), Failure> {
    let answer = server.registry().list_pipelines(ListPipelinesRequest {}).await;
    let answer = answer
        .map_err(|status| server.failure("list pipelines", status))?
        .into_inner();
    let pipelines = answer.pipelines.into_iter().map(|pipeline| {
        let latest = pipeline.latest_run.unwrap_or_default();
        PipelineView {
            name: pipeline.pipeline_name,
            last_run: latest.start_time.as_ref().and_then(rfc3339),
            status: status_word(latest.status()),
            runs: pipeline.runs,
            active_runs: pipeline.active_runs,
        }
    });
    let pipelines: Vec<_> = pipelines.collect();
    output.write(&pipelines, || {
        let mut table = Table::new(["NAME", "LAST RUN", "STATUS", "RUNS", "ACTIVE"]);
        for pipeline in &pipelines {
            table.row([
                pipeline.name.clone(),
                pipeline.last_run.clone().unwrap_or_default(),
                pipeline.status.to_owned(),
                pipeline.runs.to_string(),
                pipeline.active_runs.to_string(),
            ]);
        }
        table.render()
    })
}

async fn runs(
    server: &Server,
    output: &Output,
    pipeline: Option<String>,
    status: Option<RunState>,
    limit: i32,
) -> Result<(), Failure> {
    let status = status.map_or(RunStatus::Unknown, |status| match status {
        RunState::Starting => RunStatus::Starting,
        RunState::Running => RunStatus::Running,
        RunState::Completed => RunStatus::Completed,
        RunState::Failed => RunStatus::Failed,
        RunState::Stopped => RunStatus::Stopped,
    });
    let request = ListPipelineRunsRequest {
        pipeline_name: pipeline.unwrap_or_default(),
        status: status.into(),
        limit,
    };
    let answer = server.legacy().list_pipeline_runs(request).await;
    let answer = answer
        .map_err(|status| server.failure("list runs", status))?
        .into_inner();
    let runs: Vec<RunView> = answer.runs.into_iter().map(RunView::from).collect();
    output.write(&runs, || {
        let mut table = Table::new(["RUN ID", "PIPELINE", "STATUS", "STARTED", "DURATION", "EVENTS"]);
        for run in &runs {
            table.row([
                run.run_id.clone(),
                run.pipeline.clone(),
                run.status.to_owned(),
                run.started_at.clone().unwrap_or_default(),
                run.duration(),
                run.events_processed.to_string(),
            ]);
        }
        table.render()
    })
}

async fn run_info(server: &Server, output: &Output, run_id: String) -> Result<(), Failure> {
    let answer = server.legacy().get_pipeline_run(GetPipelineRunRequest { run_id }).await;
    let answer = answer.map_err(|status| server.failure("read the run", status))?;
    let run = RunView::from(answer.into_inner());
    output.write(&run, || run.detail())
}

/// A run by its id, else every run of a pipeline by its name.
async fn stop(server: &Server, output: &Output, target: String) -> Result<(), Failure> {
    const DOING: &str = "stop the run";
    let request = StopPipelineRunRequest { run_id: target.clone() };
    let failure = match server.legacy().stop_pipeline_run(request).await {
        Ok(run) => return tell_stopped(output, vec![run.into_inner()]),
        Err(status) => server.failure(DOING, status),
    };
    if !matches!(failure, Failure::NotFound(_)) {
        return Err(failure);
    }
    let request = StopPipelineRequest {
        pipeline_name: target.clone(),
    };
    match server.registry().stop_pipeline(request).await {
        Ok(answer) => tell_stopped(output, answer.into_inner().stopped),
        Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => {
            Err(Failure::NotFound(format!("no run and no pipeline is called {target}")))
        }
        Err(status) => Err(server.failure(DOING, status)),
    }
}

fn tell_stopped(output: &Output, runs: Vec<PipelineRun>) -> Result<(), Failure> {
    let stopped: Vec<RunView> = runs.into_iter().map(RunView::from).collect();
    let stopped = Stopped { stopped };
    output.write(&stopped, || match stopped.stopped.as_slice() {
        [] => "nothing was running\n".to_owned(),
        runs => runs
            .iter()
            .map(|run| format!("run {} of {} is {}\n", run.run_id, run.pipeline, run.status))
            .collect(),
    })
}

fn status_word(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Unknown => "unknown",
        RunStatus::Starting => "starting",
        RunStatus::Running => "running",
        RunStatus::Completed => "completed",
        RunStatus::Failed => "failed",
        RunStatus::Stopped => "stopped",
    }
}

// === impl RunView ===

impl From<PipelineRun> for RunView {
    fn from(run: PipelineRun) -> Self {
        let status = status_word(run.status());
        let duration = run.start_time.and_then(|start| duration(start, run.end_time));
        let metrics = run.metrics.unwrap_or_default();
        let components = metrics.component_metrics.into_iter().map(|(name, of)| {
            let view = ComponentView {
                events_in: of.events_in,
                events_out: of.events_out,
                bytes_in: of.bytes_in,
                bytes_out: of.bytes_out,
                processing_time_ms: of.processing_time_ms,
            };
            (name, view)
        });
        Self {
            run_id: run.run_id,
            pipeline: run.pipeline_name,
            status,
            started_at: run.start_time.as_ref().and_then(rfc3339),
            ended_at: run.end_time.as_ref().and_then(rfc3339),
            duration_seconds: duration.map(|duration| duration.as_secs()),
            events_processed: metrics.events_processed,
            events_per_second: metrics.events_per_second,
            bytes_processed: metrics.bytes_processed,
            component_ids: run.component_ids,
            components: components.collect(),
            error: run.error,
            config_yaml: run.config_yaml,
        }
    }
}

/// Until its end, or until now.
fn duration(start: prost_types::Timestamp, end: Option<prost_types::Timestamp>) -> Option<Duration> {
    let start = SystemTime::try_from(start).ok()?;
    let end = match end {
        Some(end) => SystemTime::try_from(end).ok()?,
        None => SystemTime::now(),
    };
    Some(end.duration_since(start).unwrap_or_default())
}

impl RunView {
    fn duration(&self) -> String {
        let duration = self.duration_seconds.map(Duration::from_secs);
        duration.map(short).unwrap_or_default()
    }

    fn detail(&self) -> String {
        let mut text = String::new();
        let mut line = |key: &str, value: &str| {
            if !value.is_empty() {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{key}: {}", cleaned(value));
            }
        };
        line("Run", &self.run_id);
        line("Pipeline", &self.pipeline);
        line("Status", self.status);
        line("Started", self.started_at.as_deref().unwrap_or_default());
        line("Ended", self.ended_at.as_deref().unwrap_or_default());
        line("Duration", &self.duration());
        line("Error", &self.error);
        line("Events", &self.events_processed.to_string());
        line("Events per second", &format!("{:.1}", self.events_per_second));
        line("Bytes", &self.bytes_processed.to_string());
        line("Components", &self.component_ids.join(", "));
        if !self.components.is_empty() {
            let mut table = Table::new(["COMPONENT", "EVENTS IN", "EVENTS OUT", "BYTES IN", "BYTES OUT", "MS"]);
            for (name, of) in &self.components {
                table.row([
                    name.clone(),
                    of.events_in.to_string(),
                    of.events_out.to_string(),
                    of.bytes_in.to_string(),
                    of.bytes_out.to_string(),
                    format!("{:.1}", of.processing_time_ms),
                ]);
            }
            text.push('\n');
            text.push_str(&table.render());
        }
        text
    }
}
