//! The metrics of a process, in one registry that parts add to as they start. Only the encoding is fixed here
//! (OpenMetrics text); each part names and documents its own metrics.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::process::Process;

/// What [`Metrics::encode`] writes, as a media type (OpenMetrics 1.0, section "Text format").
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry of a process, shared by clones.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

// === impl Metrics ===

impl Metrics {
    /// A registry that holds `flowctl_build_info{component, version}` and, on Linux, `process_*`: memory, processor time,
    /// open files and the start of this process.
    #[must_use]
    pub fn new(component: &str, version: &str) -> Self {
        let build = Info::new(vec![
            ("component".to_owned(), component.to_owned()),
            ("version".to_owned(), version.to_owned()),
        ]);
        let mut registry = Registry::default();
        registry.register("flowctl_build", "What this process was built from", build);
        registry.register_collector(Box::new(Process::new()));
        Self {
            registry: Arc::new(Mutex::new(registry)),
        }
    }

    /// Adds metrics: calls `add` with the registry and gives back what it returns.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every metric with its present value, as [`METRICS_CONTENT_TYPE`].
    ///
    /// # Errors
    ///
    /// When a metric cannot write itself, which none of the library's does.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}
