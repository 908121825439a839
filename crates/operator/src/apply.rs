//! Makes a plan true, in order: what must exist first, then what must not. After the failure of something that a
//! workload needs, or one that took long, nothing more is written; other failures are gathered, and nothing is deleted. A
//! request is sent only for what differs from the live child; an object that we do not know is read before it is touched,
//! and one that is not ours is never touched. It does not decide what is wanted, and never reads back.

mod failed;

use flowctl_api::{ExternalProcessor, Pipeline, Status, labels};
use flowctl_plan::{Applied, Child, ChildKind, ChildRef, Children, Failure, FailureKind, Plan, compare};
use kube::core::PartialObjectMeta;
use serde_json::{Value, json};
use tokio::time::Instant;

use self::failed::{Failed, again, named, unlike};
use crate::{
    child::{ChildType, find, put, with_child_type},
    fights::Reason,
    lane::SLOW,
    ownership::{Master, Owner},
    reconcile::Context,
    subject::SubjectKind,
    write::{Addressable, Error, Force},
};

/// In the place of the hash of what is wanted, for a child that is not.
const DELETED: &str = "deleted";

/// How long the object that we work for has been there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// It has no status: it came just now.
    New,
    /// It may be gone by now.
    Known,
}

/// One application of a plan.
struct Application<'a> {
    context: &'a Context,
    master: &'a Master,
    children: Children,
    failures: Vec<Failure>,
    master_is: Known,
    /// A child that the plan does not know of was found, and stands among the children.
    is_unforeseen: bool,
}

/// What is known of the object that we work for, beside what the cache has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Nothing,
    There,
    Gone,
}

/// What came of a plan.
#[derive(Debug)]
pub(crate) enum Done {
    /// As much of it is true as could be made so.
    Applied(Applied),
    /// The object is gone, and nothing is to be told.
    Gone,
    /// A child that cannot change is there under a name that the plan wants, with other content or without our label, so that no
    /// watch shows it. What of it can be used, and what must go, is for a plan that knows it: these are all children.
    Unforeseen(Children),
}

/// Applies `plan` for `master`, whose children were observed as `children`.
pub(crate) async fn apply(context: &Context, master: &Master, age: Age, children: Children, plan: &Plan) -> Done {
    let mut application = Application {
        context,
        master,
        children,
        failures: Vec::new(),
        master_is: match age {
            Age::New => Known::There,
            Age::Known => Known::Nothing,
        },
        is_unforeseen: false,
    };
    for child in &plan.present {
        let begun = Instant::now();
        let ensured = with_child_type!(child.id.kind, K => application.ensure::<K>(child).await);
        if application.must_stop(&child.id, ensured, begun) {
            application.look_at_the_rest(&plan.present).await;
            return application.end();
        }
    }
    // What replaces the absent may not be there.
    if !application.failures.is_empty() {
        return application.end();
    }
    for id in &plan.absent {
        let begun = Instant::now();
        let removed = with_child_type!(id.kind, K => application.remove::<K>(id).await);
        if application.must_stop(id, removed, begun) {
            break;
        }
    }
    application.end()
}

// === impl Application ===

impl Application<'_> {
    async fn ensure<K: ChildType>(&mut self, child: &Child) -> Result<(), Failed> {
        let wanted = child.sealed();
        if let Some(live) = find::<K>(&self.children, &wanted.id.name) {
            return self.correct(&wanted, &*live).await;
        }
        self.may_be_mended(&wanted, || "deleting it, or taking its labels away".to_owned())?;
        self.may_be_sent(&wanted.id, seal(&wanted.body))?;
        // Not in the cache: not there, not there yet, or not ours.
        let read = self
            .context
            .writer
            .get::<K>(&self.master.namespace, &wanted.id.name)
            .await;
        let Some(live) = read? else {
            self.confirm().await?;
            return self.create::<K>(&wanted).await;
        };
        match self.master.owner_of(live.meta()) {
            Owner::Master => {
                // Not into the cache: perhaps no watch ever tells that it goes.
                let live = put(&mut self.children, live);
                let may_change = !wanted.id.kind.write_once();
                let ends = live.meta().deletion_timestamp.is_some();
                if may_change || ends || compare::differs(&wanted, &shown(&*live)?).is_none() {
                    self.correct(&wanted, &*live).await
                } else {
                    Err(Failed::Unforeseen)
                }
            }
            Owner::Namesake => Err(again(format!(
                "{} of a former {} is not collected yet",
                wanted.id,
                self.master.kind.as_str()
            ))),
            Owner::Foreign(owner) => Err(FailureKind::NameConflict { owner }.into()),
        }
    }

    /// Writes a child of ours if it is not as wanted.
    async fn correct<K: ChildType>(&mut self, wanted: &Child, live: &K) -> Result<(), Failed> {
        if live.meta().deletion_timestamp.is_some() {
            return Err(again(format!("{} is being deleted", wanted.id)));
        }
        let shown = shown(live)?;
        let Some(difference) = compare::differs(wanted, &shown) else {
            return Ok(());
        };
        let uid = live.meta().uid.as_deref().unwrap_or_default();
        let version = live.meta().resource_version.as_deref().unwrap_or_default();
        let (seal, last) = (seal(&wanted.body), seal(&shown));
        if self.context.unmoved.knows(uid, seal, version) {
            return Ok(());
        }
        self.may_be_mended(wanted, || format!("changing {} back", difference.path))?;
        self.may_be_sent(&wanted.id, seal)?;
        // Not the values: an environment may hold what its author should have put into a Secret.
        tracing::info!(child = %wanted.id, field = difference.path, "writing a child that differs");
        let body = with_uid(&wanted.body, uid);
        let fights = &self.context.fights;
        let force = fights.force(uid, seal);
        let answer = self
            .context
            .writer
            .apply::<K>(&self.master.namespace, &wanted.id.name, &body, force)
            .await;
        let answer = answer.map_err(|error| {
            let named = named(&error);
            if named.is_some() && force == Force::No {
                fights.refused(uid, seal);
            }
            self.refused(&wanted.id, seal, named.or_else(|| unlike(wanted, &error)), error)
        })?;
        self.context.refusals.taken(&self.master.uid, &wanted.id);
        let stayed = answer.meta().resource_version.as_deref() == Some(version);
        if stayed && compare::differs(wanted, &self::shown(&answer)?).is_some() {
            tracing::info!(child = %wanted.id, field = difference.path, "the apiserver keeps it otherwise");
            self.context.unmoved.stayed(uid, seal, version);
        } else {
            let reason = if seal == last { Reason::Drift } else { Reason::News };
            fights.wrote(uid, seal, reason);
            fights.mends.wrote(&self.master.uid, &wanted.id, seal, reason);
        }
        self.keep(answer);
        Ok(())
    }

    /// Looks, once in a pass, whether the object is still there. Our watch of it may be behind that of its children: what
    /// is made for an object that is gone is collected, missed, and made again, as long as that lasts.
    async fn confirm(&mut self) -> Result<(), Failed> {
        if self.master_is == Known::Nothing {
            let is_there = match self.master.kind {
                SubjectKind::Pipeline => self.is_there::<Pipeline>().await?,
                SubjectKind::ExternalProcessor => self.is_there::<ExternalProcessor>().await?,
            };
            self.master_is = if is_there { Known::There } else { Known::Gone };
        }
        match self.master_is {
            Known::There => Ok(()),
            Known::Nothing | Known::Gone => Err(Failed::MasterIsGone),
        }
    }

    async fn is_there<K: Addressable>(&self) -> Result<bool, Error> {
        let Master {
            namespace, name, uid, ..
        } = self.master;
        let live = self
            .context
            .writer
            .get_as::<K, PartialObjectMeta>(namespace, name)
            .await?;
        Ok(live
            .is_some_and(|live| live.metadata.uid.as_ref() == Some(uid) && live.metadata.deletion_timestamp.is_none()))
    }

    async fn create<K: ChildType>(&mut self, wanted: &Child) -> Result<(), Failed> {
        tracing::info!(child = %wanted.id, "creating a child");
        let (namespace, name, seal) = (&self.master.namespace, &wanted.id.name, seal(&wanted.body));
        let answer = if wanted.id.kind.write_once() {
            self.context.writer.create::<K>(namespace, &wanted.body).await
        } else {
            self.context
                .writer
                .apply::<K>(namespace, name, &wanted.body, Force::No)
                .await
        };
        // A conflict: somebody made it since we looked, and the next pass reads whose it is.
        let answer = answer.map_err(|error| self.refused(&wanted.id, seal, None, error))?;
        let Context { refusals, fights, .. } = self.context;
        refusals.taken(&self.master.uid, &wanted.id);
        fights.mends.wrote(&self.master.uid, &wanted.id, seal, Reason::News);
        self.keep(answer);
        Ok(())
    }

    /// Not while it is left as it is because somebody undoes it again and again: in these words.
    fn may_be_mended(&self, wanted: &Child, undoing: impl FnOnce() -> String) -> Result<(), Failed> {
        let (mends, seal) = (&self.context.fights.mends, seal(&wanted.body));
        if mends.rests(&self.master.uid, &wanted.id, seal) {
            return Err(Failed::Still(FailureKind::Undone { by: undoing() }));
        }
        Ok(())
    }

    /// Not while the apiserver's last word about just this still counts.
    fn may_be_sent(&self, child: &ChildRef, seal: &str) -> Result<(), Failed> {
        let stands = self.context.refusals.stands(&self.master.uid, child, seal);
        stands.map_or(Ok(()), |kind| Err(Failed::Still(kind)))
    }

    /// Remembers the apiserver's answer about a child, and that there was none: it waits for a webhook of this kind
    /// perhaps. Not a conflict in which no manager is named: there something moved since we looked, and the next pass
    /// looks anew.
    fn refused(&self, child: &ChildRef, seal: &str, named: Option<FailureKind>, error: Error) -> Failed {
        let moved = named.is_none() && matches!(&error, Error::Status(status) if status.code == 409);
        let silent = matches!(error, Error::Silent(_));
        let failed = named.map_or_else(|| Failed::from(error), Failed::Child);
        match &failed {
            Failed::Child(kind) if !moved => self.remember(child, seal, kind),
            Failed::Everything(kind) if silent => self.remember(child, seal, kind),
            Failed::Child(_) | Failed::Everything(_) | Failed::Still(_) | Failed::Unforeseen | Failed::MasterIsGone => {
            }
        }
        failed
    }

    fn remember(&self, child: &ChildRef, seal: &str, kind: &FailureKind) {
        self.context.refusals.refused(&self.master.uid, child, seal, kind);
    }

    async fn remove<K: ChildType>(&mut self, id: &ChildRef) -> Result<(), Failed> {
        let Some(live) = find::<K>(&self.children, &id.name) else {
            return Ok(());
        };
        let (key, meta) = (flowctl_plan::Key::new(&*self.master.namespace, &*id.name), live.meta());
        let Some(uid) = meta.uid.as_deref().filter(|_| meta.deletion_timestamp.is_none()) else {
            return Ok(());
        };
        self.may_be_sent(id, DELETED)?;
        tracing::info!(child = %id, "deleting a child");
        let answer = self
            .context
            .writer
            .delete::<K>(&self.master.namespace, &id.name, uid)
            .await;
        answer.map_err(|error| self.refused(id, DELETED, None, error))?;
        let Context { refusals, fights, .. } = self.context;
        refusals.taken(&self.master.uid, id);
        fights.mends.removed(&self.master.uid, id);
        K::store(&self.context.caches).deleted(&key, uid);
        K::among_mut(&mut self.children).retain(|child| child.meta().uid.as_deref() != Some(uid));
        Ok(())
    }

    fn keep<K: ChildType>(&mut self, answer: K) {
        let kept = put(&mut self.children, answer);
        K::store(&self.context.caches).wrote(kept);
    }

    /// Keeps a failure; whether what follows is not to be tried. After one that took long it is not: whatever waits
    /// there may wait for each of them.
    fn must_stop(&mut self, id: &ChildRef, end: Result<(), Failed>, begun: Instant) -> bool {
        let slow = begun.elapsed() >= SLOW;
        let (kind, stop) = match end {
            Ok(()) => return false,
            Err(Failed::Still(kind)) => {
                tracing::debug!(child = %id, "child is not written again yet");
                (kind, is_prerequisite(id.kind))
            }
            Err(Failed::Child(kind)) => (told(id, kind), is_prerequisite(id.kind)),
            Err(Failed::Everything(kind)) => (told(id, kind), true),
            Err(Failed::Unforeseen) => {
                self.is_unforeseen = true;
                return true;
            }
            Err(Failed::MasterIsGone) => return true,
        };
        self.failures.push(Failure {
            child: id.clone(),
            kind,
        });
        stop || slow
    }

    /// With the first child that the plan does not know of, reads the others of its sort: they belong together, and a plan that
    /// knew of one alone would throw it away.
    async fn look_at_the_rest(&mut self, wanted: &[Child]) {
        for child in wanted.iter().filter(|child| child.id.kind.write_once()) {
            if !self.is_unforeseen {
                return;
            }
            let begun = Instant::now();
            let looked = with_child_type!(child.id.kind, K => self.look::<K>(&child.id).await);
            if looked.is_err() {
                self.is_unforeseen = false;
                self.must_stop(&child.id, looked, begun);
            }
        }
    }

    async fn look<K: ChildType>(&mut self, id: &ChildRef) -> Result<(), Failed> {
        if find::<K>(&self.children, &id.name).is_some() {
            return Ok(());
        }
        let read = self.context.writer.get::<K>(&self.master.namespace, &id.name).await?;
        if let Some(live) = read.filter(|live| matches!(self.master.owner_of(live.meta()), Owner::Master)) {
            put(&mut self.children, live);
        }
        Ok(())
    }

    fn end(self) -> Done {
        match (self.master_is, self.is_unforeseen) {
            (Known::Gone, _) => Done::Gone,
            (Known::There | Known::Nothing, true) => Done::Unforeseen(self.children),
            (Known::There | Known::Nothing, false) => Done::Applied(Applied {
                children: self.children,
                failures: self.failures,
            }),
        }
    }
}

// === impl Age ===

impl Age {
    /// The age of an object with this status.
    pub(crate) const fn of(status: Option<&Status>) -> Self {
        match status {
            None => Self::New,
            Some(_) => Self::Known,
        }
    }
}

/// The failure, after it was logged.
fn told(id: &ChildRef, kind: FailureKind) -> FailureKind {
    tracing::warn!(child = %id, failure = ?kind, "child could not be written");
    kind
}

/// Whether a workload must not be written without it. How many copies run, and whether any, does not wait for the rest.
const fn is_prerequisite(kind: ChildKind) -> bool {
    match kind {
        ChildKind::ConfigMap | ChildKind::ControllerRevision => true,
        ChildKind::Service | ChildKind::PodDisruptionBudget | ChildKind::Deployment | ChildKind::Job => false,
    }
}

/// A live child as its JSON.
fn shown<K: ChildType>(live: &K) -> Result<Value, Failed> {
    serde_json::to_value(live).map_err(|error| again(error.to_string()))
}

/// The hash of what the child was written with last.
fn seal(body: &Value) -> &str {
    let annotations = body.pointer("/metadata/annotations");
    annotations
        .and_then(|all| all.get(labels::APPLIED)?.as_str())
        .unwrap_or_default()
}

/// The body with the live object's uid: if it is another object by now, the apiserver refuses.
fn with_uid(body: &Value, uid: &str) -> Value {
    let mut body = body.clone();
    if let Some(metadata) = body
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
        .filter(|_| !uid.is_empty())
    {
        metadata.insert("uid".to_owned(), json!(uid));
    }
    body
}

#[cfg(test)]
#[path = "apply_tests.rs"]
pub(crate) mod tests;
