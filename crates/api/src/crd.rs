//! The two CustomResourceDefinitions as they are installed: the derived ones, without what an apiserver does not know
//! or need (formats, `nullable`, the prose of embedded Kubernetes types), so that each stays small.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{ExternalProcessor, Pipeline};

/// Properties whose schema comes from Kubernetes: their prose is in its own documentation.
const EMBEDDED: [&str; 5] = ["conditions", "env", "envFrom", "resources", "volumeMounts"];
/// Formats that an apiserver knows; it warns about any other.
const FORMATS: [&str; 7] = ["int32", "int64", "float", "double", "date-time", "date", "byte"];

/// Both definitions, in the order in which they are documented.
///
/// # Errors
///
/// When a derived definition does not survive the trip through JSON, which a test excludes.
pub fn all() -> Result<[CustomResourceDefinition; 2], serde_json::Error> {
    Ok([tidy(Pipeline::crd())?, tidy(ExternalProcessor::crd())?])
}

fn tidy(crd: CustomResourceDefinition) -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut value = serde_json::to_value(crd)?;
    if let Some(versions) = value.pointer_mut("/spec/versions").and_then(Value::as_array_mut) {
        for version in versions {
            if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
                tidy_schema(schema, Prose::Ours);
            }
        }
    }
    serde_json::from_value(value)
}

#[derive(Clone, Copy, PartialEq)]
enum Prose {
    Ours,
    Theirs,
}

fn tidy_schema(schema: &mut Value, prose: Prose) {
    let Some(object) = schema.as_object_mut() else { return };
    object.shift_remove("nullable");
    // A default in the schema is written into every stored object and outlives the operator that chose it. The one
    // exception: a scale subresource without a value answers 500 to an autoscaler.
    // A zero is Rust's own, in a status.
    let default = object.get("default");
    if prose == Prose::Theirs || default.is_some_and(|default| default.as_i64().is_none_or(|number| number == 0)) {
        object.shift_remove("default");
    }
    if prose == Prose::Theirs {
        object.shift_remove("description");
    }
    let unknown = object
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|format| !FORMATS.contains(&format));
    if unknown {
        object.shift_remove("format");
    }
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, property) in properties {
            let embedded = EMBEDDED.contains(&name.as_str());
            // The embedded property keeps its own first line; what is below it is Kubernetes' prose.
            let own = property.get("description").cloned();
            tidy_schema(property, if embedded { Prose::Theirs } else { prose });
            if let (true, Prose::Ours, Some(own), Some(property)) = (embedded, prose, own, property.as_object_mut()) {
                property.insert("description".into(), own);
            }
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            tidy_schema(inner, prose);
        }
    }
}
