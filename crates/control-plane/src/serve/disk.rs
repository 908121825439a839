//! Whether the disk takes what the registry keeps. It is told by a metric and in the log, and to whoever registers; not by
//! `/readyz`: the only replica would lose its Service's endpoints, and with them every sign of life, which needs no disk.

use std::sync::Arc;
use std::time::Duration;

use flowctl_runtime::Metrics;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::interval;

use crate::registry::Registry;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Adds the metric.
pub(crate) fn register(metrics: &Metrics) -> Gauge {
    let failing = Gauge::default();
    metrics.register(|registry| {
        registry.sub_registry_with_prefix("flowctl_control_plane").register(
            "disk_failing",
            "1 while the disk does not take what the registry keeps; registrations are refused then, heartbeats are not",
            failing.clone(),
        );
    });
    failing
}

/// Never returns.
pub(crate) async fn follow(registry: Arc<Registry>, failing: Gauge) {
    let mut looks = interval(LOOK_EVERY);
    let mut was_failing = false;
    loop {
        looks.tick().await;
        let failure = registry.store_failure();
        failing.set(i64::from(failure.is_some()));
        match (&failure, was_failing) {
            (Some(error), false) => tracing::error!(%error, "the disk does not take what the registry keeps"),
            (None, true) => tracing::info!("the disk takes what the registry keeps again"),
            (Some(_), true) | (None, false) => {}
        }
        was_failing = failure.is_some();
    }
}
