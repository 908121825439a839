//! The definitions as an apiserver takes them: structural, small, and with a bound on everything that users write.

use flowctl_api::{ConditionType, crd};
use serde_json::Value;

/// What fits beside `last-applied-configuration` annotations and into a Helm release without anybody thinking of it.
const LARGEST: usize = 30_000;
const FORMATS: [&str; 7] = ["int32", "int64", "float", "double", "date-time", "date", "byte"];
/// Kubernetes' own types: their bounds are the apiserver's business when the child is applied.
const EMBEDDED: [&str; 5] = ["conditions", "env", "envFrom", "resources", "volumeMounts"];

fn definitions() -> Vec<Value> {
    let all = crd::all().expect("definitions");
    all.iter()
        .map(|definition| serde_json::to_value(definition).expect("JSON"))
        .collect()
}

fn schema(definition: &Value) -> &Value {
    definition
        .pointer("/spec/versions/0/schema/openAPIV3Schema")
        .expect("a schema")
}

/// Calls `visit` for every schema in the tree, with its path.
fn walk<'v>(schema: &'v Value, path: &str, visit: &mut dyn FnMut(&str, &'v Value)) {
    visit(path, schema);
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    for (key, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = schema.get(key).filter(|inner| inner.is_object()) {
            walk(inner, &format!("{path}{suffix}"), visit);
        }
    }
}

fn each(mut visit: impl FnMut(&str, &Value)) {
    for definition in definitions() {
        let name = definition["metadata"]["name"].as_str().expect("a name").to_owned();
        walk(schema(&definition), &name, &mut |path, schema| visit(path, schema));
    }
}

// Beyond 256 KiB `kubectl apply` refuses it; long before that a Helm release with several of them does.
#[test]
fn each_definition_is_small() {
    for definition in definitions() {
        let size = definition.to_string().len();
        assert!(size < LARGEST, "{} has {size} bytes", definition["metadata"]["name"]);
    }
}

// An apiserver refuses a schema that is not structural, or drops unknown parts of it without a word.
#[test]
fn each_schema_is_structural() {
    each(|path, schema| {
        let fields = schema.as_object().unwrap_or_else(|| panic!("{path} is no object"));
        for key in fields.keys() {
            assert!(
                !matches!(
                    key.as_str(),
                    "$ref" | "nullable" | "oneOf" | "allOf" | "not" | "definitions" | "$defs"
                ),
                "{path} has {key}"
            );
        }
        let int_or_string = fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
        assert!(int_or_string || !fields.contains_key("anyOf"), "{path} has anyOf");
        let open = fields.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
        assert!(
            fields.contains_key("type") || int_or_string || open,
            "{path} has no type"
        );
        assert!(
            !(fields.contains_key("properties") && fields.contains_key("additionalProperties")),
            "{path} has both kinds of properties"
        );
        if let Some(format) = fields.get("format").and_then(Value::as_str) {
            assert!(FORMATS.contains(&format), "{path} has the unknown format {format}");
        }
        if fields.get("type").and_then(Value::as_str) == Some("array") {
            assert!(fields.contains_key("items"), "{path} has no items");
        }
    });
}

// A default in the schema is written into stored objects and outlives the operator that chose it.
#[test]
fn replicas_has_the_only_default() {
    let mut defaults = Vec::new();
    each(|path, schema| {
        if let Some(default) = schema.get("default") {
            defaults.push(format!("{path} = {default}"));
        }
    });
    assert_eq!(defaults, ["externalprocessors.flowctl.dev.spec.workload.replicas = 1"]);
}

// Without bounds one object can fill the apiserver's memory, and the estimated cost of CEL rules has no end.
#[test]
fn everything_that_users_write_is_bounded() {
    let mut unbounded = Vec::new();
    each(|path, schema| {
        let embedded = path
            .split('.')
            .any(|part| EMBEDDED.contains(&part.trim_end_matches(['[', ']', '{', '}'])));
        if !path.contains(".spec") || embedded {
            return;
        }
        let missing = match schema.get("type").and_then(Value::as_str) {
            Some("string") if schema.get("enum").is_none() && schema.get("maxLength").is_none() => "maxLength",
            Some("array") if schema.get("maxItems").is_none() => "maxItems",
            Some("integer") if schema.get("maximum").is_none() || schema.get("minimum").is_none() => {
                "minimum and maximum"
            }
            _ => return,
        };
        unbounded.push(format!("{path}: {missing}"));
    });
    assert!(unbounded.is_empty(), "{unbounded:#?}");
    each(|path, schema| {
        let list = ["env", "envFrom", "volumeMounts"]
            .iter()
            .any(|name| path.ends_with(&format!(".{name}")));
        assert!(
            !list || schema["type"] != "array" || schema.get("maxItems").is_some(),
            "{path}"
        );
    });
}

// The rule about `endpoint` beside processorRef needs a typed property, which must not refuse what built-in steps dial.
#[test]
fn a_built_in_step_may_have_a_long_endpoint() {
    let mut bounds = Vec::new();
    each(|path, schema| {
        if path.ends_with(".config.endpoint") {
            bounds.push((schema["type"].clone(), schema["maxLength"].clone()));
        }
    });
    assert_eq!(bounds, vec![(Value::from("string"), Value::from(2048)); 3]);
}

// Server-side apply refuses a list whose keys can be missing.
#[test]
fn keys_of_list_maps_are_required() {
    each(|path, schema| {
        let Some(keys) = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array) else {
            return;
        };
        assert_eq!(schema["x-kubernetes-list-type"], "map", "{path}");
        let items = &schema["items"];
        for key in keys {
            let required = items["required"]
                .as_array()
                .is_some_and(|required| required.contains(key));
            let default = key
                .as_str()
                .is_some_and(|key| items["properties"][key].get("default").is_some());
            assert!(required || default, "{path}: {key} may be missing");
        }
    });
}

#[test]
fn columns_show_fields_that_exist() {
    for definition in definitions() {
        let columns = definition
            .pointer("/spec/versions/0/additionalPrinterColumns")
            .and_then(Value::as_array);
        for column in columns.expect("columns") {
            let path = column["jsonPath"].as_str().expect("a path");
            if let Some(rest) = path.strip_prefix(".status.conditions[?(@.type==\"") {
                let kind = rest.split('"').next().unwrap_or_default();
                assert!(ConditionType::ALL.iter().any(|known| known.as_str() == kind), "{path}");
                continue;
            }
            if path.starts_with(".metadata") {
                continue;
            }
            let found = path
                .trim_start_matches('.')
                .split('.')
                .try_fold(schema(&definition), |schema, part| {
                    schema.get("properties").and_then(|properties| properties.get(part))
                });
            assert!(found.is_some(), "{path} is nowhere in the schema");
        }
    }
}

#[test]
fn names_and_subresources_are_what_the_documentation_says() {
    let [pipelines, processors] = crd::all().expect("definitions");
    assert_eq!(pipelines.spec.names.short_names, Some(vec!["fpl".to_owned()]));
    assert_eq!(processors.spec.names.short_names, Some(vec!["xproc".to_owned()]));
    for definition in [&pipelines, &processors] {
        assert_eq!(definition.spec.names.categories, Some(vec!["flowctl".to_owned()]));
        assert_eq!(definition.spec.scope, "Namespaced");
        let subresources = definition.spec.versions[0].subresources.as_ref().expect("subresources");
        assert!(subresources.status.is_some());
    }
    let scale = processors.spec.versions[0]
        .subresources
        .as_ref()
        .and_then(|sub| sub.scale.as_ref())
        .expect("scale");
    assert_eq!(scale.spec_replicas_path, ".spec.workload.replicas");
    assert_eq!(scale.label_selector_path.as_deref(), Some(".status.selector"));
}

// Numbers are refused by the schema itself, before any rule runs.
#[test]
fn numbers_have_the_documented_range() {
    let ranges = [
        (1, "port", (1.0, 65535.0)),
        (1, "workload/properties/replicas", (0.0, 1000.0)),
        (1, "heartbeat/properties/intervalSeconds", (1.0, 60.0)),
        (1, "extraPorts/items/properties/port", (1.0, 65535.0)),
        (0, "batch/properties/backoffLimit", (0.0, 100.0)),
    ];
    let definitions = definitions();
    for (definition, field, (minimum, maximum)) in ranges {
        let field = schema(&definitions[definition])
            .pointer(&format!("/properties/spec/properties/{field}"))
            .unwrap_or_else(|| panic!("{field} is not there"));
        assert_eq!(
            (field["minimum"].as_f64(), field["maximum"].as_f64()),
            (Some(minimum), Some(maximum)),
            "{field}"
        );
    }
}
