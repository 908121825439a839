//! Makes a plan true, in order: what must exist first, then what must not, and nothing after the first failure. A
//! request is sent only for what differs from the live child; an object that we do not know is read before it is
//! touched, and one that is not ours is never touched. It does not decide what is wanted, and never reads back.

use flowctl_api::labels;
use flowctl_plan::{Applied, Child, ChildRef, Children, Failure, FailureKind, Plan, compare};
use serde_json::{Value, json};

use crate::{
    caches::Caches,
    child::{ChildType, find, put, with_child_type},
    fights::{Fights, Reason, conflict},
    ownership::{Master, Owner},
    write::{Error, Force, Writer},
};

/// One application of a plan.
struct Application<'a> {
    writer: &'a Writer,
    caches: &'a Caches,
    fights: &'a Fights,
    master: &'a Master,
    children: Children,
}

/// Applies `plan` for `master`, whose children were observed as `children`.
pub(crate) async fn apply(
    writer: &Writer,
    caches: &Caches,
    fights: &Fights,
    master: &Master,
    children: Children,
    plan: &Plan,
) -> Applied {
    let mut application = Application {
        writer,
        caches,
        fights,
        master,
        children,
    };
    for child in &plan.present {
        let ensured = with_child_type!(child.id.kind, K => application.ensure::<K>(child).await);
        if let Err(kind) = ensured {
            return application.failed(&child.id, kind);
        }
    }
    for id in &plan.absent {
        let removed = with_child_type!(id.kind, K => application.remove::<K>(id).await);
        if let Err(kind) = removed {
            return application.failed(id, kind);
        }
    }
    Applied {
        children: application.children,
        failures: Vec::new(),
    }
}

// === impl Application ===

impl Application<'_> {
    async fn ensure<K: ChildType>(&mut self, child: &Child) -> Result<(), FailureKind> {
        let wanted = child.sealed();
        if let Some(live) = find::<K>(&self.children, &wanted.id.name) {
            return self.correct(&wanted, &*live).await;
        }
        // Not in the cache: not there, not there yet, or not ours.
        let read = self.writer.get::<K>(&self.master.namespace, &wanted.id.name).await;
        let Some(live) = read.map_err(Error::into_failure)? else {
            return self.create::<K>(&wanted).await;
        };
        match self.master.owner_of(live.meta()) {
            Owner::Master => {
                self.keep(live.clone());
                self.correct(&wanted, &live).await
            }
            Owner::Namesake => Err(FailureKind::Retry {
                message: format!(
                    "{} of a former {} is not collected yet",
                    wanted.id,
                    self.master.kind.as_str()
                ),
            }),
            Owner::Foreign(owner) => Err(FailureKind::NameConflict { owner }),
        }
    }

    /// Writes a child of ours if it is not as wanted.
    async fn correct<K: ChildType>(&mut self, wanted: &Child, live: &K) -> Result<(), FailureKind> {
        if live.meta().deletion_timestamp.is_some() {
            return Err(FailureKind::Retry {
                message: format!("{} is being deleted", wanted.id),
            });
        }
        let shown = serde_json::to_value(live).map_err(|error| FailureKind::Retry {
            message: error.to_string(),
        })?;
        let Some(difference) = compare::differs(wanted, &shown) else {
            return Ok(());
        };
        // Not the values: an environment may hold what its author should have put into a Secret.
        tracing::info!(child = %wanted.id, field = difference.path, "writing a child that differs");
        let uid = live.meta().uid.as_deref().unwrap_or_default();
        let (seal, last) = (seal(&wanted.body), seal(&shown));
        let body = with_uid(&wanted.body, uid);
        let force = self.fights.force(uid, seal);
        let answer = self
            .writer
            .apply::<K>(&self.master.namespace, &wanted.id.name, &body, force)
            .await;
        self.keep(answer.map_err(failure)?);
        self.fights
            .wrote(uid, seal, if seal == last { Reason::Drift } else { Reason::News });
        Ok(())
    }

    async fn create<K: ChildType>(&mut self, wanted: &Child) -> Result<(), FailureKind> {
        tracing::info!(child = %wanted.id, "creating a child");
        let (namespace, name) = (&self.master.namespace, &wanted.id.name);
        let answer = if wanted.id.kind.write_once() {
            self.writer.create::<K>(namespace, &wanted.body).await
        } else {
            self.writer.apply::<K>(namespace, name, &wanted.body, Force::No).await
        };
        // A conflict: somebody made it since we looked, and the next pass reads whose it is.
        self.keep(answer.map_err(Error::into_failure)?);
        Ok(())
    }

    async fn remove<K: ChildType>(&mut self, id: &ChildRef) -> Result<(), FailureKind> {
        let Some(live) = find::<K>(&self.children, &id.name) else {
            return Ok(());
        };
        let (key, meta) = (flowctl_plan::Key::new(&*self.master.namespace, &*id.name), live.meta());
        let Some(uid) = meta.uid.as_deref().filter(|_| meta.deletion_timestamp.is_none()) else {
            return Ok(());
        };
        tracing::info!(child = %id, "deleting a child");
        self.writer
            .delete::<K>(&self.master.namespace, &id.name, uid)
            .await
            .map_err(Error::into_failure)?;
        K::store(self.caches).deleted(&key, uid);
        K::among_mut(&mut self.children).retain(|child| child.meta().uid.as_deref() != Some(uid));
        Ok(())
    }

    fn keep<K: ChildType>(&mut self, answer: K) {
        let kept = put(&mut self.children, answer);
        K::store(self.caches).wrote(kept);
    }

    fn failed(self, id: &ChildRef, kind: FailureKind) -> Applied {
        tracing::warn!(child = %id, failure = ?kind, "child could not be written");
        Applied {
            children: self.children,
            failures: vec![Failure {
                child: id.clone(),
                kind,
            }],
        }
    }
}

/// The failure of a write to a child of ours.
fn failure(error: Error) -> FailureKind {
    match &error {
        Error::Status(status) => conflict(status).unwrap_or_else(|| error.into_failure()),
        _ => error.into_failure(),
    }
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
