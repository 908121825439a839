//! Hashes in names: SHA-256 over canonical JSON. Whatever goes in must stay the same for ever, because another hash is
//! another revision, and another revision is a restart.

use std::fmt::Write;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The first ten hex digits of the SHA-256 of a text.
pub(crate) fn hash10(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .take(5)
        .fold(String::new(), |mut hex, byte| {
            // Writing into a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// The value with the keys of every map in order: the same content gives the same text, however it was written down.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            entries
                .into_iter()
                .map(|(key, inner)| (key.clone(), sorted(inner)))
                .collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
