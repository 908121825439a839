//! Bodies of children: the metadata that each carries, and the rule that nothing empty is sent. An empty list or map in a
//! server-side apply claims a field that nobody wants, and takes two writes to be rid of again.

use std::collections::BTreeMap;

use flowctl_api::{GROUP, VERSION, labels};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{Child, ChildKind, ChildRef, digest};

/// Keys whose empty map means something: a choice without options, or a selector of everything.
const MEANINGFUL_WHEN_EMPTY: [&str; 4] = ["emptyDir", "labelSelector", "namespaceSelector", "selector"];

/// Longest value of a label.
const MAX_LABEL: usize = 63;

/// Which kind an owner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerKind {
    Pipeline,
    ExternalProcessor,
}

/// The object that children belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) kind: OwnerKind,
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// `None` for an object that no apiserver has seen: its children carry no owner reference.
    pub(crate) uid: Option<String>,
}

// === impl OwnerKind ===

impl OwnerKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            OwnerKind::Pipeline => "Pipeline",
            OwnerKind::ExternalProcessor => "ExternalProcessor",
        }
    }

    const fn component(self) -> &'static str {
        match self {
            OwnerKind::Pipeline => "pipeline",
            OwnerKind::ExternalProcessor => "processor",
        }
    }
}

// === impl Owner ===

impl Owner {
    /// `<namespace>.<name>`: how the object is called where there are no namespaces.
    pub(crate) fn dotted(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }

    /// The two labels that select the owner's pods; never changed, because a Deployment's selector is immutable.
    pub(crate) fn selector(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (labels::KIND.to_owned(), self.kind.as_str().to_owned()),
            (labels::NAME.to_owned(), self.name.clone()),
        ])
    }

    /// The labels of every child.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        let mut all = self.selector();
        all.extend([
            (labels::APP_NAME.to_owned(), self.name.clone()),
            (labels::APP_INSTANCE.to_owned(), self.instance()),
            (labels::APP_COMPONENT.to_owned(), self.kind.component().to_owned()),
            (labels::APP_MANAGED_BY.to_owned(), labels::MANAGER.to_owned()),
        ]);
        all
    }

    /// The labels of what belongs to one revision.
    pub(crate) fn revision_labels(&self, hash: &str) -> BTreeMap<String, String> {
        let mut all = self.labels();
        all.insert(labels::REVISION.to_owned(), hash.to_owned());
        all
    }

    /// `<namespace>.<name>`, or, where that is too long for a label, the name and a hash.
    fn instance(&self) -> String {
        let dotted = self.dotted();
        if dotted.len() <= MAX_LABEL {
            dotted
        } else {
            format!("{}-{}", self.name, digest::hash10(&dotted))
        }
    }

    /// A child: `content` holds everything beside apiVersion, kind and metadata.
    pub(crate) fn child(
        &self,
        kind: ChildKind,
        name: String,
        labels: BTreeMap<String, String>,
        content: Map<String, Value>,
    ) -> Child {
        let mut metadata = json!({"name": name, "namespace": self.namespace, "labels": labels});
        if let (Some(uid), Some(metadata)) = (&self.uid, metadata.as_object_mut()) {
            let owner = json!({
                "apiVersion": format!("{GROUP}/{VERSION}"),
                "kind": self.kind.as_str(),
                "name": self.name,
                "uid": uid,
                "controller": true,
            });
            metadata.insert("ownerReferences".to_owned(), Value::Array(vec![owner]));
        }
        let mut body = Map::new();
        body.insert("apiVersion".to_owned(), Value::from(kind.api_version()));
        body.insert("kind".to_owned(), Value::from(kind.as_str()));
        body.insert("metadata".to_owned(), metadata);
        body.extend(content);
        Child {
            id: ChildRef { kind, name },
            body: without_empties(Value::Object(body)),
        }
    }
}

/// A value of ours as JSON. Our types are maps with text keys and plain numbers, which always have a JSON form.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// The value without nulls, empty lists and empty maps, except the maps that mean something.
pub(crate) fn without_empties(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter_map(|(key, inner)| {
                let inner = without_empties(inner);
                let kept = match &inner {
                    Value::Null => false,
                    Value::Array(items) => !items.is_empty(),
                    Value::Object(map) => !map.is_empty() || MEANINGFUL_WHEN_EMPTY.contains(&key.as_str()),
                    Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
                };
                kept.then_some((key, inner))
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(without_empties).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}
