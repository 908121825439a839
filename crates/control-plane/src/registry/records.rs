//! What the registry keeps beside services: pipeline runs, and alerts in the form that their module gives them.

use std::collections::BTreeMap;

use flowctl_proto::flowctl::{
    CreatePipelineRunRequest, ListPipelineRunsRequest, PipelineRun, UpdatePipelineRunRequest,
};
use prost::Message as _;

use super::feed::Change;
use super::runs::{Changed, Runs};
use super::time::At;
use super::{Pipeline, Registry, RegistryError, lock};
use crate::store::Write;

impl Registry {
    // === runs ===

    /// Begins a run. The oldest ended runs make room for it, and if none has ended, the oldest one is ended as failed.
    ///
    /// # Errors
    ///
    /// The id exists, the name is missing, a bound is exceeded, or the disk refuses.
    pub async fn create_run(&self, request: CreatePipelineRunRequest) -> Result<PipelineRun, RegistryError> {
        let new_id = || format!("run-{:016x}", fastrand::u64(..));
        self.change_run(|runs, now| runs.create(request, new_id, now, &self.rules.limits))
            .await
    }

    /// Reports on a run.
    ///
    /// # Errors
    ///
    /// The id is unknown, the run has ended or would go back, a bound is exceeded, or the disk refuses.
    pub async fn update_run(&self, request: UpdatePipelineRunRequest) -> Result<PipelineRun, RegistryError> {
        self.change_run(|runs, now| runs.update(request, now, &self.rules.limits))
            .await
    }

    /// Marks a run as stopped; again, if it was.
    ///
    /// # Errors
    ///
    /// The id is unknown, the run ended otherwise, or the disk refuses.
    pub async fn stop_run(&self, run_id: &str) -> Result<PipelineRun, RegistryError> {
        self.change_run(|runs, now| runs.stop(run_id, now, &self.rules.limits))
            .await
    }

    /// Stops every run of a pipeline that has not ended.
    ///
    /// # Errors
    ///
    /// No run is of this pipeline, or the disk refuses.
    pub async fn stop_pipeline(&self, name: &str) -> Result<Vec<PipelineRun>, RegistryError> {
        let active = {
            let runs = lock(&self.runs);
            if !runs.has_pipeline(name) {
                return Err(RegistryError::UnknownPipeline(name.to_owned()));
            }
            runs.active(|run| run.pipeline_name == name)
        };
        let mut stopped = Vec::new();
        for run_id in active {
            match self.stop_run(&run_id).await {
                Ok(run) => stopped.push(run),
                // It ended by itself in between.
                Err(RegistryError::RunTransition { .. } | RegistryError::UnknownRun(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(stopped)
    }

    async fn change_run(
        &self,
        change: impl FnOnce(&mut Runs, At) -> Result<Changed, RegistryError>,
    ) -> Result<PipelineRun, RegistryError> {
        let room = self.store.room(self.rules.limits.run_bytes).await;
        let (run, written) = {
            let mut runs = lock(&self.runs);
            let changed = change(&mut runs, self.now())?;
            if !changed.is_change {
                return Ok(changed.run);
            }
            let given_up = changed.given_up.as_ref().map(|(number, run)| (*number, run));
            let touched: Vec<_> = given_up.into_iter().chain([(changed.number, &changed.run)]).collect();
            self.feed
                .publish(touched.iter().map(|(_, run)| Change::run(&run.run_id)));
            let mut writes = vec![Write::RemoveRuns(changed.evicted)];
            writes.extend(touched.into_iter().map(|(number, run)| Write::PutRun {
                number,
                kept: run.encode_to_vec(),
            }));
            (changed.run, self.store.write(writes, room))
        };
        written.wait().await?;
        Ok(run)
    }

    /// One run.
    ///
    /// # Errors
    ///
    /// The id is unknown.
    pub fn run(&self, run_id: &str) -> Result<PipelineRun, RegistryError> {
        lock(&self.runs).get(run_id).cloned()
    }

    /// Runs, the newest first; about 3 MiB of them at most.
    #[must_use]
    pub fn runs(&self, request: &ListPipelineRunsRequest) -> Vec<PipelineRun> {
        lock(&self.runs).list(request)
    }

    /// The ids of the runs that have not ended, the oldest first.
    #[must_use]
    pub fn active_runs(&self) -> Vec<String> {
        lock(&self.runs).active(|_| true)
    }

    /// Pipelines that have runs, sorted by name.
    #[must_use]
    pub fn pipelines(&self) -> Vec<Pipeline> {
        lock(&self.runs).pipelines()
    }

    // === alerts: kept here, understood elsewhere ===

    /// Keeps an alert in the form that its module gives it.
    ///
    /// # Errors
    ///
    /// There are too many, or the disk refuses.
    pub async fn keep_alert(&self, alert_id: &str, kept: Vec<u8>) -> Result<(), RegistryError> {
        let room = self.store.room(kept.len()).await;
        let written = {
            let mut alerts = lock(&self.alerts);
            let limit = self.rules.limits.alerts;
            if alerts.len() >= limit && !alerts.contains_key(alert_id) {
                return Err(RegistryError::Full { what: "alerts", limit });
            }
            alerts.insert(alert_id.to_owned(), kept.clone());
            let id = alert_id.to_owned();
            self.store.write(vec![Write::PutAlert { id, kept }], room)
        };
        Ok(written.wait().await?)
    }

    /// Forgets an alert; `false` if there was none.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub async fn forget_alert(&self, alert_id: &str) -> Result<bool, RegistryError> {
        let room = self.store.room(self.rules.limits.id_bytes).await;
        let written = {
            let mut alerts = lock(&self.alerts);
            if alerts.remove(alert_id).is_none() {
                return Ok(false);
            }
            self.store.write(vec![Write::RemoveAlert(alert_id.to_owned())], room)
        };
        written.wait().await?;
        Ok(true)
    }

    /// Every alert that is kept, by id.
    #[must_use]
    pub fn kept_alerts(&self) -> BTreeMap<String, Vec<u8>> {
        lock(&self.alerts).clone()
    }
}
