//! Evaluates alerts and tells what changed. One task: nothing here is decided in two places at once. Only what is kept of it goes
//! to the disk beside it, so that a disk that hangs silences no alert.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use flowctl_proto::flowctl::v1::HealthStatus;
use flowctl_runtime::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prost_types::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use super::condition::State;
use super::delivery::{Attempt, Attempted, Delivery, Retry};
use super::instances::Verdict;
use super::kept::Kept;
use super::webhook::Caller;
use super::{About, Alert, Alerts};
use crate::clock::{Clock as _, Now, SystemClock};
use crate::names::{liveness_name, status_name, type_name};
use crate::registry::{Filter, Liveness, Lost, Moment, Service, Subject};

/// How often conditions are evaluated.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Calls under way, of all alerts and of one: a receiver that is down must not keep the others waiting.
const UNDER_WAY: usize = 64;
const UNDER_WAY_OF_ONE: usize = 8;

/// Services that are evaluated before others get a turn.
const IN_ONE_GO: usize = 500;

/// The task.
pub(crate) struct Watcher {
    alerts: Alerts,
    caller: Caller,
    retry: Retry,
    metrics: AlertMetrics,
    calls: JoinSet<()>,
    under_way: HashMap<String, usize>,
    /// Services that changed since the last look.
    touched: BTreeSet<String>,
    /// Alerts about every service that have looked at every service.
    begun: BTreeSet<String>,
    /// Beats before it were looked at.
    looked: Moment,
}

#[derive(Clone, Debug, Default)]
struct AlertMetrics {
    alerts: Gauge,
    firing: Gauge,
    calls: Family<Outcome, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// What a receiver gets.
#[derive(Debug, Serialize)]
struct Body<'a> {
    delivery_id: &'a str,
    state: Verdict,
    since: String,
    alert: AlertBody<'a>,
    service: ServiceBody<'a>,
}

#[derive(Debug, Serialize)]
struct AlertBody<'a> {
    alert_id: &'a str,
    condition: &'a str,
}

#[derive(Debug, Serialize)]
struct ServiceBody<'a> {
    service_id: &'a str,
    /// What the condition calls `status`; `removed` when the service is gone.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    liveness: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reported_status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_heartbeat: Option<String>,
    /// Of the metric that the condition names.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
}

// === impl AlertMetrics ===

impl AlertMetrics {
    fn register(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("flowctl_control_plane");
            registry.register("alerts", "Alerts that are evaluated", this.alerts.clone());
            registry.register(
                "alerts_firing",
                "Services of which an alert's condition holds",
                this.firing.clone(),
            );
            registry.register(
                "alert_calls",
                "Calls of webhooks, by what became of them",
                this.calls.clone(),
            );
        });
        this
    }
}

// === impl Watcher ===

impl Watcher {
    pub(crate) fn new(alerts: Alerts, caller: Caller, retry: Retry, metrics: &Metrics) -> Self {
        Self {
            alerts,
            caller,
            retry,
            metrics: AlertMetrics::register(metrics),
            calls: JoinSet::new(),
            under_way: HashMap::new(),
            touched: BTreeSet::new(),
            begun: BTreeSet::new(),
            looked: Moment::default(),
        }
    }

    /// Runs until it is dropped; calls under way end with it, and are made again after the next start.
    pub(crate) async fn run(mut self) {
        let (report, mut reports) = mpsc::channel(UNDER_WAY);
        let mut changes = self.alerts.0.registry.subscribe();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What is to be kept, by id: it is written as it is when its turn comes.
        let mut unkept = BTreeSet::new();
        let mut keeping: Option<AbortOnDropHandle<()>> = None;
        loop {
            if keeping.is_none() && !unkept.is_empty() {
                let keep = keep(self.alerts.clone(), std::mem::take(&mut unkept));
                keeping = Some(AbortOnDropHandle::new(tokio::spawn(keep)));
            }
            tokio::select! {
                _ = looks.tick() => {
                    unkept.extend(self.look().await);
                    self.tell(&report);
                }
                changes = changes.changed() => match changes {
                    Ok(changes) => self.touched.extend(changes.into_iter().filter_map(|change| match change.subject {
                        Subject::Service(id) => Some(id.to_string()),
                        Subject::Run(_) => None,
                    })),
                    Err(Lost) => self.begun.clear(),
                },
                Some(attempt) = reports.recv() => unkept.extend(self.hear(attempt)),
                Some(_) = self.calls.join_next() => {}
                () = ended(&mut keeping) => keeping = None,
            }
        }
    }

    /// Evaluates; gives the alerts of which something has changed that is kept.
    async fn look(&mut self) -> BTreeSet<String> {
        let now = SystemClock.now();
        let mut touched = std::mem::take(&mut self.touched);
        // What each alert looks at anyway: the one service that it is about, or those that it has something to say about.
        let mut own = Vec::new();
        {
            let alerts = self.alerts.alerts();
            self.begun.retain(|id| alerts.contains_key(id));
            let every = || alerts.iter().filter(|(_, alert)| alert.about == About::Every);
            if every().any(|(id, _)| !self.begun.contains(id)) {
                touched.extend(self.alerts.0.registry.ids(Filter::default()));
            } else if every().any(|(_, alert)| alert.condition.metric().is_some()) {
                let roll = self.alerts.0.registry.roll_call();
                touched.extend(roll.since(self.looked).map(|id| id.to_string()));
                self.looked = roll.at();
            }
            if every().next().is_none() {
                touched.clear();
            }
            self.begun.extend(every().map(|(id, _)| id.clone()));
            for (alert_id, alert) in alerts.iter() {
                let ids: Vec<_> = match &alert.about {
                    About::One(id) => vec![id.clone()],
                    About::Every => alert.instances.services().map(str::to_owned).collect(),
                };
                own.extend(ids.into_iter().map(|id| (id, Some(alert_id.clone()))));
            }
        }
        let of_every = touched.into_iter().map(|id| (id, None));
        let work: Vec<(String, Option<String>)> = own.into_iter().chain(of_every).collect();
        let mut changed = BTreeSet::new();
        for some in work.chunks(IN_ONE_GO) {
            self.see(some, now, &mut changed);
            // Beats go on in between.
            tokio::task::yield_now().await;
        }
        let alerts = self.alerts.alerts();
        let firing: usize = alerts.values().map(|alert| alert.instances.firing()).sum();
        self.metrics.firing.set(i64::try_from(firing).unwrap_or(i64::MAX));
        self.metrics.alerts.set(i64::try_from(alerts.len()).unwrap_or(i64::MAX));
        changed
    }

    /// Evaluates for some services: one alert, or all those about every service.
    fn see(&self, some: &[(String, Option<String>)], now: Now, changed: &mut BTreeSet<String>) {
        let mut alerts = self.alerts.alerts();
        for (id, only) in some {
            let service = self.alerts.0.registry.get(id).ok();
            let seeing = alerts.iter_mut().filter(|(alert_id, alert)| match only {
                Some(only) => *alert_id == only,
                None => alert.about == About::Every,
            });
            for (alert_id, alert) in seeing {
                if see(alert, id, service.as_ref(), now) {
                    changed.insert(alert_id.clone());
                }
            }
        }
    }

    /// Makes the calls that are due and find a place.
    fn tell(&mut self, report: &mpsc::Sender<Attempt>) {
        let fallback = self.alerts.0.fallback.clone();
        let mut alerts = self.alerts.alerts();
        for (alert_id, alert) in alerts.iter_mut() {
            let of_this = self.under_way.get(alert_id).copied().unwrap_or_default();
            let places = UNDER_WAY
                .saturating_sub(self.calls.len())
                .min(UNDER_WAY_OF_ONE.saturating_sub(of_this));
            for (service_id, verdict, since) in alert.instances.untold(places) {
                let service = self.alerts.0.registry.get(&service_id).ok();
                let delivery_id = delivery_id(alert_id, &service_id, verdict, since);
                let body = Body {
                    delivery_id: &delivery_id,
                    state: verdict,
                    since: Timestamp::from(since).to_string(),
                    alert: AlertBody {
                        alert_id,
                        condition: &alert.condition_text,
                    },
                    service: ServiceBody::of(&service_id, service.as_ref(), alert),
                };
                // Texts and finite numbers: nothing in it that JSON cannot hold.
                let body = Bytes::from(serde_json::to_vec(&body).unwrap_or_default());
                let delivery = Delivery {
                    alert_id: alert_id.clone(),
                    service_id,
                    verdict,
                    body,
                    delivery_id,
                    webhook: alert.webhook.clone(),
                    secret: alert.secret.clone().or_else(|| fallback.clone()),
                };
                *self.under_way.entry(alert_id.clone()).or_default() += 1;
                self.calls
                    .spawn(delivery.run(self.caller.clone(), self.retry, report.clone()));
            }
        }
    }

    fn hear(&mut self, attempt: Attempt) -> Option<String> {
        let outcome = match &attempt.result {
            Attempted::Delivered(_) => "delivered",
            Attempted::Failed(_) => "failed",
            Attempted::GivenUp(_) => "given_up",
        };
        self.metrics.calls.get_or_create(&Outcome { outcome }).inc();
        if !matches!(attempt.result, Attempted::Failed(_))
            && let Some(count) = self.under_way.get_mut(&attempt.alert_id)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.under_way.remove(&attempt.alert_id);
            }
        }
        let mut alerts = self.alerts.alerts();
        // Deleted since: nobody wants to know.
        let alert = alerts.get_mut(&attempt.alert_id)?;
        match attempt.result {
            Attempted::Delivered(at) => {
                alert.instances.delivered(&attempt.service_id, attempt.verdict, at);
                Some(attempt.alert_id)
            }
            Attempted::Failed(failure) => {
                alert.instances.failed(&attempt.service_id, failure.to_string());
                None
            }
            Attempted::GivenUp(failure) => {
                tracing::warn!(alert = attempt.alert_id, service = attempt.service_id, %failure, "a webhook takes no calls; given up");
                alert.instances.failed(&attempt.service_id, failure.to_string());
                alert.instances.given_up(&attempt.service_id, attempt.verdict);
                Some(attempt.alert_id)
            }
        }
    }
}

/// Writes alerts as they are now.
async fn keep(alerts: Alerts, changed: BTreeSet<String>) {
    for alert_id in changed {
        let _disk = alerts.0.disk.lock().await;
        let kept = alerts.alerts().get(&alert_id).map(Kept::write);
        let Some(kept) = kept else { continue };
        if let Err(error) = alerts.0.registry.keep_alert(&alert_id, kept).await {
            tracing::error!(alert = alert_id, %error, "cannot keep what an alert has told");
        }
    }
}

/// When a task has ended; never, if there is none.
async fn ended(task: &mut Option<AbortOnDropHandle<()>>) {
    match task {
        // Its only failure is a panic, which is in the log.
        Some(task) => drop(task.await),
        None => std::future::pending().await,
    }
}

/// Takes in what is known of a service; `true` when something has changed that is kept.
fn see(alert: &mut Alert, id: &str, service: Option<&Service>, now: Now) -> bool {
    let holds = match service {
        // After a restart of this server nothing is known until it beats or its time of grace is over.
        Some(service) if service.liveness == Liveness::Restored => return false,
        Some(service) => alert.condition.holds(state(service), |name| number(service, name)),
        None => false,
    };
    let hold = alert.condition.hold();
    alert.instances.see(id, holds, hold, now)
}

fn number(service: &Service, name: &str) -> Option<f64> {
    service.metrics.get(name)?.number()
}

fn state(service: &Service) -> State {
    match (service.liveness, service.reported) {
        (Liveness::Expired, _) => State::Expired,
        (_, HealthStatus::Unknown) => State::Unknown,
        (_, HealthStatus::Starting) => State::Starting,
        (_, HealthStatus::Healthy) => State::Healthy,
        (_, HealthStatus::Degraded) => State::Degraded,
        (_, HealthStatus::Unhealthy) => State::Unhealthy,
        (_, HealthStatus::Stopping) => State::Stopping,
    }
}

/// The same for the same news, also after a restart.
fn delivery_id(alert_id: &str, service_id: &str, verdict: Verdict, since: std::time::SystemTime) -> String {
    let news = format!("{alert_id}\n{service_id}\n{verdict:?}\n{}", Timestamp::from(since));
    let digest = Sha256::digest(news.as_bytes());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

// === impl ServiceBody ===

impl<'a> ServiceBody<'a> {
    fn of(service_id: &'a str, service: Option<&'a Service>, alert: &Alert) -> Self {
        let value = service
            .zip(alert.condition.metric())
            .and_then(|(service, name)| number(service, name));
        Self {
            service_id,
            status: service.map_or("removed", |service| state(service).name()),
            name: service
                .map(|service| service.registration.name.as_str())
                .filter(|name| !name.is_empty()),
            kind: service.map(|service| type_name(service.registration.service_type)),
            liveness: service.map(|service| liveness_name(service.liveness)),
            reported_status: service.map(|service| status_name(service.reported)),
            last_heartbeat: service
                .and_then(|service| service.last_heartbeat)
                .map(|at| Timestamp::from(at).to_string()),
            value: value.filter(|value| value.is_finite()),
        }
    }
}
