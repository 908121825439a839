//! Waiting for a condition with a deadline: what tests do instead of sleeping.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, Result};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Waits until `condition` returns a value. `what` is a statement: "the deployment is available".
///
/// # Errors
/// The condition's own error at once; [`Error::Deadline`] when time is over.
pub async fn until<T>(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    until_explained(what, limit, async || Ok(condition().await?.ok_or_else(String::new))).await
}

/// Like [`until`], for a condition that can say what it saw instead; the last of it stands in the error.
///
/// # Errors
/// As [`until`].
pub async fn until_explained<T>(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let seen = match condition().await? {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        if Instant::now() >= deadline {
            let detail = if seen.is_empty() {
                seen
            } else {
                format!("; last seen: {seen}")
            };
            return Err(Error::Deadline {
                what: what.to_owned(),
                limit,
                detail,
            });
        }
        tokio::time::sleep(POLL).await;
    }
}
