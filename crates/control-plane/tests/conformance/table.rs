//! The table: how it is read, and whether an answer is the one that it says.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};
use tonic::Code;

use crate::numbers;

/// A promise, on a server of its own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(crate) row: String,
    pub(crate) ttl_seconds: Option<u64>,
    pub(crate) calls: Vec<Call>,
}

/// A call, and what is to come back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    pub(crate) call: String,
    send: Value,
    send_numbers: Value,
    #[serde(default)]
    gets: Value,
    #[serde(default)]
    gets_numbers: Value,
    pub(crate) refused: Option<Refused>,
    #[serde(default)]
    pub(crate) until: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refused {
    code: String,
    says: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A message, by the names of its fields.
    Names(Value),
    /// A message as it came.
    Bytes(Bytes),
    Refused {
        code: i32,
        message: String,
    },
}

/// What the texts with a $ stand for.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<String, String>);

pub(crate) fn rows() -> Vec<Row> {
    serde_saphyr::from_str(include_str!("table.yaml")).expect("the table is as it is described in it")
}

// === impl Call ===

impl Call {
    /// `/package.Service/Method`.
    pub(crate) fn path(&self) -> String {
        match self.call.split_once(' ') {
            Some(("legacy", method)) => format!("/flowctl.ControlPlane/{method}"),
            Some(("v1", method)) => format!("/flowctl.v1.ControlPlaneService/{method}"),
            _ => panic!("{:?} is no dialect and method", self.call),
        }
    }

    /// What to send, by names.
    pub(crate) fn names(&self, seen: &Seen) -> Value {
        seen.put_into(&self.send)
    }

    /// What to send, by numbers.
    pub(crate) fn numbers(&self, seen: &Seen) -> Value {
        seen.put_into(&self.send_numbers)
    }

    /// Whether that is what is to come back.
    pub(crate) fn check(&self, outcome: &Outcome, seen: &mut Seen) -> Result<(), String> {
        match (outcome, &self.refused) {
            (Outcome::Names(found), None) => same(&self.gets, found, seen),
            (Outcome::Bytes(found), None) => numbers::same(&self.gets_numbers, found, seen),
            (Outcome::Refused { code, message }, Some(wanted)) => {
                let code = format!("{:?}", Code::from(*code));
                let says = wanted.says.as_ref().unwrap_or(message);
                match code == wanted.code && says == message {
                    true => Ok(()),
                    false => Err(format!("it is to be refused with {wanted:?}")),
                }
            }
            (Outcome::Refused { .. }, None) => Err("it is to be answered".to_owned()),
            (Outcome::Names(_) | Outcome::Bytes(_), Some(wanted)) => {
                Err(format!("it is to be refused with {wanted:?}"))
            }
        }
    }
}

// === impl Seen ===

impl Seen {
    fn put_into(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.0.get(text).unwrap_or(text).clone()),
            Value::Array(values) => values.iter().map(|value| self.put_into(value)).collect(),
            Value::Object(fields) => {
                let fields = fields.iter().map(|(key, value)| (key.clone(), self.put_into(value)));
                Value::Object(fields.collect::<Map<_, _>>())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    /// Whether a text is the wanted one, or what a $ stands for from now on.
    pub(crate) fn is_same(&mut self, wanted: &str, found: &str) -> bool {
        if !wanted.starts_with('$') {
            return wanted == found;
        }
        let known = self.0.entry(wanted.to_owned()).or_insert_with(|| found.to_owned());
        !found.is_empty() && known == found
    }
}

/// Whether a message has exactly the wanted fields, by name.
fn same(wanted: &Value, found: &Value, seen: &mut Seen) -> Result<(), String> {
    let is_same = match (wanted, found) {
        (Value::Null, found) => !found.is_null(),
        (Value::Object(wanted), Value::Object(found)) => {
            let keys = |fields: &Map<String, Value>| fields.keys().cloned().collect::<std::collections::BTreeSet<_>>();
            if keys(wanted) != keys(found) {
                return Err(format!("it is to have {:?}, and has {:?}", keys(wanted), keys(found)));
            }
            for (key, wanted) in wanted {
                same(wanted, &found[key], seen).map_err(|why| format!("{key}: {why}"))?;
            }
            true
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            for (wanted, found) in wanted.iter().zip(found) {
                same(wanted, found, seen)?;
            }
            true
        }
        (Value::String(wanted), Value::String(found)) => seen.is_same(wanted, found),
        // Go writes 3 where Python writes 3.0.
        (Value::Number(wanted), Value::Number(found)) => wanted.as_f64() == found.as_f64(),
        (wanted, found) => wanted == found,
    };
    match is_same {
        true => Ok(()),
        false => Err(format!("it is to be {wanted}, and is {found}")),
    }
}
