//! Quantities that were written as numbers: `cpu: 2` is as good as `cpu: "2"` to an apiserver, and stays a number in a
//! stored object of ours. The Kubernetes types read text only, so numbers become text before they are read.

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

/// Fields of Kubernetes types that are maps from free names to quantities.
pub const MAPS: [&str; 3] = ["limits", "overhead", "requests"];
/// Fields of Kubernetes types that are one quantity.
pub const FIELDS: [&str; 2] = ["divisor", "sizeLimit"];

/// Turns every number into text where a Kubernetes type has a quantity.
pub fn numbers_to_text(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                match field {
                    Value::Object(quantities) if MAPS.contains(&key.as_str()) => {
                        quantities.values_mut().for_each(spell)
                    }
                    field if FIELDS.contains(&key.as_str()) => spell(field),
                    field => numbers_to_text(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(numbers_to_text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Reads `resources`.
pub(crate) fn resources<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ResourceRequirements>, D::Error> {
    let Some(mut value) = Option::<Value>::deserialize(from)? else {
        return Ok(None);
    };
    numbers_to_text(&mut value);
    serde_json::from_value(value).map(Some).map_err(D::Error::custom)
}

/// Reads `env`, in which a `divisor` is a quantity.
pub(crate) fn env<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<EnvVar>, D::Error> {
    let mut value = Value::deserialize(from)?;
    numbers_to_text(&mut value);
    serde_json::from_value(value).map_err(D::Error::custom)
}

fn spell(value: &mut Value) {
    if let Value::Number(number) = value {
        *value = Value::String(number.to_string());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::ExternalProcessor;

    // Almost every manifest says `cpu: 2` somewhere; an object that cannot be read is an object that nobody runs.
    #[test]
    fn quantities_may_be_numbers() {
        let object = json!({
            "apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor", "metadata": {"name": "ttp"},
            "spec": {"role": "Processor", "port": 1, "workload": {
                "image": "ttp:1",
                "env": [{"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": 1}}}],
                "resources": {"limits": {"cpu": 2, "memory": "1Gi"}, "requests": {"cpu": "500m"}},
            }},
        });
        let read: ExternalProcessor = serde_json::from_value(object).expect("an object");
        let container = read.spec.workload.expect("a workload").container;
        let limits = container
            .resources
            .and_then(|resources| resources.limits)
            .expect("limits");
        assert_eq!(limits["cpu"].0, "2");
        assert_eq!(limits["memory"].0, "1Gi");
        let divisor = container.env[0]
            .value_from
            .as_ref()
            .and_then(|from| from.resource_field_ref.as_ref()?.divisor.clone());
        assert_eq!(divisor.map(|divisor| divisor.0).as_deref(), Some("1"));
    }
}
