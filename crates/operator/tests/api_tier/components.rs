//! Plays what runs in the pods, at a control plane that is played, too: registers under the ids that the pods are given,
//! beats, and falls silent when a test says so.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use flowctl_api::{ControlPlane, Status, labels};
use flowctl_operator::{HeartbeatOptions, Options};
use flowctl_plan::Settings;
use flowctl_testkit::{
    Error,
    fake_control_plane::{FakeControlPlane, HealthStatus, Script},
    wait,
};
use k8s_openapi::api::{
    core::v1::{ObjectReference, Pod},
    events::v1::Event,
};
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};

use crate::{
    objects::{pipeline, processor},
    support::{LIMIT, Place, Subject, TestResult, settings},
};

/// Beats of these tests, and the silence that counts: as short as a spec may say.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(3);

/// A control plane that is played, and the namespace whose components report to it.
pub(crate) struct Stage {
    pub(crate) place: Place,
    pub(crate) plane: FakeControlPlane,
}

// === impl Stage ===

impl Stage {
    pub(crate) fn new(place: &Place, script: Script) -> Result<Self, Error> {
        Ok(Self {
            place: place.clone(),
            plane: FakeControlPlane::start(script)?,
        })
    }

    /// Settings with which the operator reads this control plane.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            control_plane: Some(ControlPlane {
                endpoint: self.plane.address().to_string(),
                tls: None,
            }),
            ..settings()
        }
    }

    /// Options with which it tells of itself on a Lease that nobody holds.
    pub(crate) fn options(&self) -> Options {
        let own = ObjectReference {
            api_version: Some("coordination.k8s.io/v1".to_owned()),
            kind: Some("Lease".to_owned()),
            namespace: Some(self.place.namespace.clone()),
            name: Some(OWN.to_owned()),
            ..ObjectReference::default()
        };
        Options {
            heartbeats: HeartbeatOptions {
                own: Some(own),
                ..HeartbeatOptions::default()
            },
            ..self.place.options()
        }
    }

    /// The ids that the live pods of an object are given.
    pub(crate) async fn ids(&self, name: &str) -> Result<BTreeSet<String>, Error> {
        let namespace = &self.place.namespace;
        let params = ListParams::default().labels(&format!("{}={name}", labels::NAME));
        let pods = self.place.api::<Pod>().list(&params).await;
        let pods = pods.map_err(Error::kube("list pods"))?.items.into_iter();
        let live = pods.filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(live
            .map(|pod| format!("{namespace}.{name}.{}", pod.name_any()))
            .collect())
    }

    /// Registers what runs in the live pods of an object, which beats from now on; gives the ids.
    pub(crate) async fn speak(&self, name: &str) -> Result<BTreeSet<String>, Error> {
        let ids = self.ids(name).await?;
        let registered = self.plane.registered();
        for id in ids.iter().filter(|id| !registered.contains(*id)) {
            self.plane.register_named(id, name, None);
        }
        self.plane.keep_beating(ids.iter().cloned(), HealthStatus::Unknown);
        Ok(ids)
    }

    /// What runs in the pods of an object is alive, and silent.
    pub(crate) async fn silence(&self, name: &str) -> TestResult {
        for id in self.ids(name).await? {
            self.plane.silence(&id);
        }
        Ok(())
    }

    /// Reasons of the events about an object, each as often as it was told.
    pub(crate) async fn told(&self, kind: &str, name: &str) -> Result<Vec<String>, Error> {
        let events: Vec<Event> = self.place.list().await?;
        let about = |event: &&Event| {
            let regarding = event.regarding.as_ref();
            regarding.is_some_and(|object| object.kind.as_deref() == Some(kind) && object.name.as_deref() == Some(name))
        };
        let reasons = events.iter().filter(about).flat_map(|event| {
            let count = event.series.as_ref().map_or(1, |series| series.count.max(1));
            let reason = event.reason.clone().unwrap_or_default();
            std::iter::repeat_n(reason, usize::try_from(count).unwrap_or(1))
        });
        Ok(reasons.collect())
    }

    /// Waits until a reason was told on the operator's own object.
    pub(crate) async fn own_event(&self, reason: &str) -> TestResult {
        // A reset is doubted for a minute.
        wait::until_explained(&format!("the operator tells {reason}"), 2 * LIMIT, async || {
            let told = self.told("Lease", OWN).await?;
            Ok(if told.iter().any(|told| told == reason) {
                Ok(())
            } else {
                Err(format!("{told:?}"))
            })
        })
        .await
    }
}

/// The operator's own object: the lease that it may look at.
pub(crate) const OWN: &str = "flowctl-operator";

/// An ExternalProcessor whose silence is seen soon.
pub(crate) fn beating(name: &str, role: &str, policy: &str) -> Value {
    let mut object = processor(name, role);
    object["spec"]["heartbeat"] = heartbeat(policy);
    object
}

/// A Pipeline of one processor, whose own silence is nobody's.
pub(crate) fn using(name: &str, target: &str) -> Value {
    let mut object = pipeline(name);
    object["spec"]["processors"] = json!([{"name": "work", "processorRef": {"name": target}}]);
    object["spec"]["consumers"] = json!([{"type": "StdoutConsumer"}]);
    object["spec"]["heartbeat"] = heartbeat("Auto");
    object
}

fn heartbeat(policy: &str) -> Value {
    json!({"policy": policy, "intervalSeconds": INTERVAL.as_secs(), "staleAfterSeconds": STALE_AFTER.as_secs()})
}

/// Status and reason of a condition.
pub(crate) fn condition<'s>(status: &'s Status, type_: &str) -> Option<(&'s str, &'s str)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((found.status.as_str(), found.reason.as_str()))
}

/// Nothing else may be seen for a while.
pub(crate) async fn stays<K: Subject>(
    place: &Place,
    name: &str,
    type_: &str,
    expected: (&str, &str),
    time: Duration,
) -> TestResult {
    let begun = Instant::now();
    wait::until("the time is over", time + LIMIT, async || {
        let object: K = place.get(name).await?;
        let status = object.status().cloned().unwrap_or_default();
        let seen = condition(&status, type_);
        if seen != Some(expected) {
            return Err(Error::impossible(format!(
                "{name} has {type_} {seen:?}, why {:?}",
                status.why
            )));
        }
        Ok((begun.elapsed() >= time).then_some(()))
    })
    .await
}
