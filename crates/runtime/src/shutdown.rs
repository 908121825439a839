//! When to stop: one request, heard by everybody who holds the token. SIGTERM and SIGINT ask; a second signal ends the
//! process at once, for people who do not want to wait for the drain. It must not decide how long a drain may take.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A request to stop, shared by clones.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

/// The signal handlers cannot be set.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for SIGTERM and SIGINT: {0}")]
pub struct ShutdownError(#[from] std::io::Error);

// === impl Shutdown ===

impl Shutdown {
    /// One that only [`request`](Self::request) triggers, for tests and for parts of a program.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One that SIGTERM and SIGINT trigger. A second signal exits with 128 + its number, as a shell would report it.
    /// Call once, inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the handlers cannot be set.
    pub fn on_signals() -> Result<Self, ShutdownError> {
        let shutdown = Self::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let asked = shutdown.clone();
        tokio::spawn(async move {
            let first = either(&mut terminate, &mut interrupt).await;
            tracing::info!(signal = first, "stopping; a second signal ends at once");
            asked.request();
            let second = either(&mut terminate, &mut interrupt).await;
            tracing::warn!(signal = second, "ended by a second signal");
            #[expect(
                clippy::disallowed_methods,
                reason = "who signals twice wants the end, not an orderly one"
            )]
            std::process::exit(128 + second);
        });
        Ok(shutdown)
    }

    /// Asks everybody to stop. Asking again changes nothing.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns when somebody asks, or at once if somebody has.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// The token itself, for code that takes one.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

impl From<CancellationToken> for Shutdown {
    fn from(token: CancellationToken) -> Self {
        Self { token }
    }
}

/// Waits for either signal and gives its number.
async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Every part of a program must hear the request, also one that asks late.
    #[tokio::test]
    async fn clones_hear_a_request() {
        let shutdown = Shutdown::new();
        let early = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.requested().await }
        });
        assert!(!shutdown.is_requested());
        shutdown.clone().request();
        early.await.expect("the waiting task ends");
        shutdown.requested().await;
        assert!(shutdown.token().is_cancelled());
    }
}
