//! A record of a namespace in a form in which two runs of one workload are equal. Masked are uids, versions, times, and
//! names that the cluster or a hash gives; each is replaced by what it belongs to, so that a reference to another object
//! than before is still a difference. Nothing else is left out, but what controllers of Kubernetes own: of ReplicaSets
//! and pods only what they show of a roll-out is kept.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::{history::Record, signature::role};

/// What can be compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// The objects, by kind and name.
    pub objects: BTreeMap<String, Value>,
    /// How many objects of a kind and name there ever were, by uid; without pods.
    pub created: BTreeMap<String, usize>,
    /// How many of them are gone.
    pub deleted: BTreeMap<String, usize>,
    /// How many different pod templates each Deployment ever had.
    pub templates: BTreeMap<String, usize>,
    /// Children whose controller is not there.
    pub orphans: BTreeSet<String>,
}

const APPLIED: &str = "flowctl.dev/applied";
const REVISION: &str = "flowctl.dev/revision";
const TEMPLATE_HASH: &str = "pod-template-hash";
const SET_NUMBER: &str = "deployment.kubernetes.io/revision";

/// The picture of a record of this namespace.
pub fn picture(namespace: &str, record: &Record) -> Picture {
    let tokens = tokens(namespace, record);
    let mut objects = BTreeMap::new();
    for ((kind, name), live) in &record.live {
        let (name, shown) = match kind.as_str() {
            "Pod" => pod(live),
            "ReplicaSet" => (name.clone(), replica_set(live)),
            "Deployment" => (name.clone(), deployment(live)),
            _ => (name.clone(), live.clone()),
        };
        let key = replaced(&format!("{kind} {name}"), &tokens);
        let mut shown = masked(shown, &tokens);
        if let Some(count) = objects.get(&key).and_then(|other: &Value| other["count"].as_u64()) {
            shown["count"] = json!(count + 1);
        }
        objects.insert(key, shown);
    }
    Picture {
        objects,
        created: counted(&record.created),
        deleted: counted(&record.deleted),
        templates: record.templates.iter().fold(BTreeMap::new(), |mut counts, (name, _)| {
            *counts.entry(name.clone()).or_default() += 1;
            counts
        }),
        orphans: orphans(record),
    }
}

/// The first differences between what is and what should be, each in a line.
pub fn differences(wanted: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) -> Vec<String> {
    let mut told = Vec::new();
    for (key, wanted) in wanted {
        match found.get(key) {
            None => told.push(format!("{key} is missing")),
            Some(found) => compare(key, wanted, found, &mut told),
        }
    }
    let surplus = found.keys().filter(|key| !wanted.contains_key(*key));
    told.extend(surplus.map(|key| format!("{key} is too much")));
    told
}

fn compare(path: &str, wanted: &Value, found: &Value, told: &mut Vec<String>) {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            let keys: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
            for key in keys {
                let at = format!("{path}.{key}");
                match (wanted.get(key), found.get(key)) {
                    (Some(wanted), Some(found)) => compare(&at, wanted, found, told),
                    (Some(wanted), None) => told.push(format!("{at}: {wanted} is missing")),
                    (None, Some(found)) => told.push(format!("{at}: {found} is too much")),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            for (index, (wanted, found)) in wanted.iter().zip(found).enumerate() {
                compare(&format!("{path}[{index}]"), wanted, found, told);
            }
        }
        _ if wanted == found => {}
        _ => told.push(format!("{path}: {found} instead of {wanted}")),
    }
}

/// What is replaced in every text, and by what, in this order: longer texts first, so that none is part of another.
fn tokens(namespace: &str, record: &Record) -> Vec<(String, String)> {
    let mut tokens = vec![(namespace.to_owned(), "<namespace>".to_owned())];
    let mut uids = Vec::new();
    for ((kind, name), live) in &record.live {
        let text = |path: &str| live.pointer(path).and_then(Value::as_str).map(str::to_owned);
        if let Some(uid) = text("/metadata/uid") {
            uids.push((uid, format!("<uid of {kind} {name}>")));
        }
        let label = |key: &str| live["metadata"]["labels"][key].as_str().map(str::to_owned);
        let hash = match kind.as_str() {
            "ControllerRevision" => label(REVISION).map(|hash| (hash, format!("<revision {}>", live["revision"]))),
            "ReplicaSet" => {
                let number = &live["metadata"]["annotations"][SET_NUMBER];
                label(TEMPLATE_HASH).map(|hash| (hash, format!("<set {}>", number.as_str().unwrap_or("?"))))
            }
            _ => None,
        };
        tokens.extend(hash);
    }
    // Uids first: their tokens hold names, in which hashes are replaced after them.
    for group in [&mut uids, &mut tokens] {
        group.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    }
    uids.append(&mut tokens);
    uids
}

fn replaced(text: &str, tokens: &[(String, String)]) -> String {
    tokens
        .iter()
        .filter(|(text, _)| !text.is_empty())
        .fold(text.to_owned(), |text, (from, to)| {
            if text.contains(from.as_str()) {
                text.replace(from.as_str(), to)
            } else {
                text
            }
        })
}

fn masked(value: Value, tokens: &[(String, String)]) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(key, _)| key != "resourceVersion")
            .map(|(key, value)| {
                let value = match (key.as_str(), &value) {
                    (APPLIED, _) => json!("<of a body with uids>"),
                    ("clusterIP", Value::String(address)) if address != "None" => json!("<address>"),
                    ("clusterIPs", Value::Array(addresses)) if addresses != &[json!("None")] => json!("<addresses>"),
                    _ => masked(value, tokens),
                };
                (replaced(&key, tokens), value)
            })
            .collect(),
        Value::Array(values) => values.into_iter().map(|value| masked(value, tokens)).collect(),
        Value::String(text) if is_time(&text) => json!("<time>"),
        Value::String(text) => replaced(&text, tokens).into(),
        other => other,
    }
}

/// RFC 3339 in UTC, as all of Kubernetes writes it.
fn is_time(text: &str) -> bool {
    let shape = text
        .get(..19)
        .unwrap_or_default()
        .bytes()
        .map(|byte| if byte.is_ascii_digit() { b'0' } else { byte });
    text.ends_with('Z') && shape.eq("0000-00-00T00:00:00".bytes())
}

/// Pods of one owner look alike: they are counted.
fn pod(live: &Value) -> (String, Value) {
    let owner = &live["metadata"]["ownerReferences"][0];
    let name = format!(
        "of {} {}",
        owner["kind"].as_str().unwrap_or("nobody"),
        owner["name"].as_str().unwrap_or_default()
    );
    let ending = live["metadata"].get("deletionTimestamp").is_some();
    (
        name,
        json!({"count": 1, "phase": live["status"]["phase"], "ending": ending}),
    )
}

/// As it is, but for how its controller got there: conditions stand in the order in which they came, and the one about
/// progress speaks of whichever ReplicaSet the controller saw at that moment.
fn deployment(live: &Value) -> Value {
    let mut shown = live.clone();
    if let Some(conditions) = shown.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
        conditions.sort_by_key(|condition| condition["type"].to_string());
        for condition in conditions
            .iter_mut()
            .filter(|condition| condition["type"] == "Progressing")
        {
            condition["reason"] = Value::Null;
            condition["message"] = Value::Null;
        }
    }
    shown
}

fn replica_set(live: &Value) -> Value {
    let metadata = &live["metadata"];
    json!({
        "labels": metadata["labels"], "ownerReferences": metadata["ownerReferences"],
        "revision": metadata["annotations"][SET_NUMBER],
        "replicas": live["spec"]["replicas"], "template": live["spec"]["template"],
        "running": live["status"]["replicas"],
    })
}

fn counted(all: &BTreeSet<(String, String, String)>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (kind, name, _) in all {
        let name = match kind.as_str() {
            "Pod" => continue,
            "ReplicaSet" => name
                .rsplit_once('-')
                .map_or(name.clone(), |(owner, _)| format!("{owner}-*")),
            _ => role("", name),
        };
        *counts.entry(format!("{kind} {name}")).or_default() += 1;
    }
    counts
}

/// Objects that have owners, none of which is there with that uid.
fn orphans(record: &Record) -> BTreeSet<String> {
    let uids: BTreeSet<&str> = record
        .live
        .values()
        .filter_map(|live| live["metadata"]["uid"].as_str())
        .collect();
    let lost = |live: &Map<String, Value>| {
        let owners = live.get("metadata")?.get("ownerReferences")?.as_array()?;
        let there = owners
            .iter()
            .any(|owner| owner["uid"].as_str().is_some_and(|uid| uids.contains(uid)));
        (!there && !owners.is_empty()).then_some(())
    };
    let live = record.live.iter();
    live.filter(|(_, live)| live.as_object().and_then(lost).is_some())
        .map(|((kind, name), _)| format!("{kind} {name}"))
        .collect()
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
