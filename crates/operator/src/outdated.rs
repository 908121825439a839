//! Whether the definitions that the apiserver serves know every field that this version reads and writes. An apiserver
//! drops what its definition does not know, and says nothing to anybody: a setting would have no effect, and a status would lack
//! what was written. Read from the published OpenAPI, which needs no permission beyond what every client has.

use std::collections::BTreeMap;

use flowctl_api::{GROUP, VERSION};
use http::Request;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use serde_json::Value;

use crate::{
    client::READ,
    subject::SubjectKind,
    write::{Error, limited},
};

/// What this version needs.
pub(crate) struct Needed([(SubjectKind, Value); 2]);

/// The path of the first field that each kind lacks as it is served; without those that lack nothing, or are not published.
pub(crate) type Lacking = BTreeMap<SubjectKind, String>;

// === impl Needed ===

impl Needed {
    /// By the definitions that this operator was built with.
    ///
    /// # Errors
    ///
    /// When they are not JSON, which a test excludes.
    pub(crate) fn new() -> Result<Self, serde_json::Error> {
        let [pipelines, processors] = flowctl_api::crd::all()?;
        Ok(Self([
            (SubjectKind::Pipeline, schema(pipelines)?),
            (SubjectKind::ExternalProcessor, schema(processors)?),
        ]))
    }

    /// Asks the apiserver. Nothing is told of a kind that it does not publish, or not yet.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub(crate) async fn lacking(&self, client: &Client) -> Result<Lacking, Error> {
        let path = format!("/openapi/v3/apis/{GROUP}/{VERSION}");
        let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        let published: Value = match limited(READ, client.request(request)).await {
            Ok(published) => published,
            Err(Error::Status(status)) if status.code == 404 => return Ok(Lacking::new()),
            Err(error) => return Err(error),
        };
        Ok(self.compared(&published))
    }

    fn compared(&self, published: &Value) -> Lacking {
        let schemas = published.pointer("/components/schemas").and_then(Value::as_object);
        let of = |kind: SubjectKind| {
            let mut all = schemas.into_iter().flatten().map(|(_, schema)| schema);
            all.find(|schema| is_of(schema, kind))
        };
        let all = self.0.iter();
        all.filter_map(|(kind, needed)| Some((*kind, lacks(needed, of(*kind)?)?)))
            .collect()
    }
}

/// The schema of the one version, without the metadata, which is not ours.
fn schema(definition: CustomResourceDefinition) -> Result<Value, serde_json::Error> {
    let version = definition.spec.versions.into_iter().next();
    let mut schema = serde_json::to_value(version.and_then(|version| version.schema?.open_api_v3_schema))?;
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.retain(|name, _| matches!(name.as_str(), "spec" | "status"));
    }
    Ok(schema)
}

fn is_of(schema: &Value, kind: SubjectKind) -> bool {
    let names = schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
    names.into_iter().flatten().any(|name| {
        let is = |key: &str, value: &str| name.get(key).and_then(Value::as_str) == Some(value);
        is("group", GROUP) && is("version", VERSION) && is("kind", kind.as_str())
    })
}

/// The path of the first field that is needed and not served.
fn lacks(needed: &Value, served: &Value) -> Option<String> {
    let keeps_all = |schema: &Value| schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    let fields = needed.get("properties").and_then(Value::as_object);
    for (name, field) in fields.into_iter().flatten() {
        match served.get("properties").and_then(|fields| fields.get(name)) {
            Some(served) => {
                if let Some(path) = lacks(field, served) {
                    return Some(format!(".{name}{path}"));
                }
            }
            None if keeps_all(served) => {}
            None => return Some(format!(".{name}")),
        }
    }
    let inner = |key: &str, sign: &str| {
        let path = lacks(needed.get(key)?, served.get(key)?)?;
        Some(format!("{sign}{path}"))
    };
    inner("items", "[]").or_else(|| inner("additionalProperties", ".*"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As an apiserver publishes the definitions, in parts.
    fn published() -> Value {
        let needed = Needed::new().expect("JSON");
        let schemas = needed.0.iter().map(|(kind, schema)| {
            let mut schema = schema.clone();
            schema["properties"]["metadata"] = json!({"allOf": [{"$ref": "#/components/schemas/ObjectMeta"}]});
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": GROUP, "version": VERSION, "kind": kind.as_str()}]);
            (format!("dev.flowctl.v1alpha1.{}", kind.as_str()), schema)
        });
        let schemas: serde_json::Map<String, Value> = schemas.collect();
        json!({"components": {"schemas": schemas}})
    }

    fn told(published: &Value) -> Vec<(&'static str, String)> {
        let needed = Needed::new().expect("JSON");
        let lacking = needed.compared(published).into_iter();
        lacking.map(|(kind, path)| (kind.as_str(), path)).collect()
    }

    // A field that the apiserver drops is missed by nobody until somebody needs it.
    #[test]
    fn the_first_field_that_is_not_served_is_named() {
        assert_eq!(told(&published()), []);
        let base = "/components/schemas/dev.flowctl.v1alpha1.Pipeline";
        for (at, field, path) in [
            ("/properties", "status", ".status"),
            ("/properties/spec/properties", "consumers", ".spec.consumers"),
            (
                "/properties/spec/properties/consumers/items/properties",
                "config",
                ".spec.consumers[].config",
            ),
            (
                "/properties/status/properties/heartbeat/properties/services/items/properties",
                "since",
                ".status.heartbeat.services[].since",
            ),
        ] {
            let mut older = published();
            let fields = older.pointer_mut(&format!("{base}{at}")).and_then(Value::as_object_mut);
            assert!(fields.expect("fields").remove(field).is_some(), "{path}");
            assert_eq!(told(&older), [("Pipeline", path.to_owned())]);
        }
    }

    // Newer definitions are not a mistake: they are upgraded before the operator.
    #[test]
    fn what_is_newer_or_not_published_is_no_fault() {
        let mut newer = published();
        let at = "/components/schemas/dev.flowctl.v1alpha1.Pipeline/properties/spec/properties";
        newer.pointer_mut(at).expect("fields")["later"] = json!({"type": "string"});
        assert_eq!(told(&newer), []);
        let mut all = newer.clone();
        let schemas = all.pointer_mut("/components/schemas").and_then(Value::as_object_mut);
        schemas.expect("schemas").remove("dev.flowctl.v1alpha1.Pipeline");
        assert_eq!(told(&all), []);
        assert_eq!(told(&json!({})), []);
        // What is kept as it is needs no definition.
        let free = json!({"x-kubernetes-preserve-unknown-fields": true});
        assert_eq!(lacks(&json!({"properties": {"a": {}}}), &free), None);
    }
}
