//! The life of a registration: register, beat, register again when the server has forgotten, unregister at a clean end.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use flowctl_bridge::Backoff;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::link::{Link, Trouble};
use super::{Health, Registration, Report, SessionMetrics, Settings, Snapshot};

/// The longest that a host waits for its unregistration at its end.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often the host's health is looked at between two heartbeats, and so the least time between two.
const NEWS: Duration = Duration::from_secs(1);
/// How a host is whose own report fails.
const BROKEN: Health = Health::Degraded;
/// After a restart of the server everybody comes back at once: registrations spread over this part of an interval.
const SPREAD: f64 = 0.25;

/// A registration that is kept alive in a task of its own. Dropping it ends the task without a word to the server, where the
/// service then expires: the right thing for a host that failed.
#[derive(Debug)]
#[must_use = "dropping the session ends it"]
pub struct Session {
    goodbye: Option<oneshot::Sender<()>>,
    ended: CancellationToken,
    task: JoinHandle<()>,
    state: watch::Receiver<State>,
}

/// How things stand with the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not registered, and trying; with the reason of the last failure.
    Connecting(Option<String>),
    /// Registered under this id; the last heartbeat was taken.
    Registered(String),
}

/// What the task works with.
struct Keeper<R> {
    settings: Settings,
    registration: Registration,
    report: R,
    metrics: SessionMetrics,
    state: watch::Sender<State>,
    id: Option<String>,
    failures: u32,
    link: Option<Link>,
}

// === impl Session ===

impl Session {
    /// Starts to register in the background and returns at once. Call inside a tokio runtime.
    pub fn spawn(settings: Settings, registration: Registration, report: impl Report) -> Self {
        Self::spawn_measured(settings, registration, report, SessionMetrics::default())
    }

    /// As [`spawn`](Self::spawn), and counts what happens.
    pub fn spawn_measured(
        settings: Settings,
        registration: Registration,
        report: impl Report,
        metrics: SessionMetrics,
    ) -> Self {
        let (state, reader) = watch::channel(State::Connecting(None));
        let (goodbye, asked) = oneshot::channel();
        let ended = CancellationToken::new();
        let keeper = Keeper {
            id: settings.id.clone().or_else(|| registration.id.clone()),
            settings,
            registration,
            report,
            metrics,
            state,
            failures: 0,
            link: None,
        };
        let done = ended.clone().drop_guard();
        let task = tokio::spawn(async move {
            let _done = done;
            keeper.run(asked).await;
        });
        Self {
            goodbye: Some(goodbye),
            ended,
            task,
            state: reader,
        }
    }

    /// How things stand, and every change from now on.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// A clean end: unregisters if the server can be reached, and waits at most one second for it.
    pub async fn end(mut self) {
        if let Some(goodbye) = self.goodbye.take() {
            let _ = goodbye.send(());
        }
        let _ = timeout(FAREWELL, self.ended.cancelled()).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Keeper ===

impl<R: Report> Keeper<R> {
    async fn run(mut self, mut asked: oneshot::Receiver<()>) {
        tokio::select! {
            biased;
            said = &mut asked => if said.is_err() { return },
            () = self.keep() => {}
        }
        self.leave().await;
    }

    /// Registers and beats for ever.
    async fn keep(&mut self) {
        loop {
            match self.register().await {
                Ok(()) => self.beat_until_unknown().await,
                Err(trouble) => self.suffer(trouble).await,
            }
        }
    }

    async fn register(&mut self) -> Result<(), Trouble> {
        let link = match &mut self.link {
            Some(link) => link,
            none => none.insert(Link::prepare(&self.settings).await?),
        };
        let id = link
            .register(&self.settings, &self.registration, self.id.as_deref())
            .await?;
        self.metrics.registrations.inc();
        tracing::info!(service_id = id, endpoint = %self.settings.endpoint, "registered with the control plane");
        // From now on the same, also when the server made it.
        self.id = Some(id);
        Ok(())
    }

    /// Beats at once, since a registration alone does not count as a sign of life, and then at every interval.
    async fn beat_until_unknown(&mut self) {
        loop {
            // A little early rather than late, and not everybody at the same time.
            let next = Instant::now() + self.settings.interval.mul_f64(1.0 - fastrand::f64() * 0.1);
            match self.beat().await {
                Ok(health) => {
                    self.recover();
                    self.wait_while(health, next).await;
                }
                Err(Trouble::Unknown) => {
                    self.say(State::Connecting(Some(
                        "the control plane does not know this service".to_owned(),
                    )));
                    sleep(self.settings.interval.mul_f64(SPREAD * fastrand::f64())).await;
                    return;
                }
                Err(trouble) => {
                    let again = self.link.as_ref().is_some_and(Link::forgets_gaps);
                    self.suffer(trouble).await;
                    if again {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for the next beat, or until there is news: nobody should learn of trouble a whole interval late.
    async fn wait_while(&self, told: Health, next: Instant) {
        loop {
            let look = Instant::now() + NEWS;
            sleep_until(look.min(next)).await;
            let now = || self.report.health();
            if look >= next || catch_unwind(AssertUnwindSafe(now)).unwrap_or(BROKEN) != told {
                return;
            }
        }
    }

    /// Sends what the report says now, and gives back the health that it told.
    async fn beat(&mut self) -> Result<Health, Trouble> {
        let Some(id) = self.id.clone() else {
            return Err(Trouble::Unknown);
        };
        let snapshot = self.snapshot();
        let link = match &mut self.link {
            Some(link) => link,
            none => none.insert(Link::prepare(&self.settings).await?),
        };
        let beaten = link.beat(&self.settings, &id, &snapshot).await;
        beaten.map(|()| snapshot.health)
    }

    /// What the report says. One that panics (which the panic hook has told) must not end the reporting: the host is at work.
    fn snapshot(&self) -> Snapshot {
        let snapshot = catch_unwind(AssertUnwindSafe(|| self.report.snapshot()));
        snapshot.unwrap_or_else(|_| Snapshot {
            health: BROKEN,
            numbers: BTreeMap::new(),
            texts: BTreeMap::new(),
        })
    }

    fn recover(&mut self) {
        self.failures = 0;
        self.metrics.heartbeats.inc();
        if let Some(id) = self.id.clone() {
            self.say(State::Registered(id));
        }
    }

    /// Tells once why it does not work, and waits before the next attempt: longer each time, up to an interval.
    async fn suffer(&mut self, trouble: Trouble) {
        self.failures = self.failures.saturating_add(1);
        self.metrics.errors.inc();
        let why = match trouble {
            Trouble::Unknown => "the control plane does not know this service".to_owned(),
            Trouble::NotSpoken => "the control plane speaks none of the dialects".to_owned(),
            Trouble::Refused(why) | Trouble::Unauthenticated(why) => why,
            Trouble::Unreachable(why) => {
                // Certificates may have been replaced, or the name may mean another address.
                self.link = None;
                why
            }
        };
        let endpoint = &self.settings.endpoint;
        if self.failures == 1 {
            tracing::warn!(%endpoint, why, "cannot report to the control plane; trying on in the background");
        } else {
            tracing::debug!(%endpoint, why, failures = self.failures, "cannot report to the control plane");
        }
        self.say(State::Connecting(Some(why)));
        let backoff = Backoff {
            max: self.settings.interval,
            ..Backoff::default()
        };
        // Never at once: half of the wait is certain.
        let ceiling = backoff.ceiling(self.failures);
        sleep(ceiling.mul_f64(0.5 + fastrand::f64() * 0.5)).await;
    }

    fn say(&self, state: State) {
        self.metrics
            .registered
            .set(i64::from(matches!(state, State::Registered(_))));
        self.state.send_if_modified(|before| {
            let changed = *before != state;
            *before = state;
            changed
        });
    }

    /// Unregisters, if there is anything to unregister and a connection that worked.
    async fn leave(&mut self) {
        let registered = matches!(*self.state.borrow(), State::Registered(_));
        self.metrics.registered.set(0);
        if let (true, Some(id), Some(mut link)) = (registered, &self.id, self.link.take()) {
            match link.unregister(&self.settings, id).await {
                Ok(()) => tracing::info!(service_id = id, "unregistered from the control plane"),
                Err(trouble) => tracing::debug!(service_id = id, ?trouble, "not unregistered; it will expire"),
            }
        }
    }
}
