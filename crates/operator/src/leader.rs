//! Holding the lease: reads and PUTs with the resourceVersion that was read, so that the apiserver decides between two
//! replicas; it opens the fence that every other write passes. It has a client of its own and no write budget. Whoever
//! loses the lease must end the process: in here nothing is begun again.

use std::{future::pending, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::LEASE,
    fence::Fence,
    lease::{DURATION, Decision, Found, GIVE_UP, LOOK, RENEW, Record, Seen, decide},
    metrics::Metrics,
    rbac::Rule,
    write::{Error, limited},
};

/// What the lease needs.
pub(crate) const RULES: &[Rule] = &[
    Rule::new("coordination.k8s.io", &["leases"], &["create"]),
    Rule::new("coordination.k8s.io", &["leases"], &["get", "update"]).of_the_lease(),
];

/// Between two attempts after a failed request.
const RETRY: Duration = Duration::from_millis(500);

/// How often the lease is tried to be given back: an own renewal may come between once.
const RELEASES: usize = 3;

/// Which lease, and who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// The lease's namespace.
    pub namespace: String,
    /// The lease's name.
    pub name: String,
    /// This process: no other may ever have the same.
    pub identity: String,
}

/// Runs for the lease and holds it.
pub(crate) struct Leader {
    api: Api<Lease>,
    election: Election,
    fence: Fence,
    metrics: Metrics,
    /// Whether this replica could work. Who cannot looks on, and does not take the lease: another one may be able to.
    fit: watch::Receiver<bool>,
    /// Becomes true when this replica leads.
    leading: watch::Sender<bool>,
    lease: Known,
    /// What was last read of a lease, and since when it is so; kept although the lease is not there any more.
    seen: Option<Seen>,
    renewed: Option<Instant>,
    /// A write was begun whose answer was not heard: the lease may be ours.
    unanswered: bool,
}

/// What is known of the lease.
enum Known {
    /// It was not read yet, or could not be.
    Nothing,
    /// It does not exist.
    Missing,
    /// As it was last read or written.
    Lease(Box<Lease>),
}

/// Another replica leads, or may.
#[derive(Debug, thiserror::Error)]
#[error("the lease {namespace}/{name} was lost ({why}): ending at once, so that two replicas never write")]
pub struct Lost {
    namespace: String,
    name: String,
    why: String,
}

// === impl Leader ===

impl Leader {
    pub(crate) fn new(
        client: Client,
        election: Election,
        fence: Fence,
        metrics: Metrics,
        fit: watch::Receiver<bool>,
        leading: watch::Sender<bool>,
    ) -> Self {
        let api = Api::namespaced(client, &election.namespace);
        Self {
            api,
            election,
            fence,
            metrics,
            fit,
            leading,
            lease: Known::Nothing,
            seen: None,
            renewed: None,
            unanswered: false,
        }
    }

    /// Runs until `stop`, and then gives the lease back.
    ///
    /// # Errors
    ///
    /// [`Lost`], after this replica led.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Lost> {
        loop {
            let was_fit = *self.fit.borrow();
            let step = tokio::select! {
                step = self.step(was_fit) => step,
                () = stop.cancelled() => {
                    self.release().await;
                    return Ok(());
                }
            };
            let pause = match step {
                Ok(pause) => pause,
                Err(why) => {
                    self.fence.set(None);
                    self.metrics.leader.set(0);
                    let Election { namespace, name, .. } = self.election;
                    return Err(Lost { namespace, name, why });
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = becomes(&mut self.fit), if !was_fit => {}
                () = stop.cancelled() => {
                    self.release().await;
                    return Ok(());
                }
            }
        }
    }

    /// One look or one write; gives the time until the next. `Err`: lost, and why.
    async fn step(&mut self, is_fit: bool) -> Result<Duration, String> {
        // The leader knows the lease from its last write; the others must look.
        if self.renewed.is_none() || !matches!(self.lease, Known::Lease(_)) {
            self.look().await;
        }
        let (me, now) = (&self.election.identity, Instant::now());
        let decide = |found| decide(me, found, self.seen.as_ref(), self.renewed, now);
        let decision = match &self.lease {
            Known::Lease(_) => decide(Found::Lease),
            Known::Missing => decide(Found::Nothing),
            // Nothing may be written without having looked, but time goes on.
            Known::Nothing if decide(Found::Lease) == Decision::Lost => Decision::Lost,
            Known::Nothing => return Ok(RETRY),
        };
        match decision {
            Decision::Lost => Err(self.why_lost()),
            Decision::Wait(wait) => Ok(wait),
            _ if self.renewed.is_none() && !is_fit => Ok(LOOK),
            Decision::Create | Decision::TakeOver | Decision::Renew => Ok(self.write().await),
        }
    }

    fn why_lost(&self) -> String {
        match self.seen.as_ref().and_then(|seen| seen.record.holder.as_deref()) {
            Some(holder) if holder != self.election.identity => format!("{holder} holds it"),
            _ => format!("it could not be renewed for {} s", GIVE_UP.as_secs()),
        }
    }

    /// Reads the lease. After a failure the lease is unknown. What was seen of it stands, also when it is gone.
    async fn look(&mut self) {
        let answer = limited(LEASE, self.api.get_opt(&self.election.name)).await;
        match answer {
            Ok(Some(lease)) => self.know(lease),
            Ok(None) => self.lease = Known::Missing,
            Err(error) => {
                tracing::warn!(%error, "cannot read the lease");
                self.lease = Known::Nothing;
            }
        }
    }

    fn know(&mut self, lease: Lease) {
        let seen = Seen::update(self.seen.take(), record(&lease), Instant::now());
        self.seen = Some(seen);
        self.lease = Known::Lease(Box::new(lease));
    }

    /// Writes our name, or moves the record; gives the time until the next step.
    async fn write(&mut self) -> Duration {
        let begun = Instant::now();
        let lease = self.ours();
        match self.send(&lease).await {
            Ok(lease) => {
                self.know(lease);
                self.renewed = Some(begun);
                self.fence.set(Some(begun + GIVE_UP));
                if !self.leading.send_replace(true) {
                    tracing::info!(identity = self.election.identity, "this replica leads");
                    self.metrics.leader.set(1);
                }
                RENEW.saturating_sub(begun.elapsed())
            }
            Err(Error::Status(status)) if matches!(status.code, 404 | 409) => {
                // Somebody else wrote it, or deleted it: look before anything else.
                self.look().await;
                if self.renewed.is_some() { Duration::ZERO } else { LOOK }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot write the lease");
                RETRY
            }
        }
    }

    /// Sends the lease, in the place of the one that is known.
    async fn send(&mut self, lease: &Lease) -> Result<Lease, Error> {
        let params = PostParams::default();
        self.unanswered = true;
        let answer = match &self.lease {
            Known::Lease(_) => limited(LEASE, self.api.replace(&self.election.name, &params, lease)).await,
            Known::Nothing | Known::Missing => limited(LEASE, self.api.create(&params, lease)).await,
        };
        self.unanswered = match &answer {
            Ok(_) => false,
            // An apiserver that fails may have done it before.
            Err(Error::Status(status)) => status.code >= 500,
            Err(_) => true,
        };
        answer
    }

    /// The lease as it should be when it is ours.
    fn ours(&self) -> Lease {
        let now = MicroTime(Timestamp::now());
        let mut lease = match &self.lease {
            Known::Lease(lease) => (**lease).clone(),
            Known::Nothing | Known::Missing => Lease {
                metadata: ObjectMeta {
                    name: Some(self.election.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: None,
            },
        };
        lease.metadata.managed_fields = None;
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if spec.holder_identity.as_ref() != Some(&self.election.identity) {
            spec.holder_identity = Some(self.election.identity.clone());
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        }
        spec.renew_time = Some(now);
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        lease
    }

    /// Gives the lease back, so that nobody has to wait for it to run out.
    async fn release(&mut self) {
        self.fence.set(None);
        self.metrics.leader.set(0);
        // A write of ours may have been on its way when we were asked to end: then the lease is another than we know.
        let mut must_look = self.unanswered;
        if self.renewed.is_none() && !must_look {
            return;
        }
        for _ in 0..RELEASES {
            if must_look {
                self.look().await;
            }
            let holder = self.seen.as_ref().and_then(|seen| seen.record.holder.as_deref());
            if !matches!(self.lease, Known::Lease(_)) || holder != Some(&self.election.identity) {
                return;
            }
            let mut lease = self.ours();
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = None;
                spec.lease_duration_seconds = Some(1);
            }
            match self.send(&lease).await {
                Ok(_) => {
                    tracing::info!("gave the lease back");
                    return;
                }
                Err(Error::Status(status)) if status.code == 409 => must_look = true,
                Err(error) => {
                    tracing::warn!(%error, "cannot give the lease back: it runs out by itself");
                    return;
                }
            }
        }
    }
}

/// Waits until it is so.
async fn becomes(fit: &mut watch::Receiver<bool>) {
    if fit.wait_for(|fit| *fit).await.is_err() {
        // Nobody will say so any more: everything is ending.
        pending::<()>().await;
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    let seconds = spec
        .and_then(|spec| spec.lease_duration_seconds)
        .and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        holder: spec
            .and_then(|spec| spec.holder_identity.clone())
            .filter(|holder| !holder.is_empty()),
        duration: seconds.map_or(DURATION, Duration::from_secs),
        version: lease.resource_version().unwrap_or_default(),
    }
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
