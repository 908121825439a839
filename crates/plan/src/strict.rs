//! Reads an open part of a spec (`volumes`, `podTemplate`) as the Kubernetes type that it must become: an unknown key is
//! an error with a suggestion, because the apiserver would drop it in silence from what we apply.

use flowctl_api::Object;
use flowctl_pipeline::nearest;
use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_ignored::Path;
use serde_json::Value;

/// What is wrong at a place below the value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Path below the value, as in `spec.containers[0].imge`; empty for the value itself.
    pub(crate) path: String,
    pub(crate) message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Key(String),
    Index(usize),
}

/// The typed value as far as it can be read, and everything that is wrong with it: with an unknown key there are both, so
/// that the rest can be judged as well.
pub(crate) fn parse<T: DeserializeOwned + JsonSchema>(object: &Object) -> (Option<T>, Vec<Fault>) {
    let mut value = Value::Object(object.clone());
    flowctl_api::quantity::numbers_to_text(&mut value);
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let typed = serde_path_to_error::Deserializer::new(&value, &mut track);
    let parsed: Result<T, _> = serde_ignored::deserialize(typed, |path| unknown.push(segments(&path)));
    let mut faults: Vec<_> = unknown.iter().map(|path| unknown_key::<T>(path)).collect();
    match parsed {
        Ok(parsed) => (Some(parsed), faults),
        Err(error) => {
            let path = track.path().to_string();
            let path = if path == "." { String::new() } else { path };
            faults.push(Fault {
                path,
                message: error.to_string(),
            });
            (None, faults)
        }
    }
}

fn segments(path: &Path<'_>) -> Vec<Segment> {
    match path {
        Path::Root => Vec::new(),
        Path::Seq { parent, index } => {
            let mut all = segments(parent);
            all.push(Segment::Index(*index));
            all
        }
        Path::Map { parent, key } => {
            let mut all = segments(parent);
            all.push(Segment::Key(key.clone()));
            all
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => segments(parent),
    }
}

fn unknown_key<T: JsonSchema>(path: &[Segment]) -> Fault {
    let (Some(Segment::Key(key)), parents) = (path.last(), &path[..path.len().saturating_sub(1)]) else {
        return Fault {
            path: show(path),
            message: "unknown value".to_owned(),
        };
    };
    let keys = known_keys::<T>(parents);
    let hint = match nearest(key, keys.iter().map(String::as_str)) {
        Some(similar) => format!("; did you mean {similar:?}?"),
        None => "; remove it".to_owned(),
    };
    Fault {
        path: show(path),
        message: format!("unknown key {key:?}{hint}"),
    }
}

/// The keys that the type has at a path, from its schema. Only asked for when a key is wrong.
fn known_keys<T: JsonSchema>(path: &[Segment]) -> Vec<String> {
    let mut generator = SchemaGenerator::default();
    let root = T::json_schema(&mut generator).to_value();
    let definitions = Value::Object(generator.take_definitions(false));
    let mut at = resolve(&root, &definitions);
    for segment in path {
        let next = match segment {
            Segment::Key(key) => at["properties"]
                .get(key)
                .or_else(|| at.get("additionalProperties"))
                .unwrap_or(&Value::Null),
            Segment::Index(_) => &at["items"],
        };
        at = resolve(next, &definitions);
    }
    let properties = at["properties"].as_object();
    properties
        .map(|keys| keys.keys().cloned().collect())
        .unwrap_or_default()
}

/// The schema behind `$ref`, `allOf` and `anyOf` with null.
fn resolve<'a>(schema: &'a Value, definitions: &'a Value) -> &'a Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return &definitions[name];
    }
    for key in ["allOf", "anyOf"] {
        let mut choices = schema[key].as_array().into_iter().flatten();
        if let Some(choice) = choices.find(|choice| choice["type"] != "null") {
            return resolve(choice, definitions);
        }
    }
    schema
}

fn show(path: &[Segment]) -> String {
    path.iter().fold(String::new(), |text, segment| match segment {
        Segment::Key(key) if text.is_empty() => key.clone(),
        Segment::Key(key) => format!("{text}.{key}"),
        Segment::Index(index) => format!("{text}[{index}]"),
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodTemplateSpec, Volume};
    use serde_json::json;

    use super::*;

    fn faults<T: DeserializeOwned + JsonSchema + std::fmt::Debug>(value: Value) -> Vec<(String, String)> {
        let object = value.as_object().unwrap();
        let (_, faults) = parse::<T>(object);
        faults.into_iter().map(|fault| (fault.path, fault.message)).collect()
    }

    /// A mistyped key in a pod template would be dropped, and the user would believe that it took effect.
    #[test]
    fn a_mistyped_key_is_named_with_what_was_meant() {
        assert_eq!(
            faults::<PodTemplateSpec>(
                json!({"spec": {"containers": [{"name": "main", "readinesProbe": {}}], "nodeselector": {}}})
            ),
            [
                (
                    "spec.containers[0].readinesProbe".to_owned(),
                    "unknown key \"readinesProbe\"; did you mean \"readinessProbe\"?".to_owned()
                ),
                (
                    "spec.nodeselector".to_owned(),
                    "unknown key \"nodeselector\"; did you mean \"nodeSelector\"?".to_owned()
                ),
            ]
        );
        assert_eq!(
            faults::<Volume>(json!({"name": "x", "persistentVolumeClaim": {"claim": "y"}})),
            [(
                "persistentVolumeClaim.claim".to_owned(),
                "unknown key \"claim\"; did you mean \"claimName\"?".to_owned()
            )]
        );
    }

    /// A value of the wrong type would come back as a server's message about a Deployment that the user never wrote.
    #[test]
    fn a_wrong_type_is_named_by_its_path() {
        let found = faults::<PodTemplateSpec>(json!({"spec": {"containers": [{"name": "main", "tty": "yes"}]}}));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "spec.containers[0].tty");
    }

    /// What is right would be refused.
    #[test]
    fn a_right_template_is_read() {
        let value = json!({"metadata": {"labels": {"team": "a"}}, "spec": {"containers": [{"name": "main"}], "tolerations": [{"operator": "Exists"}]}});
        let (read, faults) = parse::<PodTemplateSpec>(value.as_object().unwrap());
        assert!(read.is_some() && faults.is_empty(), "{faults:?}");
    }
}
