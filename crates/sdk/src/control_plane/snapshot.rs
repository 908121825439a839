//! What one heartbeat says.

use std::collections::BTreeMap;
use std::sync::Arc;

/// How a service says that it is (`flowctl.v1.HealthStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// At work.
    Healthy,
    /// Not yet at work.
    Starting,
    /// At work, and something that it needs is not as it should be.
    Degraded,
    /// Not able to work.
    Unhealthy,
    /// About to end.
    Stopping,
}

/// What one heartbeat says.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// How the service is.
    pub health: Health,
    /// Its numbers, under the keys that readers see; those that are not finite are not sent.
    pub numbers: BTreeMap<String, f64>,
    /// What it says in words, for example `<component>_status`. The legacy dialect cannot carry them.
    pub texts: BTreeMap<String, String>,
}

/// Says what the next heartbeat says. It is called in the session's task just before each one: quick, and without waiting.
pub trait Report: Send + Sync + 'static {
    /// How things are now.
    fn snapshot(&self) -> Snapshot;

    /// The health in [`snapshot`](Self::snapshot); asked for every second, so that a change is told at once.
    fn health(&self) -> Health {
        self.snapshot().health
    }
}

impl<F: Fn() -> Snapshot + Send + Sync + 'static> Report for F {
    fn snapshot(&self) -> Snapshot {
        self()
    }
}

impl<R: Report + ?Sized> Report for Arc<R> {
    fn snapshot(&self) -> Snapshot {
        (**self).snapshot()
    }

    fn health(&self) -> Health {
        (**self).health()
    }
}
