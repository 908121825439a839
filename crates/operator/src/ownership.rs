//! Whose a live object is. Everything that is not controlled by the very object we work for, uid included, is left
//! alone, and its owner named in words for the person who must choose another name.

use flowctl_api::labels;
use flowctl_plan::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::subject::{Subject, SubjectKind, controller};

const HELM_RELEASE: &str = "meta.helm.sh/release-name";
const HELM_NAMESPACE: &str = "meta.helm.sh/release-namespace";

/// The object that we work for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Master {
    pub(crate) kind: SubjectKind,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// Whose an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The object that we work for.
    Master,
    /// A former object of the same kind and name: garbage collection will take it.
    Namesake,
    /// Somebody else, in words.
    Foreign(String),
}

// === impl Master ===

impl Master {
    /// Its name, as it is queued.
    pub(crate) fn subject(&self) -> Subject {
        Subject {
            kind: self.kind,
            key: Key::new(&*self.namespace, &*self.name),
        }
    }

    /// Whether this metadata's controller is the object that we work for.
    pub(crate) fn controls(&self, meta: &ObjectMeta) -> bool {
        controller(meta).is_some_and(|owner| owner.uid == self.uid)
    }

    /// Whose the object with this metadata is.
    pub(crate) fn owner_of(&self, meta: &ObjectMeta) -> Owner {
        match controller(meta) {
            Some(owner) if owner.uid == self.uid => Owner::Master,
            Some(owner) if self.is_namesake(owner) => Owner::Namesake,
            _ => Owner::Foreign(in_words(meta)),
        }
    }

    fn is_namesake(&self, owner: &OwnerReference) -> bool {
        let ours = owner
            .api_version
            .split_once('/')
            .is_some_and(|(group, _)| group == flowctl_api::GROUP);
        ours && owner.kind == self.kind.as_str() && owner.name == self.name
    }
}

/// Who a person would say owns it: a controller, a Helm release, another owner, or whoever wrote it first.
fn in_words(meta: &ObjectMeta) -> String {
    if let Some(owner) = controller(meta) {
        return format!("{} {}", owner.kind, owner.name);
    }
    let annotation = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key));
    if let Some(release) = annotation(HELM_RELEASE) {
        let place = annotation(HELM_NAMESPACE)
            .map(|namespace| format!(" in namespace {namespace}"))
            .unwrap_or_default();
        return format!("Helm release {release}{place}");
    }
    if let Some(owner) = meta.owner_references.as_ref().and_then(|owners| owners.first()) {
        return format!("{} {}", owner.kind, owner.name);
    }
    let managed = meta.labels.as_ref().and_then(|all| all.get(labels::APP_MANAGED_BY));
    if managed.is_some_and(|by| by == labels::MANAGER) {
        return "no owner any more, left behind with our labels: delete it, or give it back its owner".to_owned();
    }
    let mut writers: Vec<_> = meta.managed_fields.iter().flatten().collect();
    writers.sort_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    match writers.iter().find_map(|entry| entry.manager.as_deref()) {
        Some(manager) => format!("no owner, created by {manager}"),
        None => "no owner".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn owner_of(metadata: Value) -> Owner {
        let master = Master {
            kind: SubjectKind::Pipeline,
            namespace: "ns".into(),
            name: "web".into(),
            uid: "1".into(),
        };
        master.owner_of(&serde_json::from_value(metadata).expect("metadata"))
    }

    fn reference(kind: &str, name: &str, uid: &str, controller: bool) -> Value {
        let group = if kind == "Pipeline" {
            "flowctl.dev/v1alpha1"
        } else {
            "apps/v1"
        };
        json!({"apiVersion": group, "kind": kind, "name": name, "uid": uid, "controller": controller})
    }

    // Taking an object over would hand it to garbage collection together with our own.
    #[test]
    fn only_the_very_object_counts_as_ours() {
        let owned = |reference: Value| owner_of(json!({"ownerReferences": [reference]}));
        assert_eq!(owned(reference("Pipeline", "web", "1", true)), Owner::Master);
        assert_eq!(owned(reference("Pipeline", "web", "0", true)), Owner::Namesake);
        assert_eq!(
            owned(reference("Deployment", "web", "7", true)),
            Owner::Foreign("Deployment web".into())
        );
        assert_eq!(
            owned(reference("Pipeline", "other", "7", true)),
            Owner::Foreign("Pipeline other".into())
        );
        assert_eq!(
            owned(reference("Pipeline", "web", "1", false)),
            Owner::Foreign("Pipeline web".into())
        );
    }

    #[test]
    fn foreign_owners_are_named() {
        let helm = json!({"annotations": {HELM_RELEASE: "shop", HELM_NAMESPACE: "prod"}});
        assert_eq!(
            owner_of(helm),
            Owner::Foreign("Helm release shop in namespace prod".into())
        );
        let written = json!({"managedFields": [
            {"manager": "later", "time": "2026-01-02T00:00:00Z"},
            {"manager": "kubectl-create", "time": "2026-01-01T00:00:00Z"},
        ]});
        assert_eq!(
            owner_of(written),
            Owner::Foreign("no owner, created by kubectl-create".into())
        );
        assert_eq!(owner_of(json!({})), Owner::Foreign("no owner".into()));
    }
}
