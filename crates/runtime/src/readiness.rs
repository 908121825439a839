//! Whether the program can do its work, as a list of named checks. Each check is set by the part that knows, so asking
//! costs nothing and cannot hang. It must not be used for liveness: a program that waits for others is alive.

use std::collections::BTreeMap;
use std::fmt;

use tokio::sync::watch;

/// The registry of checks, shared by clones. Without any check it is ready.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    checks: watch::Sender<Checks>,
}

/// By name: why it is not ready, or `None` when it is.
type Checks = BTreeMap<String, Option<String>>;

/// The handle of one check, shared by clones. A check keeps its last state when its handle goes.
#[derive(Debug, Clone)]
pub struct Check {
    name: String,
    checks: watch::Sender<Checks>,
}

/// Tells that some check changed; see [`Readiness::changes`].
#[derive(Debug)]
pub struct Changes(watch::Receiver<Checks>);

/// What is not ready and why, by name; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady(pub BTreeMap<String, String>);

// === impl Readiness ===

impl Readiness {
    /// A registry without checks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check that is not ready yet, because of `why`. A name that exists is started again, not doubled.
    pub fn check(&self, name: impl Into<String>, why: impl Into<String>) -> Check {
        let check = Check {
            name: name.into(),
            checks: self.checks.clone(),
        };
        check.not_ready(why);
        check
    }

    /// Whether every check is ready.
    ///
    /// # Errors
    ///
    /// [`NotReady`] with every check that is not.
    pub fn state(&self) -> Result<(), NotReady> {
        let waiting: BTreeMap<String, String> = self
            .checks
            .borrow()
            .iter()
            .filter_map(|(name, why)| Some((name.clone(), why.clone()?)))
            .collect();
        if waiting.is_empty() {
            Ok(())
        } else {
            Err(NotReady(waiting))
        }
    }

    /// Whether every check is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.checks.borrow().values().all(Option::is_none)
    }

    /// For code that passes the state on: tells of every change from now on.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes(self.checks.subscribe())
    }
}

// === impl Changes ===

impl Changes {
    /// Returns when a check changed since the last call (or since [`Readiness::changes`]); changes in between count
    /// as one. Never returns once the registry and all its checks are gone.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

// === impl Check ===

impl Check {
    /// This part can do its work.
    pub fn ready(&self) {
        self.set(None);
    }

    /// This part cannot do its work now; `why` is shown on `/readyz`.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    /// Takes the check out of the registry, for a part that is gone on purpose.
    pub fn remove(self) {
        self.checks.send_modify(|checks| {
            checks.remove(&self.name);
        });
    }

    fn set(&self, why: Option<String>) {
        self.checks.send_if_modified(|checks| {
            let before = checks.insert(self.name.clone(), why.clone());
            before != Some(why)
        });
    }
}

// === impl NotReady ===

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not ready\n")?;
        self.0.iter().try_for_each(|(name, why)| writeln!(f, "{name}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Traffic must not arrive before every part is ready, and must stop when one no longer is.
    #[test]
    fn ready_only_when_every_check_is() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let first = readiness.check("first", "starting");
        let second = readiness.check("second", "waiting for a peer");
        first.ready();
        let state = readiness.state().expect_err("second is not ready");
        assert_eq!(
            state.0,
            BTreeMap::from([("second".into(), "waiting for a peer".into())])
        );
        second.ready();
        assert_eq!(readiness.state(), Ok(()));
        first.not_ready("lost");
        assert!(!readiness.is_ready());
        first.remove();
        assert!(readiness.is_ready());
    }

    // Who passes the state on must hear of a change, and not of a repetition.
    #[tokio::test]
    async fn a_change_is_told_once() {
        let readiness = Readiness::new();
        let check = readiness.check("part", "starting");
        let mut changes = readiness.changes();
        check.ready();
        changes.changed().await;
        assert!(readiness.is_ready());
        check.ready();
        assert!(!changes.0.has_changed().expect("the registry lives"));
    }
}
