//! Whether a live child is what we want: the hash of what we wanted when it was last written, and then containment of
//! every field that we set, read as the apiserver reads them (merge keys, quantities, dropped zero values). Fields that
//! we do not set are nobody's business here. It must stay cheap: it runs for every child in every pass.

use std::{cmp::Ordering, fmt};

use flowctl_api::{
    labels::APPLIED,
    quantity::{FIELDS, MAPS},
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::quantity::{self, Precision};
use crate::{Child, digest, list};

#[cfg(test)]
mod tests;

/// The first place in which a live child is not what we want.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Path of the field, as in `spec.template.spec.containers[main].image`.
    pub path: String,
    /// What we want there.
    pub wanted: Value,
    /// What is there; `None`: nothing.
    pub live: Option<Value>,
}

/// Longest text of a value in a [`Difference`]'s message, in characters.
const SHOWN: usize = 80;

/// Maps from free names to strings: nothing in them is defaulted or dropped.
pub(crate) const STRING_MAPS: [&str; 7] = [
    "annotations",
    "binaryData",
    "data",
    "labels",
    "matchLabels",
    "nodeSelector",
    "stringData",
];

/// Flags and numbers that the apiserver keeps by value, so that `false` and 0 are not stored. All others are pointers
/// there: `automountServiceAccountToken: false` is not the same as nothing.
const ZERO_IS_ABSENT: [&str; 15] = [
    "healthCheckNodePort",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "initialDelaySeconds",
    "minReadySeconds",
    "nodePort",
    "partition",
    "paused",
    "publishNotReadyAddresses",
    "readOnly",
    "stdin",
    "stdinOnce",
    "tty",
];

/// The one string whose emptiness is kept: it asks for no storage class.
const EMPTY_IS_KEPT: &str = "storageClassName";

/// Whether the live child must be written; `wanted` must be [`Child::sealed`].
///
/// `None` means that the live child was last written with exactly this body, and still contains all of it.
pub fn differs(wanted: &Child, live: &Value) -> Option<Difference> {
    let seal = applied(&wanted.body);
    if seal.is_none() || seal != applied(live) {
        return Some(Difference {
            path: format!("metadata.annotations[{APPLIED}]"),
            wanted: seal.cloned().unwrap_or(Value::Null),
            live: applied(live).cloned(),
        });
    }
    // A list answer leaves the type of its items out, and the look-up already established it.
    let fields = wanted.body.as_object()?;
    fields
        .iter()
        .filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind"))
        .find_map(|(key, value)| {
            let mut path = Path(vec![key.clone()]);
            field(key, value, live.get(key), &mut path)
        })
}

fn applied(body: &Value) -> Option<&Value> {
    body.get("metadata")?.get("annotations")?.get(APPLIED)
}

/// Where the walk stands; keys and list elements.
struct Path(Vec<String>);

/// Compares one named field.
fn field(key: &str, wanted: &Value, live: Option<&Value>, path: &mut Path) -> Option<Difference> {
    let Some(live) = live.filter(|live| !live.is_null()) else {
        return (!absent_is_same(key, wanted)).then(|| path.difference(wanted, None));
    };
    match (wanted, live) {
        (Value::Null, _) => None,
        (Value::Object(wanted), Value::Object(live)) if STRING_MAPS.contains(&key) => strings(wanted, live, path),
        (Value::Object(wanted), Value::Object(live)) if MAPS.contains(&key) => {
            wanted.iter().find_map(|(name, wanted)| {
                path.within(name.clone(), |path| match live.get(name) {
                    Some(live) if same_quantity(wanted, live, Precision::Milli) => None,
                    live => Some(path.difference(wanted, live)),
                })
            })
        }
        (Value::Object(wanted), Value::Object(live)) => object(wanted, live, path),
        (Value::Array(wanted), Value::Array(live)) => match list::keys(key) {
            Some(keys) => list_map(keys, wanted, live, path),
            None if key == "finalizers" => wanted
                .iter()
                .find(|wanted| !live.contains(wanted))
                .map(|wanted| path.difference(wanted, None)),
            None => atomic(wanted, live, path),
        },
        _ if FIELDS.contains(&key) && same_quantity(wanted, live, Precision::Nano) => None,
        _ => scalar(wanted, live, path),
    }
}

fn object(wanted: &Map<String, Value>, live: &Map<String, Value>, path: &mut Path) -> Option<Difference> {
    wanted
        .iter()
        .find_map(|(key, wanted)| path.within(key.clone(), |path| field(key, wanted, live.get(key), path)))
}

fn strings(wanted: &Map<String, Value>, live: &Map<String, Value>, path: &mut Path) -> Option<Difference> {
    wanted.iter().find_map(|(key, wanted)| {
        path.within(key.clone(), |path| match live.get(key) {
            Some(live) => free(wanted, live, path),
            None => Some(path.difference(wanted, None)),
        })
    })
}

/// Below a free name there is a string, or, in a ControllerRevision's `data`, what we stored: both come back verbatim.
fn free(wanted: &Value, live: &Value, path: &Path) -> Option<Difference> {
    (!same_verbatim(wanted, live)).then(|| path.difference(wanted, Some(live)))
}

fn list_map(keys: &[&str], wanted: &[Value], live: &[Value], path: &mut Path) -> Option<Difference> {
    wanted.iter().find_map(|wanted| {
        let label = list::label(keys, wanted);
        let found = live.iter().find(|live| list::same_key(keys, wanted, live));
        path.within(label, |path| match found {
            Some(live) => element(wanted, live, path),
            None => Some(path.difference(wanted, None)),
        })
    })
}

fn atomic(wanted: &[Value], live: &[Value], path: &mut Path) -> Option<Difference> {
    if wanted.len() != live.len() {
        return Some(path.difference(&Value::Array(wanted.to_vec()), Some(&Value::Array(live.to_vec()))));
    }
    wanted
        .iter()
        .zip(live)
        .enumerate()
        .find_map(|(index, (wanted, live))| path.within(format!("[{index}]"), |path| element(wanted, live, path)))
}

/// Compares one element of a list, in which the apiserver fills in defaults as anywhere else.
fn element(wanted: &Value, live: &Value, path: &mut Path) -> Option<Difference> {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => object(wanted, live, path),
        _ => scalar(wanted, live, path),
    }
}

fn scalar(wanted: &Value, live: &Value, path: &Path) -> Option<Difference> {
    let same = match (wanted, live) {
        (Value::Number(wanted), Value::Number(live)) => wanted == live || wanted.as_f64() == live.as_f64(),
        _ => wanted == live,
    };
    (!same).then(|| path.difference(wanted, Some(live)))
}

/// Whether the apiserver stores this value of this field by leaving it out.
fn absent_is_same(key: &str, wanted: &Value) -> bool {
    match wanted {
        Value::Null => true,
        Value::Bool(value) => !value && ZERO_IS_ABSENT.contains(&key),
        Value::Number(value) => value.as_f64() == Some(0.0) && ZERO_IS_ABSENT.contains(&key),
        Value::String(value) => value.is_empty() && key != EMPTY_IS_KEPT,
        Value::Array(values) => values.is_empty(),
        // `emptyDir: {}` chooses something, so an empty object is not the same as none; an empty free map is.
        Value::Object(fields) => fields.is_empty() && (STRING_MAPS.contains(&key) || MAPS.contains(&key)),
    }
}

fn same_quantity(wanted: &Value, live: &Value, precision: Precision) -> bool {
    fn text(value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }
    match (text(wanted), text(live)) {
        (Some(wanted), Some(live)) => wanted == live || quantity::equal(&wanted, &live, precision),
        _ => false,
    }
}

fn same_verbatim(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Number(wanted), Value::Number(live)) => wanted == live || wanted.as_f64() == live.as_f64(),
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.len() == live.len()
                && wanted
                    .iter()
                    .zip(live)
                    .all(|(wanted, live)| same_verbatim(wanted, live))
        }
        (Value::Object(wanted), Value::Object(live)) => {
            wanted.len() == live.len()
                && wanted
                    .iter()
                    .all(|(key, value)| live.get(key).is_some_and(|live| same_verbatim(value, live)))
        }
        _ => wanted == live,
    }
}

// === impl Child ===

impl Child {
    /// The child with the annotation [`APPLIED`]: the hash of its body. What is applied and compared is always sealed.
    /// Sealing twice changes nothing.
    #[must_use]
    pub fn sealed(&self) -> Child {
        let mut sealed = self.clone();
        unseal(&mut sealed.body);
        let text = digest::sorted(&sealed.body).to_string();
        let hash: String = Sha256::digest(text.as_bytes())
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if let Some(metadata) = object_at(&mut sealed.body, "metadata")
            && let Some(annotations) = metadata
                .entry("annotations")
                .or_insert_with(|| Value::Object(Map::new()))
                .as_object_mut()
        {
            annotations.insert(APPLIED.to_owned(), Value::from(hash));
        }
        sealed
    }
}

/// Takes the annotation away, and the annotations with it when it was the only one.
fn unseal(body: &mut Value) {
    let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else {
        return;
    };
    annotations.shift_remove(APPLIED);
    if annotations.is_empty() {
        metadata.shift_remove("annotations");
    }
}

fn object_at<'v>(body: &'v mut Value, key: &str) -> Option<&'v mut Map<String, Value>> {
    body.as_object_mut()?
        .entry(key)
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
}

// === impl Path ===

impl Path {
    fn within<T>(&mut self, part: String, walk: impl FnOnce(&mut Path) -> T) -> T {
        self.0.push(part);
        let result = walk(self);
        self.0.pop();
        result
    }

    fn difference(&self, wanted: &Value, live: Option<&Value>) -> Difference {
        let mut path = String::new();
        for part in &self.0 {
            let index = part.starts_with('[');
            let plain = part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
            match (index, plain) {
                (true, _) => path.push_str(part),
                (false, true) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(part);
                }
                (false, false) => {
                    path.push('[');
                    path.push_str(part);
                    path.push(']');
                }
            }
        }
        Difference {
            path,
            wanted: wanted.clone(),
            live: live.cloned(),
        }
    }
}

// === impl Difference ===

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {}, wanted {}",
            self.path,
            shown(self.live.as_ref()),
            shown(Some(&self.wanted))
        )
    }
}

fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else { return "absent".to_owned() };
    let text = value.to_string();
    match text
        .char_indices()
        .nth(SHOWN)
        .map(|(end, _)| (end, text.len().cmp(&end)))
    {
        Some((end, Ordering::Greater)) => format!("{}…", &text[..end]),
        _ => text,
    }
}
