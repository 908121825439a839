//! What a service on this SDK reports by itself: whether it is ready, how many messages it handled, and what its author
//! adds.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use flowctl_runtime::Readiness;
use tokio_util::sync::CancellationToken;

use super::{Health, Report, Snapshot, count};
use crate::metrics::ServiceMetrics;

/// Numbers of the author's, by key.
pub(crate) type Provider = Box<dyn Fn() -> Vec<(String, f64)> + Send + Sync>;

/// The report of one service.
pub(crate) struct ServiceReport {
    pub(crate) started: Instant,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: ServiceMetrics,
    pub(crate) stopping: CancellationToken,
    pub(crate) provider: Option<Provider>,
}

impl Report for ServiceReport {
    fn health(&self) -> Health {
        match (self.stopping.is_cancelled(), self.readiness.is_ready()) {
            (true, _) => Health::Stopping,
            (false, true) => Health::Healthy,
            // A service takes messages or it does not, as in its answer to HealthCheck.
            (false, false) => Health::Unhealthy,
        }
    }

    fn snapshot(&self) -> Snapshot {
        let mut numbers: BTreeMap<String, f64> = self.metrics.reported().into_iter().collect();
        numbers.insert("uptime_seconds".to_owned(), count(self.started.elapsed().as_secs()));
        if let Some(provider) = &self.provider {
            // A mistake in it costs its own numbers; the panic hook has told it.
            let own = catch_unwind(AssertUnwindSafe(provider));
            numbers.extend(own.unwrap_or_default());
        }
        Snapshot {
            health: self.health(),
            numbers,
            texts: BTreeMap::new(),
        }
    }
}
