//! Pipeline runs: a state machine of its own, as pure as the services'. A run goes STARTING → RUNNING → one of COMPLETED,
//! FAILED, STOPPED (or straight to the end), and never back: what has ended stays as it ended.

use std::collections::{BTreeMap, HashMap};

use flowctl_proto::flowctl::{
    CreatePipelineRunRequest, ListPipelineRunsRequest, PipelineRun, RunStatus, UpdatePipelineRunRequest,
};
use prost::Message as _;
use prost_types::Timestamp;

use super::error::RegistryError;
use super::metrics::bound;
use super::model::Pipeline;
use super::time::At;
use crate::limits::Limits;

/// Runs that a list has if it does not say how many: the existing server's number.
const DEFAULT_LIST: usize = 10;
/// Bytes of a list, about; more than its first run it has only up to here. gRPC clients read 4 MiB unless they are told otherwise.
const LIST_BYTES: usize = 3 * 1024 * 1024;
/// Why a run was ended here, and not by whoever began it.
const GIVEN_UP: &str = "given up by the control plane: it was the oldest of too many runs that had not ended";

/// The place of a run in the order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RunNumber(pub(crate) u64);

/// Every run that is kept.
#[derive(Debug, Default)]
pub(super) struct Runs {
    by_number: BTreeMap<RunNumber, PipelineRun>,
    by_id: HashMap<String, RunNumber>,
    bytes: usize,
}

/// A run as it is now, and those that made room for it.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) number: RunNumber,
    pub(super) run: PipelineRun,
    pub(super) evicted: Vec<RunNumber>,
    /// The one that had not ended, and was ended to make room.
    pub(super) given_up: Option<(RunNumber, PipelineRun)>,
    /// Whether anything is different from before.
    pub(super) is_change: bool,
}

// === impl Runs ===

impl Runs {
    pub(super) fn restore(&mut self, number: RunNumber, run: PipelineRun) {
        self.bytes += run.encoded_len();
        self.by_id.insert(run.run_id.clone(), number);
        self.by_number.insert(number, run);
    }

    /// `new_id` is for a request that names none.
    pub(super) fn create(
        &mut self,
        request: CreatePipelineRunRequest,
        new_id: impl FnOnce() -> String,
        now: At,
        limits: &Limits,
    ) -> Result<Changed, RegistryError> {
        if request.pipeline_name.is_empty() {
            return Err(RegistryError::Missing("pipeline_name"));
        }
        bound("bytes of run_id", request.run_id.len(), limits.id_bytes)?;
        bound("bytes of pipeline_name", request.pipeline_name.len(), limits.id_bytes)?;
        let run_id = if request.run_id.is_empty() {
            new_id()
        } else {
            request.run_id
        };
        if self.by_id.contains_key(&run_id) {
            return Err(RegistryError::RunExists(run_id));
        }
        let run = PipelineRun {
            run_id,
            pipeline_id: request.pipeline_name.clone(),
            pipeline_name: request.pipeline_name,
            status: RunStatus::Starting.into(),
            start_time: Some(timestamp(now.wall)),
            end_time: None,
            config_yaml: request.config_yaml,
            metrics: None,
            error: String::new(),
            component_ids: request.component_ids,
        };
        bound("bytes of a pipeline run", run.encoded_len(), limits.run_bytes)?;
        let mut evicted = self.evict_ended(limits);
        evicted.extend(self.free(run.encoded_len(), None, limits)?);
        let given_up = match self.by_number.len() < limits.runs {
            true => None,
            false => self.give_up_oldest(now),
        };
        let number = RunNumber(self.by_number.last_key_value().map_or(0, |(number, _)| number.0 + 1));
        self.restore(number, run.clone());
        Ok(Changed {
            number,
            run,
            evicted,
            given_up,
            is_change: true,
        })
    }

    /// The oldest ended runs go until there is a place for one more.
    fn evict_ended(&mut self, limits: &Limits) -> Vec<RunNumber> {
        let too_many = (self.by_number.len() + 1).saturating_sub(limits.runs);
        let ended = self.by_number.iter().filter(|(_, run)| is_final(run.status()));
        let evicted: Vec<_> = ended.map(|(number, _)| *number).take(too_many).collect();
        self.remove(&evicted);
        evicted
    }

    /// Runs go until there is room for so many bytes: the oldest ended ones, then the oldest. Never `but`.
    fn free(&mut self, bytes: usize, but: Option<RunNumber>, limits: &Limits) -> Result<Vec<RunNumber>, RegistryError> {
        let mut excess = (self.bytes + bytes).saturating_sub(limits.all_runs_bytes);
        let of = |is_wanted: bool| {
            let runs = self
                .by_number
                .iter()
                .filter(move |(_, run)| is_final(run.status()) == is_wanted);
            runs.filter(move |(number, _)| Some(**number) != but)
        };
        let mut evicted = Vec::new();
        for (number, run) in of(true).chain(of(false)) {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(run.encoded_len());
            evicted.push(*number);
        }
        if excess > 0 {
            return Err(RegistryError::Full {
                what: "bytes of pipeline runs",
                limit: limits.all_runs_bytes,
            });
        }
        self.remove(&evicted);
        Ok(evicted)
    }

    fn remove(&mut self, numbers: &[RunNumber]) {
        for run in numbers.iter().filter_map(|number| self.by_number.remove(number)) {
            self.bytes -= run.encoded_len();
            self.by_id.remove(&run.run_id);
        }
    }

    /// Ends the oldest run that has not ended: whoever began it is gone, or it would be among the newer ones. It stays until the
    /// next one needs its place, so that its end can be seen.
    fn give_up_oldest(&mut self, now: At) -> Option<(RunNumber, PipelineRun)> {
        let (number, run) = self.by_number.iter_mut().find(|(_, run)| !is_final(run.status()))?;
        self.bytes -= run.encoded_len();
        run.set_status(RunStatus::Failed);
        run.end_time = Some(timestamp(now.wall));
        GIVEN_UP.clone_into(&mut run.error);
        self.bytes += run.encoded_len();
        Some((*number, run.clone()))
    }

    pub(super) fn update(
        &mut self,
        request: UpdatePipelineRunRequest,
        now: At,
        limits: &Limits,
    ) -> Result<Changed, RegistryError> {
        let status = request.status();
        self.change(&request.run_id, status, now, limits, |run| {
            if request.metrics.is_some() {
                run.metrics = request.metrics;
            }
            if !request.error.is_empty() {
                run.error = request.error;
            }
        })
    }

    pub(super) fn stop(&mut self, run_id: &str, now: At, limits: &Limits) -> Result<Changed, RegistryError> {
        self.change(run_id, RunStatus::Stopped, now, limits, |_| ())
    }

    fn change(
        &mut self,
        run_id: &str,
        to: RunStatus,
        now: At,
        limits: &Limits,
        edit: impl FnOnce(&mut PipelineRun),
    ) -> Result<Changed, RegistryError> {
        let (number, before) = self.find(run_id)?;
        let (from, bytes_before, mut run) = (before.status(), before.encoded_len(), before.clone());
        let becomes = if to == RunStatus::Unknown { from } else { to };
        // A repeated report of the same end is one whose answer was lost.
        let is_repeated = is_final(from) && becomes == from && to != RunStatus::Unknown;
        let mut evicted = Vec::new();
        if !is_repeated {
            if is_final(from) || (from == RunStatus::Running && becomes == RunStatus::Starting) {
                let run_id = run_id.to_owned();
                return Err(RegistryError::RunTransition { run_id, from, to });
            }
            edit(&mut run);
            run.set_status(becomes);
            if is_final(becomes) {
                run.end_time = Some(timestamp(now.wall));
            }
            bound("bytes of a pipeline run", run.encoded_len(), limits.run_bytes)?;
            evicted = self.free(run.encoded_len().saturating_sub(bytes_before), Some(number), limits)?;
            self.bytes = self.bytes - bytes_before + run.encoded_len();
            self.by_number.insert(number, run.clone());
        }
        Ok(Changed {
            number,
            run,
            evicted,
            given_up: None,
            is_change: !is_repeated,
        })
    }

    pub(super) fn get(&self, run_id: &str) -> Result<&PipelineRun, RegistryError> {
        Ok(self.find(run_id)?.1)
    }

    fn find(&self, run_id: &str) -> Result<(RunNumber, &PipelineRun), RegistryError> {
        let unknown = || RegistryError::UnknownRun(run_id.to_owned());
        let number = *self.by_id.get(run_id).ok_or_else(unknown)?;
        Ok((number, self.by_number.get(&number).ok_or_else(unknown)?))
    }

    /// The newest first; as many as were asked for and fit in one answer.
    pub(super) fn list(&self, request: &ListPipelineRunsRequest) -> Vec<PipelineRun> {
        let limit = match request.limit {
            0 => DEFAULT_LIST,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let wanted = self.newest_first().filter(|run| {
            (request.pipeline_name.is_empty() || run.pipeline_name == request.pipeline_name)
                && (request.status() == RunStatus::Unknown || run.status() == request.status())
        });
        let mut bytes = 0;
        let fitting = wanted.take(limit).take_while(|run| {
            let is_first = bytes == 0;
            bytes += run.encoded_len();
            is_first || bytes <= LIST_BYTES
        });
        fitting.cloned().collect()
    }

    /// The ids of the runs that have not ended, the oldest first.
    pub(super) fn active(&self, is_wanted: impl Fn(&PipelineRun) -> bool) -> Vec<String> {
        let active = self
            .by_number
            .values()
            .filter(|run| !is_final(run.status()) && is_wanted(run));
        active.map(|run| run.run_id.clone()).collect()
    }

    /// Sorted by name.
    pub(super) fn pipelines(&self) -> Vec<Pipeline> {
        let mut by_name = BTreeMap::<&str, Pipeline>::new();
        for run in self.newest_first() {
            let pipeline = by_name.entry(&run.pipeline_name).or_insert_with(|| Pipeline {
                name: run.pipeline_name.clone(),
                latest_run: PipelineRun {
                    pipeline_id: run.pipeline_id.clone(),
                    run_id: run.run_id.clone(),
                    pipeline_name: run.pipeline_name.clone(),
                    status: run.status,
                    start_time: run.start_time,
                    end_time: run.end_time,
                    // The largest part, which a list of pipelines does not show.
                    config_yaml: String::new(),
                    metrics: run.metrics.clone(),
                    error: run.error.clone(),
                    component_ids: run.component_ids.clone(),
                },
                runs: 0,
                active_runs: 0,
            });
            pipeline.runs += 1;
            pipeline.active_runs += u32::from(!is_final(run.status()));
        }
        by_name.into_values().collect()
    }

    pub(super) fn has_pipeline(&self, name: &str) -> bool {
        self.by_number.values().any(|run| run.pipeline_name == name)
    }

    fn newest_first(&self) -> impl Iterator<Item = &PipelineRun> {
        self.by_number.values().rev()
    }
}

/// Whether a run in this state has ended.
fn is_final(status: RunStatus) -> bool {
    match status {
        RunStatus::Unknown | RunStatus::Starting | RunStatus::Running => false,
        RunStatus::Completed | RunStatus::Failed | RunStatus::Stopped => true,
    }
}

fn timestamp(millis: i64) -> Timestamp {
    Timestamp {
        seconds: millis.div_euclid(1000),
        nanos: i32::try_from(millis.rem_euclid(1000) * 1_000_000).unwrap_or(0),
    }
}
