//! Start-up and end of the operator: clients, definitions, watches, leadership, workers; and back in the other order.
//! Replicas that do not lead keep warm caches and make no passes. Who comes to lead lists everything once more before the
//! first pass: its watches may be a minute behind what the former leader knew.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_plan::Settings;
use flowctl_runtime::{AdminServer, BindError, Metrics as Registry, Readiness, Shutdown};
use futures::{
    FutureExt as _,
    future::{BoxFuture, pending},
};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment, ReplicaSet},
    batch::v1::Job,
    core::v1::{ConfigMap, Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use tokio::{
    sync::{Notify, watch},
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    backoff::Backoff,
    budget::Budget,
    caches::{Cached, Caches},
    census,
    client::Clients,
    crds::Crds,
    events::events,
    fence::Fence,
    fights::Fights,
    health::Health,
    heartbeats::{Announcer, HeartbeatOptions, Hub},
    leader::{Election, Leader, Lost},
    line::Line,
    metrics::Metrics,
    places::Places,
    publish::Statuses,
    queue::Queue,
    reconcile::Context,
    refusals::Refusals,
    unmoved::Unmoved,
    watch::Watch,
    work::Work,
    write::Writer,
};

/// How long passes may take to end after a request to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long waiting events may take after the last pass.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// How the operator runs; what it wants of children stands in [`Settings`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespaces that it works for; empty: all of them.
    pub namespaces: Vec<String>,
    /// Passes at the same time, at least one.
    pub concurrency: usize,
    /// Writes in a second, children and statuses together; `None`: as many as the apiserver takes.
    pub writes_per_second: Option<NonZeroU32>,
    /// The lease; `None`: this is the only replica.
    pub election: Option<Election>,
    /// Where `/livez`, `/readyz` and `/metrics` are served, if at all.
    pub admin: Option<SocketAddr>,
    /// Middle of the time after which an object is looked at although nothing changed; jittered by half.
    pub resync: Duration,
    /// Name of this instance in events; `None`: the operator's.
    pub instance: Option<String>,
    /// How heartbeats are read.
    pub heartbeats: HeartbeatOptions,
}

/// Why the operator ended otherwise than asked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The connection to the apiserver cannot be set up from this configuration.
    #[error("cannot set up a client for the apiserver: {0}")]
    Client(#[source] Box<kube::Error>),
    /// The address for probes and metrics cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Another replica leads.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// This replica led, and could not read what it should work on.
    #[error(
        "nothing could be read from the apiserver for minutes: gave the lease back, so that another replica can lead"
    )]
    Blind,
    /// A part of the operator that never ends has ended.
    #[error("a part of the operator ended by itself: {0}")]
    Ended(#[source] JoinError),
    /// A part of the operator that never ends has ended as if it were done.
    #[error("a part of the operator ended by itself, as if it were done")]
    EndedEarly,
}

/// Runs the operator until `shutdown` is requested. In a process of its own the caller must exit at once, and not with
/// 0, when this returns an error: leadership may be somebody else's by then.
///
/// # Errors
///
/// [`RunError`]. Nothing is left running.
pub async fn run(kube: kube::Config, options: Options, settings: Settings, shutdown: Shutdown) -> Result<(), RunError> {
    let registry = Registry::new("operator", env!("CARGO_PKG_VERSION"));
    let metrics = Metrics::register(&registry);
    let readiness = Readiness::new();
    let crds_check = readiness.check("crds", "not asked yet");
    let caches_check = readiness.check("caches", "waiting for the CustomResourceDefinitions");
    let _admin = match options.admin {
        Some(address) => Some(AdminServer::bind(address, &readiness, &registry).await?.spawn()),
        None => None,
    };
    let clients = Clients::new(kube, options.instance.as_deref()).map_err(|error| RunError::Client(Box::new(error)))?;
    let queue = Queue::idle();
    let caches = Arc::new(Caches::new(queue.clone()));
    census::register(&registry, Arc::clone(&caches));
    let heartbeats = Hub::new(&options.heartbeats, &settings, queue.clone());
    heartbeats.register(&registry);

    // Tasks that end with this function.
    let mut tasks = JoinSet::new();
    let (served, mut is_served) = watch::channel(false);
    tasks.spawn(
        Crds {
            client: clients.lease.clone(),
            definitions: clients.watches.clone(),
            check: crds_check,
            metrics: metrics.clone(),
            served,
        }
        .run(),
    );

    let (fit, is_fit) = watch::channel(false);
    let (fence, mut leadership, mut leads, stop_leading) = lead(&clients, &options, &metrics, is_fit);
    let (events, publisher) = events(
        clients.writes.clone(),
        options.instance.clone(),
        fence.clone(),
        clients.pushback.clone(),
        &metrics,
    );
    let (writes, pushback) = (clients.writes.clone(), clients.pushback.clone());
    let budget = Arc::new(Budget::of_writes(options.writes_per_second));
    let writer = Writer::new(writes, pushback, fence, metrics.clone(), Arc::clone(&budget));
    let line = Arc::new(Line::new(options.writes_per_second, budget, metrics.clone()));
    tasks.spawn(Arc::clone(&line).run(queue.clone()));
    let announcer = Announcer {
        hub: heartbeats.clone(),
        events: events.clone(),
        client: clients.lease.clone(),
        own: options.heartbeats.own.clone(),
    };
    let statuses = Statuses::new(writer.clone(), events, line);
    let mut last_events = AbortOnDropHandle::new(tokio::spawn(publisher.run()));
    let changed = Arc::new(Notify::new());
    let (places, watches) = watches(&clients, &options.namespaces, &caches, &metrics, &changed);
    let context = Context {
        caches: Arc::clone(&caches),
        places: Arc::clone(&places),
        writer,
        statuses,
        fights: Fights::default(),
        unmoved: Unmoved::default(),
        refusals: Refusals::default(),
        heartbeats: heartbeats.clone(),
        settings: Arc::new(settings),
    };
    let work = Arc::new(Work {
        queue: queue.clone(),
        context,
        backoff: Backoff::new(),
        metrics: metrics.clone(),
        resync: options.resync,
    });

    let mut leads_blindly = leads.clone();
    let blind = async {
        // An error means that everything is ending.
        let _ = leads_blindly.wait_for(|leads| *leads).await;
        places.blind().await;
    };
    let mut workers = JoinSet::new();
    let start = async {
        // The senders live in the tasks: an error means that everything is ending.
        let _ = unless_ended(&mut tasks, is_served.wait_for(|served| *served)).await?;
        for watch in watches {
            tasks.spawn(watch);
        }
        let health = Health {
            places: Arc::clone(&places),
            changed,
            check: caches_check,
            metrics: metrics.clone(),
            caches: Arc::clone(&caches),
            fit,
        };
        tasks.spawn(health.run());
        let _ = unless_ended(&mut tasks, leads.wait_for(|leads| *leads)).await?;
        if options.election.is_some() {
            places.list_again();
        }
        let () = unless_ended(&mut tasks, places.synced()).await?;
        let () = unless_ended(&mut tasks, heartbeats.begin()).await?;
        queue.begin();
        caches.wake_all(None);
        tasks.spawn(announcer.run());
        tracing::info!(workers = options.concurrency, "passes begin");
        for _ in 0..options.concurrency.max(1) {
            workers.spawn(Arc::clone(&work).run());
        }
        unless_ended(&mut tasks, pending::<()>()).await
    };
    let end = tokio::select! {
        () = shutdown.requested() => Ok(()),
        ended = start => ended,
        () = blind, if options.election.is_some() => Err(RunError::Blind),
        lost = &mut leadership => lost.map_err(RunError::Ended).and_then(|lost| lost.map_err(RunError::Lost)),
    };

    queue.close();
    // When it was not asked to end nothing may be written any more: passes end where they are, and the next leader's find
    // the same end.
    if end.is_ok()
        && timeout(DRAIN, async { while workers.join_next().await.is_some() {} })
            .await
            .is_err()
    {
        tracing::warn!("passes did not end within {} s", DRAIN.as_secs());
    }
    workers.shutdown().await;
    tasks.shutdown().await;
    drop(work);
    match &end {
        Ok(()) => {
            // What is left after that is dropped.
            let _ = timeout(LAST_EVENTS, &mut last_events).await;
        }
        Err(RunError::Blind) => {}
        Err(_) => return end,
    }
    stop_leading.cancel();
    if !leadership.is_finished() {
        // Bounded by the limit of the request that gives the lease back.
        let _ = leadership.await;
    }
    end
}

/// Waits for something, unless one of the tasks ends first: none of them ever does by itself, and without it what is waited for
/// may never come.
async fn unless_ended<T>(tasks: &mut JoinSet<()>, awaited: impl Future<Output = T>) -> Result<T, RunError> {
    tokio::select! {
        Some(ended) = tasks.join_next() => {
            ended.map_err(RunError::Ended)?;
            Err(RunError::EndedEarly)
        }
        done = awaited => Ok(done),
    }
}

type Leadership = (
    Fence,
    AbortOnDropHandle<Result<(), Lost>>,
    watch::Receiver<bool>,
    CancellationToken,
);

/// Begins to run for the lease, or leads at once where there is none.
fn lead(clients: &Clients, options: &Options, metrics: &Metrics, fit: watch::Receiver<bool>) -> Leadership {
    let stop = CancellationToken::new();
    let (leading, leads) = watch::channel(false);
    match &options.election {
        Some(election) => {
            let fence = Fence::closed();
            let (client, election) = (clients.lease.clone(), election.clone());
            let leader = Leader::new(client, election, fence.clone(), metrics.clone(), fit, leading);
            (
                fence,
                AbortOnDropHandle::new(tokio::spawn(leader.run(stop.clone()))),
                leads,
                stop,
            )
        }
        None => {
            leading.send_replace(true);
            metrics.leader.set(1);
            let stopped = stop.clone();
            let wait = async move {
                stopped.cancelled().await;
                drop(leading);
                Ok(())
            };
            (Fence::always(), AbortOnDropHandle::new(tokio::spawn(wait)), leads, stop)
        }
    }
}

/// Prepares every watch: of all namespaces at once, or one for each namespace.
fn watches(
    clients: &Clients,
    namespaces: &[String],
    caches: &Arc<Caches>,
    metrics: &Metrics,
    changed: &Arc<Notify>,
) -> (Arc<Places>, Vec<BoxFuture<'static, ()>>) {
    let mut prepared = Prepared {
        clients,
        caches,
        metrics,
        changed,
        places: Places::default(),
        runs: Vec::new(),
    };
    let places: Vec<Option<&str>> = match namespaces {
        [] => vec![None],
        some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
    };
    for place in places {
        prepared.add::<ExternalProcessor>(place);
        prepared.add::<Pipeline>(place);
        prepared.add::<ConfigMap>(place);
        prepared.add::<ControllerRevision>(place);
        prepared.add::<Service>(place);
        prepared.add::<PodDisruptionBudget>(place);
        prepared.add::<Deployment>(place);
        prepared.add::<Job>(place);
        prepared.add::<ReplicaSet>(place);
        prepared.add::<Pod>(place);
    }
    (Arc::new(prepared.places), prepared.runs)
}

struct Prepared<'a> {
    clients: &'a Clients,
    caches: &'a Arc<Caches>,
    metrics: &'a Metrics,
    changed: &'a Arc<Notify>,
    places: Places,
    runs: Vec<BoxFuture<'static, ()>>,
}

impl Prepared<'_> {
    fn add<K: Cached>(&mut self, place: Option<&str>) {
        let client = self.clients.watches.clone();
        let pushback = self.clients.watch_pushback.clone();
        let (caches, changed) = (Arc::clone(self.caches), Arc::clone(self.changed));
        let watch = Watch::<K>::new(client, pushback, place, caches, self.metrics.clone(), changed);
        self.places.add(watch.life());
        self.runs.push(watch.run().boxed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A watch that panics while the first lists are read would leave an operator that lives, is never ready, and is never
    // started again.
    #[tokio::test]
    async fn a_part_that_ends_before_all_is_known_ends_the_operator() {
        let mut tasks = JoinSet::new();
        tasks.spawn(pending::<()>());
        assert!(matches!(unless_ended(&mut tasks, async { 7 }).await, Ok(7)));
        tasks.spawn(async { panic!("a watch that panics") });
        let ended = unless_ended(&mut tasks, pending::<()>()).await;
        assert!(
            matches!(&ended, Err(RunError::Ended(error)) if error.is_panic()),
            "{ended:?}"
        );
        tasks.spawn(async {});
        let ended = unless_ended(&mut tasks, pending::<()>()).await;
        assert!(matches!(ended, Err(RunError::EndedEarly)), "{ended:?}");
    }
}
