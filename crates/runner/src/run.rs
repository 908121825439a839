//! One run of a pipeline: builds its tasks, watches over them, writes the checkpoint, and says how
//! it ended. Ending is in one place: the first failure stops everything, a request to stop stops
//! only the reading, and whatever is not finished at the end is given back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flowctl_bridge::{Metrics as BridgeMetrics, WindowLimits};
use flowctl_runtime::{Metrics, Readiness};
use flowctl_sdk::control_plane::Statistics;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::blueprint::Blueprint;
use crate::checkpoint::Checkpoint;
use crate::error::RunError;
use crate::metrics::RunnerMetrics;
use crate::report::Reports;
use crate::source::{Reading, SourceError};
use crate::summary::{Ended, Summary};
use crate::tasks::Pipeline;
use crate::tracker::Tracker;

/// How often the checkpoint follows.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// How long to wait for the process that still holds the checkpoint.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// How long tasks that were told to end may take. A write that hangs cannot be told.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// How a run behaves, beside what the file says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the checkpoint is kept; no checkpoint without it.
    pub checkpoint_dir: Option<PathBuf>,
    /// How long what is under way may take after a request to stop.
    pub grace: Duration,
    /// Messages and bytes between the source and the last acknowledgement.
    pub window: WindowLimits,
}

/// What a run reports to and listens to.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Cancelled to stop reading and drain.
    pub stop: CancellationToken,
    /// Gets a check for each external step.
    pub readiness: Readiness,
    /// Gets the metrics, under `cdp_pipeline_`.
    pub metrics: Metrics,
    /// Gets the numbers that the control plane is told.
    pub statistics: Statistics,
}

/// Runs a pipeline until its source ends, somebody asks to stop, or a step fails for good.
///
/// # Errors
/// The first failure. Everything up to the checkpoint is acknowledged even then.
pub async fn run(blueprint: &Blueprint, options: &Options, environment: &Environment) -> Result<Summary, RunError> {
    let metrics = RunnerMetrics::default();
    let bridge = BridgeMetrics::default();
    environment.metrics.register(|registry| {
        let registry = registry.sub_registry_with_prefix("cdp_pipeline");
        metrics.register(registry);
        bridge.register(registry);
    });
    let (checkpoint, last) = tokio::select! {
        opened = open_checkpoint(blueprint, options) => opened?,
        // Another process may hold the checkpoint for longer than anybody wants to wait.
        () = environment.stop.cancelled() => return Ok(Summary::nothing(stopped(blueprint), None)),
    };
    if let Some(last) = last {
        metrics.checkpoint_ledger.set(i64::from(last));
    }
    let start = start_after(blueprint, last);
    let folder = &blueprint.source.settings;
    if let (Some(start), Some(end)) = (start, folder.end_ledger)
        && start > end
    {
        info!(checkpoint = last, end, "the range was done by an earlier run");
        return Ok(Summary::nothing(Ended::Complete, last));
    }
    let mut pipeline = Pipeline {
        blueprint,
        environment,
        metrics,
        bridge,
        tracker: Tracker::default(),
        // Not the request to stop itself: a failure stops the reading too.
        stop: environment.stop.child_token(),
        tasks: JoinSet::new(),
        filters: Vec::new(),
        reports: Reports::new(environment.statistics.clone()),
    };
    pipeline.start(start, options.window)?;
    let keeper = Keeper {
        checkpoint,
        saved: last,
    };
    let run = Run {
        pipeline,
        keeper,
        reading: None,
    };
    run.watch_over(options.grace).await
}

async fn open_checkpoint(
    blueprint: &Blueprint,
    options: &Options,
) -> Result<(Option<Arc<Checkpoint>>, Option<u32>), RunError> {
    let Some(dir) = options.checkpoint_dir.clone() else {
        return Ok((None, None));
    };
    let key = blueprint.key.clone();
    let source = blueprint.source.settings.clone();
    let open = move || Checkpoint::open(&dir, &key, &source, LOCK_PATIENCE);
    let (checkpoint, last) = tokio::task::spawn_blocking(open).await??;
    if let Some(last) = last {
        info!(last_ledger = last, "resuming after the checkpoint");
    }
    Ok((Some(Arc::new(checkpoint)), last))
}

/// What a request to stop means before the source has ended.
fn stopped(blueprint: &Blueprint) -> Ended {
    match blueprint.source.settings.end_ledger {
        Some(_) => Ended::Interrupted,
        None => Ended::Stopped,
    }
}

/// The ledger to begin with: after the checkpoint, or where the file says when that is later.
fn start_after(blueprint: &Blueprint, last: Option<u32>) -> Option<u32> {
    let configured = blueprint.source.settings.start_ledger;
    match last.and_then(|last| last.checked_add(1)) {
        Some(resumed) => Some(configured.map_or(resumed, |start| start.max(resumed))),
        None => configured,
    }
}

/// A run under way.
struct Run<'a> {
    pipeline: Pipeline<'a>,
    keeper: Keeper,
    /// How reading ended, once it has.
    reading: Option<Reading>,
}

/// Keeps the checkpoint, if there is one.
struct Keeper {
    checkpoint: Option<Arc<Checkpoint>>,
    saved: Option<u32>,
}

// === impl Run ===

impl Run<'_> {
    /// Watches over the tasks until all have ended.
    async fn watch_over(mut self, grace: Duration) -> Result<Summary, RunError> {
        let failure = self.until_the_end(grace).await;
        self.pipeline.stop.cancel();
        self.pipeline.tasks.abort_all();
        let failure = self.collect(failure).await;
        let kept = self.keep().await;
        let summary = self.summary();
        summary.log(&self.pipeline.blueprint.key);
        if let Some(error) = failure {
            return Err(error);
        }
        kept?;
        match summary.ended {
            Ended::Complete if summary.given_back > 0 => Err(RunError::Dropped(summary.given_back)),
            Ended::Complete | Ended::Stopped | Ended::Interrupted => Ok(summary),
        }
    }

    /// Waits until every task has ended, one has failed, or the grace period is over.
    async fn until_the_end(&mut self, grace: Duration) -> Option<RunError> {
        let mut tick = tokio::time::interval(CHECKPOINT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = &self.pipeline.environment.stop;
        let mut drained_by: Option<Instant> = None;
        let mut source_failure = None;
        loop {
            tokio::select! {
                ended = self.pipeline.tasks.join_next() => match ended {
                    None => return source_failure,
                    Some(Ok(Ok(told))) => self.reading = told.or(self.reading),
                    // What was read before is good: it is finished first.
                    Some(Ok(Err(error))) if ends_reading_only(&error) => {
                        drained_by = Some(Instant::now() + grace);
                        source_failure = Some(error);
                    }
                    Some(Ok(Err(error))) => return source_failure.or(Some(error)),
                    Some(Err(error)) => return source_failure.or(Some(error.into())),
                },
                _ = tick.tick() => {
                    // Here and not in a task of its own: a run that hangs must be seen to.
                    let under_way = self.pipeline.metrics.window.messages.get() > 0;
                    self.pipeline.reports.report(self.keeper.saved, under_way);
                    if let Err(error) = self.keep().await {
                        return Some(error);
                    }
                }
                () = stop.cancelled(), if drained_by.is_none() => {
                    info!(?grace, "reading has stopped; what is under way is finished first");
                    drained_by = Some(Instant::now() + grace);
                }
                () = sleep_until(drained_by.unwrap_or_else(Instant::now)), if drained_by.is_some() => {
                    warn!("the grace period is over; what is not finished is given back");
                    return source_failure;
                }
            }
        }
    }

    /// Waits for the tasks that were told to end. The reason of a failure beats its consequences.
    async fn collect(&mut self, mut failure: Option<RunError>) -> Option<RunError> {
        let ends_by = Instant::now() + END_TIMEOUT;
        loop {
            let next = tokio::time::timeout_at(ends_by, self.pipeline.tasks.join_next());
            let error = match next.await {
                Err(_) | Ok(None) => return failure,
                Ok(Some(Ok(Ok(_)))) => continue,
                Ok(Some(Ok(Err(error)))) => error,
                Ok(Some(Err(error))) if error.is_cancelled() => continue,
                Ok(Some(Err(error))) => error.into(),
            };
            if !is_consequence(&error) && failure.as_ref().is_none_or(is_consequence) {
                failure = Some(error);
            }
        }
    }

    async fn keep(&mut self) -> Result<(), RunError> {
        let Some(last) = self.pipeline.tracker.committed() else {
            return Ok(());
        };
        let first = self.pipeline.tracker.progress().range.map(|(first, _)| first);
        self.keeper.keep(last, first).await?;
        self.pipeline.metrics.checkpoint_ledger.set(i64::from(last));
        Ok(())
    }

    fn summary(&self) -> Summary {
        let pipeline = &self.pipeline;
        let progress = pipeline.tracker.progress();
        let filters = pipeline.filters.iter();
        let skipped = filters.map(|step| step.so_far().filtered).sum();
        let given_back = progress.started - progress.finished;
        let was_asked = pipeline.environment.stop.is_cancelled();
        let ended = match self.reading {
            Some(Reading::Complete) if given_back == 0 || !was_asked => Ended::Complete,
            _ => stopped(pipeline.blueprint),
        };
        Summary {
            ended,
            read: progress.started,
            acknowledged: progress.finished.saturating_sub(skipped),
            skipped,
            given_back,
            range: progress.range,
            checkpoint: self.keeper.saved,
        }
    }
}

/// The source failed, and the rest of the pipeline is sound.
fn ends_reading_only(error: &RunError) -> bool {
    matches!(error, RunError::Source { .. }) && !is_consequence(error)
}

/// Reading ends with an error of its own when the rest of the pipeline is gone.
fn is_consequence(error: &RunError) -> bool {
    matches!(error, RunError::Source { source, .. } if matches!(**source, SourceError::Abandoned))
}

// === impl Keeper ===

impl Keeper {
    async fn keep(&mut self, last: u32, first: Option<u32>) -> Result<(), RunError> {
        if self.saved >= Some(last) {
            return Ok(());
        }
        if let Some(checkpoint) = self.checkpoint.clone() {
            tokio::task::spawn_blocking(move || checkpoint.save(last, first)).await??;
        }
        self.saved = Some(last);
        Ok(())
    }
}
