//! Lists that are maps to the apiserver: which they are, and what makes the key of an element. Server-side apply answers a
//! list with one key twice with an error of the server, not of the request, so such a list must never be sent.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::compare::STRING_MAPS;

/// Lists that server-side apply merges by key, with the fields that make the key. A list that is not named here is
/// atomic: it has one owner and is compared as a whole.
const LIST_MAPS: [(&str, &[&str]); 16] = [
    ("conditions", &["type"]),
    ("containers", &["name"]),
    ("env", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("hostAliases", &["ip"]),
    ("imagePullSecrets", &["name"]),
    ("initContainers", &["name"]),
    ("ownerReferences", &["uid"]),
    ("ports", &["containerPort", "port", "protocol"]),
    ("resourceClaims", &["name"]),
    ("schedulingGates", &["name"]),
    ("claims", &["name"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("volumeDevices", &["devicePath"]),
    ("volumeMounts", &["mountPath"]),
    ("volumes", &["name"]),
];

/// The keys of the list in a field; `None`: the list is atomic.
pub(crate) fn keys(field: &str) -> Option<&'static [&'static str]> {
    LIST_MAPS.iter().find(|(name, _)| *name == field).map(|(_, keys)| *keys)
}

/// Whether two elements have one key.
pub(crate) fn same_key(keys: &[&str], left: &Value, right: &Value) -> bool {
    keys.iter().all(|key| key_of(key, left) == key_of(key, right))
}

/// Paths of all elements whose key stands before them in their list, each once.
pub(crate) fn duplicates(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(value, "", &mut found);
    found
}

fn walk(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (key, inner) in value.as_object().into_iter().flatten() {
        if STRING_MAPS.contains(&key.as_str()) {
            continue;
        }
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let (Value::Array(elements), Some(keys)) = (inner, keys(key)) else {
            walk(inner, &path, found);
            continue;
        };
        for (index, element) in elements.iter().enumerate() {
            let path = format!("{path}{}", label(keys, element));
            walk(element, &path, found);
            let mut before = elements.iter().take(index);
            if before.any(|other| same_key(keys, other, element)) {
                found.insert(path);
            }
        }
    }
}

/// One part of a list element's key; a port without a protocol is a TCP port.
fn key_of<'v>(key: &str, element: &'v Value) -> Option<&'v Value> {
    static TCP: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| Value::from("TCP"));
    match (key, element.get(key)) {
        ("protocol", None | Some(Value::Null)) => Some(&TCP),
        ("protocol", Some(Value::String(name))) if name.is_empty() => Some(&TCP),
        (_, value) => value,
    }
}

/// An element as a path shows it: `[main]`, `[53/UDP]`.
pub(crate) fn label(keys: &[&str], element: &Value) -> String {
    let parts: Vec<String> = keys
        .iter()
        .filter_map(|key| element.get(key))
        .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
        .collect();
    format!("[{}]", parts.join("/"))
}
