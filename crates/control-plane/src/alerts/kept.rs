//! An alert as the store keeps it: JSON, so that fields can be added, and a later version's are not lost on reading.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::instances::{Instances, KeptInstance};
use super::webhook::Secret;
use super::{About, Alert};

/// What is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Empty: every service.
    service_id: String,
    condition: String,
    webhook: String,
    /// Empty: none.
    secret: String,
    /// Milliseconds since 1970.
    created_at: u64,
    #[serde(default)]
    instances: Vec<KeptInstance>,
}

// === impl Kept ===

impl Kept {
    pub(super) fn write(alert: &Alert) -> Vec<u8> {
        let kept = Self {
            service_id: match &alert.about {
                About::Every => String::new(),
                About::One(id) => id.clone(),
            },
            condition: alert.condition_text.clone(),
            webhook: alert.webhook.reveal(),
            secret: alert.secret.as_ref().map(Secret::reveal).unwrap_or_default(),
            created_at: millis(alert.created_at),
            instances: alert.instances.keep(),
        };
        // Texts and numbers: nothing in it that JSON cannot hold.
        serde_json::to_vec(&kept).unwrap_or_default()
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Alert, String> {
        let kept: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        Ok(Alert {
            about: match kept.service_id.as_str() {
                "" => About::Every,
                _ => About::One(kept.service_id),
            },
            condition: kept.condition.parse().map_err(|error| format!("{error}"))?,
            condition_text: kept.condition,
            webhook: kept.webhook.parse().map_err(|error| format!("{error}"))?,
            secret: Secret::new(kept.secret),
            created_at: UNIX_EPOCH + Duration::from_millis(kept.created_at),
            instances: Instances::restore(kept.instances),
        })
    }
}

/// To the millisecond.
pub(super) fn rounded(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis(time))
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
