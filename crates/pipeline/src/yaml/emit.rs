//! Values to YAML text. What serde-saphyr quotes suits every reader we know of, with one exception that is made here.

use serde::ser::{Serialize, Serializer};
use serde_json::Value;
use serde_saphyr::DoubleQuoted;

/// A value on its way out.
struct Written<'a>(&'a Value);

/// Writes one YAML document, in block style, ending in a line break.
pub(crate) fn emit(value: &Value) -> String {
    let options = serde_saphyr::ser_options! {
        compact_list_indent: true,
        prefer_block_scalars: true,
    };
    // Writing JSON values into a String has no way to fail; should one appear, JSON is YAML too.
    serde_saphyr::to_string_with_options(&Written(value), options).unwrap_or_else(|_| value.to_string())
}

/// Whether a text may stand as a block literal (`|`). Go's yaml.v3 takes a tab at the beginning of the first line that is
/// not empty for broken indentation, so only texts whose first line begins with ink are written that way.
fn may_be_block(text: &str) -> bool {
    text.chars().next().is_some_and(|first| !first.is_whitespace())
}

// === impl Written ===

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) if text.contains('\n') && !may_be_block(text) => {
                DoubleQuoted(text).serialize(serializer)
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(Written)),
            Value::Object(map) => serializer.collect_map(map.iter().map(|(key, value)| (key, Written(value)))),
            other => other.serialize(serializer),
        }
    }
}
