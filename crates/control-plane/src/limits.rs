//! What the registry takes at most. Each bound is there so that no client can make the server's memory grow without end:
//! the sum is about `services` × 90 KiB at the very worst, and 500 bytes a service in practice.

/// Bounds of what clients send. A message that exceeds one is refused whole, and the error names the bound; of a heartbeat only the
/// metrics that are too much are left out, because its sender is alive.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Services that are registered at a time, expired ones included.
    pub services: usize,
    /// Bytes of an id (of a service, a component, a run, a pipeline's name).
    pub id_bytes: usize,
    /// Bytes of a registration: all its texts together. Metadata and event types are bounded in number, too.
    pub registration_bytes: usize,
    /// Entries of metadata, of input types, and of output types.
    pub registration_entries: usize,
    /// Metrics that one service has at a time. A pipeline has about five for each step.
    pub metrics: usize,
    /// Bytes of the name of a metric.
    pub metric_key_bytes: usize,
    /// Bytes of all texts among the metrics of one service.
    pub metric_text_bytes: usize,
    /// Bytes of all histories of metrics together; when they are used up, services that have no history yet get none.
    pub history_bytes: usize,
    /// Pipeline runs that are kept; the oldest ended ones make room.
    pub runs: usize,
    /// Bytes of one pipeline run, its pipeline file included.
    pub run_bytes: usize,
    /// Bytes of all runs together.
    pub all_runs_bytes: usize,
    /// Alerts.
    pub alerts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            services: 200_000,
            id_bytes: 256,
            registration_bytes: 8 * 1024,
            registration_entries: 64,
            metrics: 512,
            metric_key_bytes: 128,
            metric_text_bytes: 4 * 1024,
            history_bytes: 256 * 1024 * 1024,
            runs: 1_000,
            run_bytes: 512 * 1024,
            all_runs_bytes: 64 * 1024 * 1024,
            alerts: 1_000,
        }
    }
}
