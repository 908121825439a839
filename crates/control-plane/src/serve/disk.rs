//! Whether the disk takes what the registry keeps: `/readyz` says it, before registrations are lost unseen.

use std::sync::Arc;
use std::time::Duration;

use flowctl_runtime::Check;
use tokio::time::interval;

use crate::registry::Registry;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Never returns.
pub(crate) async fn follow(registry: Arc<Registry>, check: Check) {
    let mut looks = interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        match registry.store_failure() {
            None => check.ready(),
            Some(error) => check.not_ready(error.to_string()),
        }
    }
}
