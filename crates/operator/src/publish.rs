//! Publishes what came of a pass: the status, when it differs from the published one, and then the events of what
//! turned. All status writes of the operator, and their budget, are here.

use std::{sync::Arc, time::Duration};

use flowctl_api::Status;
use flowctl_plan::Publication;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Resource, core::object::HasStatus};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    budget::Budget,
    caches::{Cached, Caches},
    events::Events,
    metrics::Metrics,
    ownership::Master,
    pace::Pace,
    rbac::Rule,
    store::prune,
    write::{Error, Writer},
};

/// What publishing status needs.
pub(crate) const RULES: &[Rule] = &[Rule::new(
    "flowctl.dev",
    &["externalprocessors/status", "pipelines/status"],
    &["patch"],
)];

/// Publishes statuses and events.
#[derive(Clone, Debug)]
pub(crate) struct Statuses {
    writer: Writer,
    events: Events,
    metrics: Metrics,
    budget: Arc<Budget>,
    pace: Arc<Pace>,
}

/// What a status is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It takes a spec in, which whoever wrote it waits for: as rare as specs are written, and in the budget of all writes.
    Spec,
    /// Something else changed: pods, other objects. These have a budget of their own, because pods may flap for ever.
    World,
}

/// What became of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// It stands as it should.
    Done,
    /// Too much was written, for this object or for all: a new pass after this time will publish what is true then.
    Deferred(Duration),
}

// === impl News ===

impl News {
    fn of(published: Option<&Status>, wanted: &Status) -> Self {
        match published {
            Some(published) if published.observed_generation == wanted.observed_generation => Self::World,
            Some(_) | None => Self::Spec,
        }
    }
}

// === impl Statuses ===

impl Statuses {
    pub(crate) fn new(writer: Writer, events: Events, metrics: Metrics, budget: Budget) -> Self {
        Self {
            writer,
            events,
            metrics,
            budget: Arc::new(budget),
            pace: Arc::default(),
        }
    }

    /// Publishes for `object`, and remembers the answer in the caches.
    ///
    /// # Errors
    ///
    /// When the status could not be written.
    pub(crate) async fn publish<K>(
        &self,
        caches: &Caches,
        object: &K,
        master: &Master,
        publication: Publication,
    ) -> Result<Published, Error>
    where
        K: Cached + HasStatus<Status = Status>,
    {
        if !object
            .status()
            .is_some_and(|published| stands(published, &publication.status))
        {
            if let Err(wait) = self.pace.ask(&master.uid, object.status(), &publication.status) {
                return Ok(Published::Deferred(wait));
            }
            let news = News::of(object.status(), &publication.status);
            match self.write::<K, K>(master, &publication.status, news).await? {
                Write::Deferred(wait) => return Ok(Published::Deferred(wait)),
                Write::Gone => return Ok(Published::Done),
                Write::Answer(mut answer) => {
                    prune(&mut answer);
                    K::store(caches).wrote(Arc::new(answer));
                }
            }
        }
        let regarding = reference::<K>(master);
        for event in publication.events {
            self.events.leave(event, &regarding);
        }
        Ok(Published::Done)
    }

    /// Writes a status without looking at the published one.
    pub(crate) async fn write<K, T>(
        &self,
        master: &Master,
        status: &impl Serialize,
        news: News,
    ) -> Result<Write<T>, Error>
    where
        K: Cached,
        T: serde::de::DeserializeOwned,
    {
        let may = match news {
            News::Spec => Ok(()),
            News::World => self.budget.take(),
        };
        if let Err(wait) = may {
            self.metrics.deferred.inc();
            return Ok(Write::Deferred(wait));
        }
        self.pace.wrote(&master.uid);
        let body = body::<K>(master, status);
        match self
            .writer
            .apply_status::<K, T>(&master.namespace, &master.name, &body)
            .await
        {
            Ok(answer) => Ok(Write::Answer(answer)),
            Err(Error::Status(status)) if status.code == 404 => Ok(Write::Gone),
            Err(error) => Err(error),
        }
    }
}

/// Whether the published status is the wanted one. Conditions of other types are somebody else's and may stay.
fn stands(published: &Status, wanted: &Status) -> bool {
    let ours = |condition: &&Condition| wanted.conditions.iter().any(|other| other.type_ == condition.type_);
    if !published.conditions.iter().filter(ours).eq(&wanted.conditions) {
        return false;
    }
    let mut rest = published.clone();
    rest.conditions.clone_from(&wanted.conditions);
    rest == *wanted
}

/// What came of a status write.
#[derive(Debug)]
pub(crate) enum Write<T> {
    Answer(T),
    Gone,
    Deferred(Duration),
}

/// The apply configuration. The uid keeps a successor of the same name from getting its predecessor's status.
fn body<K: Resource<DynamicType = ()>>(master: &Master, status: &impl Serialize) -> Value {
    json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"namespace": master.namespace, "name": master.name, "uid": master.uid},
        "status": status,
    })
}

fn reference<K: Resource<DynamicType = ()>>(master: &Master) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: Some(master.namespace.clone()),
        name: Some(master.name.clone()),
        uid: Some(master.uid.clone()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(types: &[&str], why: &str) -> Status {
        let condition = |type_: &&str| json!({"type": type_, "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let conditions: Vec<Value> = types.iter().map(condition).collect();
        serde_json::from_value(json!({"why": why, "conditions": conditions})).expect("a status")
    }

    // A condition that another controller adds must not make us write the same status in every pass.
    #[test]
    fn what_others_add_is_no_difference_and_what_they_change_is() {
        let wanted = status(&["Accepted", "Ready"], "");
        assert!(stands(&wanted, &wanted));
        assert!(stands(&status(&["Accepted", "Theirs", "Ready"], ""), &wanted));
        assert!(!stands(&status(&["Ready"], ""), &wanted));
        assert!(!stands(&status(&["Accepted", "Ready"], "changed"), &wanted));
    }

    // A thousand objects that are made at once must not wait for each other's statuses, and pods that flap must not use
    // up what users wait for.
    #[test]
    fn only_a_spec_that_is_taken_in_is_news_of_the_spec() {
        let of = |generation: Option<i64>| Status {
            observed_generation: generation,
            ..status(&["Ready"], "")
        };
        assert_eq!(News::of(None, &of(Some(1))), News::Spec);
        assert_eq!(News::of(Some(&of(Some(1))), &of(Some(2))), News::Spec);
        assert_eq!(News::of(Some(&of(Some(2))), &of(Some(2))), News::World);
    }
}
