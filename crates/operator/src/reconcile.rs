//! One pass: observe → plan → apply → publish, once each, in order. Everything that would need to go back (wait, poll,
//! read its own write) is "return, and be called again", but for a child that no watch shows: with it the plan is made anew, and
//! as each such child is looked up once, that ends. There is no object, label or reason in this file: what is
//! wanted is decided in `flowctl-plan`, how it is sent stands in `apply` and `publish`.
//!
//! A pass cannot fail because of the object: bad input and failed writes are told in its status. It fails only when the
//! status itself cannot be written.

use std::{sync::Arc, time::Duration};

use flowctl_api::{ExternalProcessor, Pipeline};
use flowctl_plan::Settings;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::error_boundary::InvalidObject;

use crate::{
    apply::{Age, Done, apply},
    caches::{Cached, Caches},
    fights::Fights,
    heartbeats::Hub,
    observe,
    ownership::Master,
    places::Places,
    publish::{Published, Statuses},
    refusals::Refusals,
    subject::{Subject, SubjectKind},
    undecodable,
    unmoved::Unmoved,
    write::{Error, Writer},
};

/// What every pass needs.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) caches: Arc<Caches>,
    pub(crate) writer: Writer,
    pub(crate) statuses: Statuses,
    pub(crate) places: Arc<Places>,
    pub(crate) fights: Fights,
    pub(crate) unmoved: Unmoved,
    pub(crate) refusals: Refusals,
    pub(crate) heartbeats: Hub,
    pub(crate) settings: Arc<Settings>,
}

/// What came of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is no such object, or it is being deleted: garbage collection does the rest.
    Gone,
    /// The status stands. Something may be worth a look after this time although nothing changed.
    Settled(Option<Duration>),
    /// Some write failed; the status says which, and it is tried again after this time.
    Retrying(Option<Duration>),
    /// The status is put off, because many were written.
    Deferred(Duration),
    /// Not everything in its namespace is known: it is woken when it is.
    Unlisted,
    /// This version cannot read the object, and its status says so.
    Unreadable,
}

/// One pass over one object.
///
/// # Errors
///
/// When its status could not be written.
pub(crate) async fn reconcile(context: &Context, subject: &Subject) -> Result<Outcome, Error> {
    if !context.places.knows(&subject.key.namespace) {
        return Ok(Outcome::Unlisted);
    }
    match subject.kind {
        SubjectKind::Pipeline => match look_up::<Pipeline>(context, subject) {
            Found::Nothing => Ok(gone(context, subject)),
            Found::Unreadable(master, invalid) => unreadable::<Pipeline>(context, &master, &invalid).await,
            Found::Object(master, object) => pipeline(context, subject, &master, object).await,
        },
        SubjectKind::ExternalProcessor => match look_up::<ExternalProcessor>(context, subject) {
            Found::Nothing => Ok(gone(context, subject)),
            Found::Unreadable(master, invalid) => unreadable::<ExternalProcessor>(context, &master, &invalid).await,
            Found::Object(master, object) => processor(context, subject, &master, object).await,
        },
    }
}

async fn pipeline(
    context: &Context,
    subject: &Subject,
    master: &Master,
    object: Arc<Pipeline>,
) -> Result<Outcome, Error> {
    let Context {
        caches,
        places,
        statuses,
        heartbeats,
        settings,
        ..
    } = context;
    let look = |object| observe::pipeline(caches, places, heartbeats, settings, subject, master, object);
    let mut observed = look(object);
    if heartbeats.first_answer(subject).await {
        observed = look(observed.object);
    }
    let age = Age::of(observed.object.status.as_ref());
    let (plan, applied) = loop {
        let plan = flowctl_plan::pipeline::plan(&observed);
        match apply(context, master, age, observed.children.clone(), &plan).await {
            Done::Applied(applied) => break (plan, applied),
            Done::Gone => return Ok(Outcome::Gone),
            Done::Unforeseen(children) => observed.children = children,
        }
    };
    let publication = flowctl_plan::status::pipeline(&observed, &plan, &applied);
    let wake_after = context.refusals.stand_for(&master.uid, publication.wake_after);
    let published = statuses.publish(caches, &*observed.object, master, publication).await?;
    Ok(outcome(published, applied.failures.is_empty(), wake_after))
}

async fn processor(
    context: &Context,
    subject: &Subject,
    master: &Master,
    object: Arc<ExternalProcessor>,
) -> Result<Outcome, Error> {
    let Context {
        caches,
        places,
        statuses,
        heartbeats,
        settings,
        ..
    } = context;
    let look = |object| observe::processor(caches, places, heartbeats, settings, subject, master, object);
    let mut observed = look(object);
    if heartbeats.first_answer(subject).await {
        observed = look(observed.object);
    }
    let age = Age::of(observed.object.status.as_ref());
    let (plan, applied) = loop {
        let plan = flowctl_plan::processor::plan(&observed);
        match apply(context, master, age, observed.children.clone(), &plan).await {
            Done::Applied(applied) => break (plan, applied),
            Done::Gone => return Ok(Outcome::Gone),
            Done::Unforeseen(children) => observed.children = children,
        }
    };
    let publication = flowctl_plan::status::processor(&observed, &plan, &applied);
    let wake_after = context.refusals.stand_for(&master.uid, publication.wake_after);
    let published = statuses.publish(caches, &*observed.object, master, publication).await?;
    Ok(outcome(published, applied.failures.is_empty(), wake_after))
}

/// Nobody beats for an object that is gone.
fn gone(context: &Context, subject: &Subject) -> Outcome {
    context.heartbeats.forget(subject);
    Outcome::Gone
}

async fn unreadable<K: Cached>(context: &Context, master: &Master, invalid: &InvalidObject) -> Result<Outcome, Error> {
    let told = undecodable::tell::<K>(&context.writer, &context.statuses, master, invalid).await?;
    Ok(match told {
        Published::Done => Outcome::Unreadable,
        Published::Deferred(wait) => Outcome::Deferred(wait),
    })
}

fn outcome(published: Published, all_written: bool, wake_after: Option<Duration>) -> Outcome {
    match published {
        Published::Deferred(wait) => Outcome::Deferred(wake_after.map_or(wait, |wake_after| wake_after.min(wait))),
        Published::Done if all_written => Outcome::Settled(wake_after),
        Published::Done => Outcome::Retrying(wake_after),
    }
}

/// What the cache has of a subject.
enum Found<K> {
    Nothing,
    Unreadable(Master, Arc<InvalidObject>),
    Object(Master, Arc<K>),
}

fn look_up<K: Cached>(context: &Context, subject: &Subject) -> Found<K> {
    match K::store(&context.caches).get(&subject.key) {
        None => Found::Nothing,
        Some(Ok(object)) => match master(subject, object.meta()) {
            Some(master) => Found::Object(master, object),
            None => Found::Nothing,
        },
        Some(Err(invalid)) => match master(subject, &invalid.metadata) {
            Some(master) => Found::Unreadable(master, invalid),
            None => Found::Nothing,
        },
    }
}

/// The object as the owner of its children; `None`: it is being deleted, and nothing may be written for it any more.
fn master(subject: &Subject, meta: &ObjectMeta) -> Option<Master> {
    let uid = meta.uid.clone().filter(|_| meta.deletion_timestamp.is_none())?;
    let key = &subject.key;
    Some(Master {
        kind: subject.kind,
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        uid,
    })
}

// === impl Outcome ===

impl Outcome {
    /// As a metric label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Settled(_) => "settled",
            Self::Retrying(_) => "retrying",
            Self::Deferred(_) => "deferred",
            Self::Unlisted => "unlisted",
            Self::Unreadable => "unreadable",
        }
    }

    /// When to look again; `None`: never, until somebody makes it again.
    pub(crate) fn look_again(self, resync: Duration) -> Option<Duration> {
        match self {
            Self::Gone | Self::Unlisted => None,
            Self::Settled(wake_after) | Self::Retrying(wake_after) => {
                Some(wake_after.map_or(resync, |wake_after| wake_after.min(resync)))
            }
            Self::Deferred(wait) => Some(wait),
            Self::Unreadable => Some(resync),
        }
    }
}
