//! Alerts: a condition that the server watches, and a webhook that it calls when the condition begins or ceases to hold.
//! They are kept in the registry's store, with what was told, so that a restart wakes nobody twice.

mod condition;
mod delivery;
mod instances;
mod kept;
mod watcher;
mod webhook;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use flowctl_proto::flowctl::registry::v1 as wire;
use prost_types::Timestamp;
use tonic::Status;

pub use condition::{Condition, ConditionError, State};
pub(crate) use delivery::Retry;
pub(crate) use watcher::Watcher;
pub(crate) use webhook::Caller;
pub use webhook::{DELIVERY_HEADER, SIGNATURE_HEADER, Secret, TIMESTAMP_HEADER, Webhook, WebhookError};

use crate::registry::Registry;
use instances::Instances;
use kept::Kept;

/// Every alert, shared by clones.
#[derive(Clone)]
pub(crate) struct Alerts(Arc<Inner>);

struct Inner {
    registry: Arc<Registry>,
    /// Signs the calls of alerts that have no secret of their own.
    fallback: Option<Secret>,
    alerts: Mutex<BTreeMap<String, Alert>>,
    /// Held while an alert is written or forgotten: what is forgotten must not be written after it.
    disk: tokio::sync::Mutex<()>,
}

/// One of them.
#[derive(Clone, Debug)]
struct Alert {
    about: About,
    condition: Condition,
    /// As it was given.
    condition_text: String,
    webhook: Webhook,
    secret: Option<Secret>,
    created_at: SystemTime,
    instances: Instances,
}

/// Which services an alert is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum About {
    Every,
    One(String),
}

/// A secret is a key, not a text.
const LONGEST_SECRET: usize = 1024;

// === impl Alerts ===

impl Alerts {
    /// The alerts that the registry has kept. One that cannot be read (written by a later version) is left as it is.
    pub(crate) fn load(registry: Arc<Registry>, fallback: Option<Secret>) -> Self {
        let mut alerts = BTreeMap::new();
        for (id, kept) in registry.kept_alerts() {
            match Kept::read(&kept) {
                Ok(alert) => drop(alerts.insert(id, alert)),
                Err(error) => tracing::error!(
                    alert = id,
                    error,
                    "an alert that was kept cannot be read; it is not evaluated"
                ),
            }
        }
        Self(Arc::new(Inner {
            registry,
            fallback,
            alerts: Mutex::new(alerts),
            disk: tokio::sync::Mutex::default(),
        }))
    }

    pub(crate) async fn create(&self, request: wire::CreateAlertRequest) -> Result<wire::Alert, Status> {
        let invalid = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        if request.secret.len() > LONGEST_SECRET {
            return Err(invalid(&format!(
                "secret too large: at most {LONGEST_SECRET} bytes are allowed"
            )));
        }
        let alert = Alert {
            condition: request
                .condition
                .parse()
                .map_err(|error: ConditionError| invalid(&error))?,
            webhook: request
                .webhook_url
                .parse()
                .map_err(|error: WebhookError| invalid(&error))?,
            condition_text: request.condition,
            about: match request.service_id.as_str() {
                "" => About::Every,
                _ => About::One(request.service_id),
            },
            secret: Secret::new(request.secret),
            // To the millisecond, as it is kept.
            created_at: kept::rounded(SystemTime::now()),
            instances: Instances::default(),
        };
        let id = format!("alert-{:016x}", fastrand::u64(..));
        let _disk = self.0.disk.lock().await;
        self.0.registry.keep_alert(&id, Kept::write(&alert)).await?;
        let shown = self.show(&id, &alert);
        self.alerts().insert(id, alert);
        Ok(shown)
    }

    /// The oldest first; with an id, those that are about that service.
    pub(crate) fn list(&self, service_id: &str) -> Vec<wire::Alert> {
        let alerts = self.alerts().clone();
        let mut about: Vec<_> = alerts
            .iter()
            .filter(|(_, alert)| match &alert.about {
                About::Every => true,
                About::One(id) => service_id.is_empty() || id == service_id,
            })
            .collect();
        about.sort_by_key(|(_, alert)| alert.created_at);
        about.into_iter().map(|(id, alert)| self.show(id, alert)).collect()
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<(), Status> {
        let _disk = self.0.disk.lock().await;
        let was_there = self.alerts().remove(id).is_some();
        match self.0.registry.forget_alert(id).await? || was_there {
            true => Ok(()),
            false => Err(Status::not_found(format!("alert not found: {id}"))),
        }
    }

    fn alerts(&self) -> MutexGuard<'_, BTreeMap<String, Alert>> {
        self.0.alerts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, id: &str, alert: &Alert) -> wire::Alert {
        let mut instances: Vec<_> = alert.instances.shown().map(|shown| instance(&shown)).collect();
        if let (About::One(service_id), true) = (&alert.about, instances.is_empty()) {
            let state = match self.0.registry.get(service_id) {
                Ok(_) => wire::AlertState::Ok,
                Err(_) => wire::AlertState::Unknown,
            };
            instances.push(wire::AlertInstance {
                service_id: service_id.clone(),
                state: state.into(),
                ..wire::AlertInstance::default()
            });
        }
        wire::Alert {
            alert_id: id.to_owned(),
            service_id: match &alert.about {
                About::Every => String::new(),
                About::One(service_id) => service_id.clone(),
            },
            condition: alert.condition_text.clone(),
            webhook_url: alert.webhook.to_string(),
            signed: alert.secret.is_some() || self.0.fallback.is_some(),
            created_at: Some(Timestamp::from(alert.created_at)),
            instances,
        }
    }
}

fn instance(shown: &instances::Shown<'_>) -> wire::AlertInstance {
    let state = match shown.is_firing {
        true => wire::AlertState::Firing,
        false => wire::AlertState::Ok,
    };
    wire::AlertInstance {
        service_id: shown.service_id.to_owned(),
        state: state.into(),
        since: Some(Timestamp::from(shown.since)),
        delivered_at: shown.delivered_at.map(Timestamp::from),
        delivery_error: shown.failure.unwrap_or_default().to_owned(),
    }
}
