//! How a cache keeps an object: as the text of its JSON. As a value of its type a Deployment takes seven times as much,
//! nearly all of it room for fields that are not set, and it is read only when its owner has a pass. It must not change
//! what an object says.

use std::{marker::PhantomData, sync::Arc};

use kube::core::error_boundary::InvalidObject;
use serde::{Serialize, de::DeserializeOwned};

/// An object, or why this version cannot read it.
pub(crate) type Readable<K> = Result<Arc<K>, Arc<InvalidObject>>;

/// An object of kind `K` as it is kept.
#[derive(Debug)]
pub(crate) struct Kept<K> {
    form: Form,
    kind: PhantomData<fn() -> K>,
}

#[derive(Clone, Debug)]
enum Form {
    Json(Arc<[u8]>),
    Unreadable(Arc<InvalidObject>),
}

// === impl Kept ===

/// Cheap: the text is shared. Whoever holds a lock clones, and reads after it.
impl<K> Clone for Kept<K> {
    fn clone(&self) -> Self {
        Self {
            form: self.form.clone(),
            kind: PhantomData,
        }
    }
}

impl<K: Serialize + DeserializeOwned> Kept<K> {
    /// `None`: the object cannot be written as JSON, which none from an apiserver is.
    pub(crate) fn new(object: &Readable<K>) -> Option<Self> {
        let form = match object {
            Ok(object) => Form::Json(serde_json::to_vec(&**object).ok()?.into()),
            Err(invalid) => Form::Unreadable(Arc::clone(invalid)),
        };
        Some(Self {
            form,
            kind: PhantomData,
        })
    }

    /// The object; `None`: what was written cannot be read again, which would be a fault of its type.
    pub(crate) fn get(&self) -> Option<Readable<K>> {
        match &self.form {
            Form::Json(text) => match serde_json::from_slice(text) {
                Ok(object) => Some(Ok(Arc::new(object))),
                Err(error) => {
                    tracing::error!(%error, "a cached object cannot be read again: please report this");
                    None
                }
            },
            Form::Unreadable(invalid) => Some(Err(Arc::clone(invalid))),
        }
    }

    /// Whether this version can read it.
    pub(crate) const fn is_readable(&self) -> bool {
        match self.form {
            Form::Json(_) => true,
            Form::Unreadable(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use flowctl_api::{ExternalProcessor, Pipeline};
    use k8s_openapi::api::{
        apps::v1::{ControllerRevision, Deployment},
        core::v1::{Pod, Service},
    };
    use serde_json::{Value, json};

    use super::*;

    /// The object after it was kept, as JSON.
    fn after<K: Serialize + DeserializeOwned>(object: &Value) -> (Value, Value) {
        let typed: Arc<K> = Arc::new(serde_json::from_value(object.clone()).expect("fits its type"));
        let kept = Kept::new(&Ok(Arc::clone(&typed))).expect("can be written");
        let back = kept.get().expect("can be read").expect("readable");
        let json = |object: &K| serde_json::to_value(object).expect("JSON");
        (json(&typed), json(&back))
    }

    // What is lost on the way would be written again in every pass, or never be seen.
    #[test]
    fn an_object_comes_back_as_it_was() {
        let meta = json!({"name": "x", "namespace": "ns", "uid": "u", "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {}, "annotations": {"a": ""}});
        let pod = json!({"containers": [{"name": "main", "image": "i", "args": [], "env": [{"name": "A", "value": ""}],
            "resources": {"limits": {"cpu": "0.5"}}, "livenessProbe": {"httpGet": {"port": "http"}}}], "tolerations": []});
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod});
        let with = |rest: Value| {
            let mut object = rest;
            object["metadata"] = meta.clone();
            object
        };
        let deployment = with(json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template,
                "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}}}, "status": {"replicas": 0}}));
        let revision = with(
            json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 3,
            "data": {"template": template, "odd": [null, 1.5, {"a": []}]}}),
        );
        let pod = with(json!({"apiVersion": "v1", "kind": "Pod", "spec": pod, "status": {"phase": "Running"}}));
        let service =
            with(json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 1, "targetPort": 2}]}}));
        let pipeline = with(json!({"apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline",
            "spec": {"source": {"type": "A", "config": {"n": null, "f": 1.0, "e": {}}}, "consumers": [{"type": "B"}]}}));
        let processor = with(
            json!({"apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor",
            "spec": {"role": "Processor", "port": 1, "workload": {"image": "i", "env": [{"name": "A", "value": ""}]}}}),
        );
        for (before, after) in [
            after::<Deployment>(&deployment),
            after::<ControllerRevision>(&revision),
            after::<Pod>(&pod),
            after::<Service>(&service),
            after::<Pipeline>(&pipeline),
            after::<ExternalProcessor>(&processor),
        ] {
            assert_eq!(before, after);
        }
    }
}
