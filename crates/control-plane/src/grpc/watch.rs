//! A stream of what changes. It is pulled by its reader: what changes faster than it is read folds into one, so that a slow
//! reader costs the ids of what changed and no more.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use flowctl_proto::flowctl::ServiceType;
use flowctl_proto::flowctl::registry::v1::watch_response::Event;
use flowctl_proto::flowctl::registry::v1::{
    Beats, RemovalReason, ServiceRemoved, WatchPing, WatchRequest, WatchResponse, WatchStarted, WatchSynced,
};
use futures::Stream;
use prost::Message as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval_at};
use tonic::Status;

use super::{Lists, Shared, show};
use crate::registry::{self, Change, Filter, Moment, Registry, Subject, Subscription};

/// Between two keep-alives, if the reader names nothing.
const PING_EVERY: Duration = Duration::from_secs(10);
/// No reader gets anything periodic more often.
const OFTENEST: Duration = Duration::from_secs(1);
/// Nor less often: a day, which also keeps additions to now from overflowing.
const RAREST: Duration = Duration::from_secs(24 * 3600);
/// Beats in one message, and their bytes, about: clients read no messages of more than 4 MiB unless they are told to.
const BEATS: usize = 1_000;
const BEATS_BYTES: usize = 1024 * 1024;
/// Names of metrics that a reader may ask for.
const METRICS: usize = 32;

struct Watch {
    registry: Arc<Registry>,
    lists: Lists,
    wanted: Wanted,
    changes: Subscription,
    revision: u64,
    /// What was there at the beginning and is not sent yet.
    snapshot: VecDeque<Subject>,
    is_synced: bool,
    is_over: bool,
    /// What changed and is not sent yet. Read when its turn comes, so that it holds names and not services.
    pending: VecDeque<Change>,
    ready: Option<WatchResponse>,
    /// Ids that the reader has, if it wants one type only: it must hear when one of them becomes another type.
    sent: HashSet<String>,
    pings: Interval,
    /// When to look for beats, and from which moment on.
    beats: Option<(Interval, Moment)>,
    /// Who has beaten and is not told yet.
    beaten: VecDeque<Arc<str>>,
    _place: OwnedSemaphorePermit,
}

struct Wanted {
    kind: ServiceType,
    id_prefix: String,
    runs: bool,
    /// Names of metrics, and beginnings of names with a `*`.
    metrics: Vec<String>,
}

/// Opens a watch.
pub(super) async fn open(
    shared: &Shared,
    request: WatchRequest,
) -> Result<impl Stream<Item = Result<WatchResponse, Status>> + Send + 'static, Status> {
    let pings = every("ping_every", request.ping_every.as_ref())?.unwrap_or(PING_EVERY);
    let beats = every("beats_every", request.beats_every.as_ref())?;
    let longest = shared.registry.limits().metric_key_bytes;
    if request.beat_metrics.len() > METRICS || request.beat_metrics.iter().any(|name| name.len() > longest) {
        return Err(Status::invalid_argument(format!(
            "beat_metrics too large: at most {METRICS} names of {longest} bytes are allowed"
        )));
    }
    let Ok(place) = Arc::clone(&shared.watches).try_acquire_owned() else {
        return Err(Status::resource_exhausted(
            "too many watches are open; poll ListServices, or try again later",
        ));
    };
    let registry = Arc::clone(&shared.registry);
    // Before anything is read: a change in between is then sent twice, and never lost.
    let changes = registry.subscribe();
    let wanted = Wanted {
        kind: request.r#type(),
        id_prefix: request.id_prefix,
        runs: request.runs,
        metrics: request.beat_metrics,
    };
    let (id_prefix, runs, source) = (wanted.id_prefix.clone(), wanted.runs, Arc::clone(&registry));
    let snapshot = shared.lists.read(move || {
        let filter = Filter {
            id_prefix: &id_prefix,
            after: None,
        };
        let services = source.ids(filter).into_iter().map(|id| Subject::Service(id.into()));
        let runs = if runs { source.active_runs() } else { Vec::new() };
        services
            .chain(runs.into_iter().map(|id| Subject::Run(id.into())))
            .collect()
    });
    let begun = registry.moment();
    let snapshot: VecDeque<_> = snapshot.await?;
    let started = WatchStarted {
        instance_id: registry.instance_id().to_owned(),
        ttl: Some(show::duration(registry.ttl())),
        persistent: registry.is_persistent(),
        identity_mode: show::identity_mode(shared.guard.mode()).into(),
        token_audience: shared.guard.audience().to_owned(),
    };
    let watch = Watch {
        revision: changes.since(),
        pending: VecDeque::new(),
        ready: Some(message(changes.since(), Event::Started(started))),
        registry,
        lists: shared.lists.clone(),
        wanted,
        changes,
        snapshot,
        is_synced: false,
        is_over: false,
        sent: HashSet::new(),
        pings: ticks(pings),
        beats: beats.map(|every| (ticks(every), begun)),
        beaten: VecDeque::new(),
        _place: place,
    };
    Ok(futures::stream::unfold(watch, async |mut watch| {
        let next = watch.next().await?;
        Some((next, watch))
    }))
}

fn every(what: &str, given: Option<&prost_types::Duration>) -> Result<Option<Duration>, Status> {
    let Some(given) = given else { return Ok(None) };
    let every = Duration::try_from(*given).ok().filter(|every| *every >= OFTENEST);
    let every =
        every.ok_or_else(|| Status::invalid_argument(format!("{what} is not valid: it must be at least 1 s")))?;
    Ok(Some(every.min(RAREST)))
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval_at(tokio::time::Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn message(revision: u64, event: Event) -> WatchResponse {
    WatchResponse {
        revision,
        event: Some(event),
    }
}

// === impl Watch ===

impl Watch {
    /// What is sent next; `None` after an error.
    async fn next(&mut self) -> Option<Result<WatchResponse, Status>> {
        if self.is_over {
            return None;
        }
        loop {
            if let Some(ready) = self.ready.take() {
                // A ping is for silence only.
                self.pings.reset();
                return Some(Ok(ready));
            }
            if let Some(subject) = self.snapshot.pop_front() {
                self.ready = self.read(&subject).map(|event| message(self.revision, event));
            } else if !self.is_synced {
                self.is_synced = true;
                self.ready = Some(message(self.revision, Event::Synced(WatchSynced {})));
            } else if let Some(change) = self.pending.pop_front() {
                self.revision = change.revision;
                self.ready = self.event(&change).map(|event| message(change.revision, event));
            } else if !self.beaten.is_empty() {
                self.ready = self.read_beats();
            } else {
                tokio::select! {
                    changes = self.changes.changed() => match changes {
                        Ok(changes) => self.pending.extend(changes),
                        Err(lost) => {
                            self.is_over = true;
                            return Some(Err(Status::aborted(lost.to_string())));
                        }
                    },
                    () = due(&mut self.beats) => self.call_roll().await,
                    _ = self.pings.tick() => self.ready = Some(message(self.revision, Event::Ping(WatchPing {}))),
                }
            }
        }
    }

    /// What a change means to this reader, if anything.
    fn event(&mut self, change: &Change) -> Option<Event> {
        let is_wanted = match &change.subject {
            Subject::Service(id) => id.starts_with(&self.wanted.id_prefix),
            Subject::Run(_) => self.wanted.runs,
        };
        if !is_wanted {
            return None;
        }
        if let Some(event) = self.read(&change.subject) {
            return Some(event);
        }
        match &change.subject {
            Subject::Run(_) => None,
            Subject::Service(id) => {
                // A reader of one type has it only if it was sent to it.
                if self.wanted.kind != ServiceType::Unspecified && !self.sent.remove(id.as_ref()) {
                    return None;
                }
                let reason = match change.removal {
                    Some(registry::RemovalReason::Retention) => RemovalReason::Retention,
                    Some(registry::RemovalReason::Unregistered) | None => RemovalReason::Unregistered,
                };
                Some(Event::Removed(ServiceRemoved {
                    service_id: id.to_string(),
                    reason: reason.into(),
                }))
            }
        }
    }

    /// The subject as it is now; `None` if it is gone, or not of the wanted type.
    fn read(&mut self, subject: &Subject) -> Option<Event> {
        match subject {
            Subject::Service(id) => {
                let service = self.registry.get(id).ok()?;
                if self.wanted.kind != ServiceType::Unspecified {
                    if service.registration.service_type != self.wanted.kind {
                        return None;
                    }
                    self.sent.insert(id.to_string());
                }
                let ttl = show::duration(self.registry.ttl());
                Some(Event::Service(show::service(&service, ttl)))
            }
            Subject::Run(id) => self.registry.run(id).ok().map(Event::Run),
        }
    }

    /// Who has beaten since the last time.
    async fn call_roll(&mut self) {
        let registry = Arc::clone(&self.registry);
        // Only at the end of the server; the stream ends with it.
        let Ok(roll) = self.lists.read(move || registry.roll_call()).await else {
            return;
        };
        let Some((_, since)) = &mut self.beats else { return };
        let since = std::mem::replace(since, roll.at());
        let is_wanted = |id: &&Arc<str>| {
            id.starts_with(&self.wanted.id_prefix)
                && (self.wanted.kind == ServiceType::Unspecified || self.sent.contains(id.as_ref()))
        };
        self.beaten = roll.since(since).filter(is_wanted).cloned().collect();
    }

    /// The next message of those who have beaten, as they are now.
    fn read_beats(&mut self) -> Option<WatchResponse> {
        let (mut beats, mut bytes) = (Vec::new(), 0);
        while beats.len() < BEATS && bytes < BEATS_BYTES {
            let Some(id) = self.beaten.pop_front() else { break };
            // Gone since, or registered anew: that is told as a change.
            let Some(sign) = self.registry.sign(&id, |name| self.wanted.has_metric(name)) else {
                continue;
            };
            let beat = show::beat(id.to_string(), sign);
            bytes += beat.encoded_len();
            beats.push(beat);
        }
        (!beats.is_empty()).then(|| message(self.revision, Event::Beats(Beats { beats })))
    }
}

// === impl Wanted ===

impl Wanted {
    fn has_metric(&self, name: &str) -> bool {
        self.metrics.iter().any(|wanted| match wanted.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == wanted,
        })
    }
}

async fn due(beats: &mut Option<(Interval, Moment)>) {
    match beats {
        Some((ticks, _)) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}
