//! Publishes what came of a pass: the status, when it differs from the published one, and then the events of what
//! turned. All status writes of the operator, and their budget, are here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use flowctl_api::{ConditionType, Status};
use flowctl_plan::{Event, Publication};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Resource, core::object::HasStatus};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    caches::{Cached, Caches},
    events::Events,
    line::{Line, Urgency},
    ownership::Master,
    pace::Pace,
    rbac::Rule,
    store::prune,
    write::{Error, Payment, Writer},
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
    line: Arc<Line>,
    pace: Arc<Pace>,
    owed: Owed,
}

/// The events of statuses whose answer was lost, by the object's uid: if such a status turns out to be published, no later
/// pass would see that anything turned.
type Owed = Arc<Mutex<HashMap<String, Vec<Event>>>>;

/// What a status is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It takes a spec in, which whoever wrote it waits for: as rare as specs are written, and in the budget of all writes.
    Spec,
    /// The world made the object Ready, or not. Like all that follows it waits in line, because pods may flap for ever; but
    /// people gate on it.
    Ready,
    /// Another condition turned.
    Turn,
    /// Something else changed: a number, a message.
    Detail,
}

/// What became of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// It stands as it should.
    Done,
    /// Too much was written, for this object or for all: a new pass after this time, or when the object is woken, will publish
    /// what is true then.
    Deferred(Duration),
}

// === impl News ===

impl News {
    fn of(published: Option<&Status>, wanted: &Status) -> Self {
        let Some(published) = published.filter(|published| published.observed_generation == wanted.observed_generation)
        else {
            return Self::Spec;
        };
        let told = |type_: &str| {
            let mut conditions = published.conditions.iter();
            let same = conditions.find(|condition| condition.type_ == type_);
            same.map(|condition| condition.status.as_str())
        };
        let mut turned = wanted
            .conditions
            .iter()
            .filter(|condition| told(&condition.type_) != Some(condition.status.as_str()))
            .map(|condition| condition.type_.as_str())
            .peekable();
        if turned.peek().is_none() {
            Self::Detail
        } else if turned.any(|type_| type_ == ConditionType::Ready.as_str()) {
            Self::Ready
        } else {
            Self::Turn
        }
    }
}

// === impl Statuses ===

impl Statuses {
    pub(crate) fn new(writer: Writer, events: Events, line: Arc<Line>) -> Self {
        Self {
            writer,
            events,
            line,
            pace: Arc::default(),
            owed: Arc::default(),
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
        let (published, wanted) = (object.status(), &publication.status);
        if published.is_some_and(|published| stands(published, wanted)) {
            self.line.leave(&master.subject());
        } else {
            let news = News::of(published, wanted);
            let generation = wanted.observed_generation;
            match self.write::<K, K>(master, generation, wanted, news).await {
                Ok(Write::Deferred(wait)) => return Ok(Published::Deferred(wait)),
                Ok(Write::Gone) => {
                    self.owed().remove(&master.uid);
                    return Ok(Published::Done);
                }
                Ok(Write::Answer(mut answer)) => {
                    prune(&mut answer);
                    K::store(caches).wrote(Arc::new(answer));
                }
                Err(error) => {
                    if matches!(error, Error::Silent(_) | Error::Broken(_) | Error::Garbled(_)) {
                        self.owed().insert(master.uid.clone(), publication.events);
                    }
                    return Err(error);
                }
            }
        }
        let owed = self.owed().remove(&master.uid).unwrap_or_default();
        // What turned is told once, by the newer words.
        let events = if publication.events.is_empty() {
            owed
        } else {
            publication.events
        };
        let regarding = reference::<K>(master);
        for event in events {
            self.events.leave(event, &regarding);
        }
        Ok(Published::Done)
    }

    fn owed(&self) -> MutexGuard<'_, HashMap<String, Vec<Event>>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a status about this generation without looking at the published one.
    pub(crate) async fn write<K, T>(
        &self,
        master: &Master,
        generation: Option<i64>,
        status: &impl Serialize,
        news: News,
    ) -> Result<Write<T>, Error>
    where
        K: Cached,
        T: serde::de::DeserializeOwned,
    {
        let paid = match self.may(master, generation, news) {
            Ok(paid) => paid,
            Err(wait) => return Ok(Write::Deferred(wait)),
        };
        self.pace.wrote(&master.uid, news);
        let body = body::<K>(master, status);
        let (namespace, name) = (&master.namespace, &master.name);
        match self.writer.apply_status::<K, T>(namespace, name, &body, paid).await {
            Ok(answer) => {
                self.pace.taken(&master.uid);
                Ok(Write::Answer(answer))
            }
            Err(Error::Status(status)) if status.code == 404 => Ok(Write::Gone),
            Err(error) => {
                if error.was_sent() {
                    self.pace.refused(&master.uid, generation);
                }
                Err(error)
            }
        }
    }

    /// Whether a status may be written now, and how it is paid.
    fn may(&self, master: &Master, generation: Option<i64>, news: News) -> Result<Payment, Duration> {
        self.pace.ask(&master.uid, generation, news)?;
        let urgency = match news {
            News::Spec => {
                // It tells of the world as well.
                self.line.leave(&master.subject());
                return Ok(Payment::Due);
            }
            News::Ready => Urgency::High,
            News::Turn | News::Detail => Urgency::Low,
        };
        self.line.ask(&master.subject(), urgency).map(|()| Payment::Done)
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
        assert_eq!(News::of(Some(&of(Some(2))), &of(Some(2))), News::Detail);
    }

    // A roll-out that is gated on Ready must not stand in line behind numbers of pods.
    #[test]
    fn a_turn_of_ready_is_told_apart() {
        let published = status(&["Healthy", "Ready"], "");
        let turned = |index: usize| {
            let mut wanted = status(&["Healthy", "Ready"], "why");
            wanted.conditions[index].status = "False".to_owned();
            News::of(Some(&published), &wanted)
        };
        assert_eq!([turned(0), turned(1)], [News::Turn, News::Ready]);
        let added = status(&["Healthy", "Ready", "Stalled"], "");
        assert_eq!(News::of(Some(&published), &added), News::Turn);
        assert_eq!(News::of(Some(&added), &published), News::Detail);
    }
}

#[cfg(test)]
#[path = "publish_tests.rs"]
mod storms;
