//! Values that ask for the API's default by being empty or zero. The apiserver stores the default in their place, so a
//! child that carries them would never be found as it was written; they are left out instead, which means the same.

use serde_json::Value;

/// Texts that are defaulted when they are empty, with the object that they stand in (`None`: any). Source: the defaults of
/// k8s.io/kubernetes `pkg/apis/core/v1/defaults.go`. Other texts are not touched: an empty `claimName` is a mistake.
const TEXTS: [(Option<&str>, &str); 15] = [
    (None, "dnsPolicy"),
    (None, "imagePullPolicy"),
    (None, "protocol"),
    (None, "schedulerName"),
    (None, "terminationMessagePath"),
    (None, "terminationMessagePolicy"),
    (Some("fieldRef"), "apiVersion"),
    (Some("httpGet"), "path"),
    (Some("httpGet"), "scheme"),
    (Some("iscsi"), "iscsiInterface"),
    (Some("rbd"), "keyring"),
    (Some("rbd"), "pool"),
    (Some("rbd"), "user"),
    (Some("scaleIO"), "fsType"),
    (Some("scaleIO"), "storageMode"),
];

/// Numbers of probes that are defaulted when they are zero.
const NUMBERS: [&str; 4] = [
    "failureThreshold",
    "periodSeconds",
    "successThreshold",
    "timeoutSeconds",
];
/// Where they stand.
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

/// A pod template without them.
pub(super) fn unsaid(template: Value) -> Value {
    below(None, template)
}

fn below(parent: Option<&str>, value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(key, value)| !is_unsaid(parent, key, value))
                .map(|(key, value)| {
                    let value = below(Some(&key), value);
                    (key, value)
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(|item| below(parent, item)).collect()),
        other => other,
    }
}

fn is_unsaid(parent: Option<&str>, key: &str, value: &Value) -> bool {
    // Free names.
    if parent.is_some_and(|parent| crate::compare::STRING_MAPS.contains(&parent)) {
        return false;
    }
    match value {
        Value::String(text) => {
            let mut texts = TEXTS.iter();
            text.is_empty() && texts.any(|(within, name)| *name == key && (within.is_none() || *within == parent))
        }
        Value::Number(number) => {
            let probe = parent.is_some_and(|parent| PROBES.contains(&parent));
            probe && NUMBERS.contains(&key) && number.as_f64() == Some(0.0)
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    }
}
