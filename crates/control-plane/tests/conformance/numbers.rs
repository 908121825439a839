//! A client without any description of the messages: it writes fields by number and by the kind of their values, and reads what
//! comes back in the same way (<https://protobuf.dev/programming-guides/encoding/>).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use bytes::Bytes;
use serde_json::{Map, Value};
use tonic::transport::{Channel, Endpoint};

use crate::table::{Call, Outcome, Seen};
use crate::{Client, raw};

#[derive(Default)]
pub(crate) struct Numbers(HashMap<SocketAddr, Channel>);

/// A field as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Field<'a> {
    Varint(u64),
    Double(f64),
    Bytes(&'a [u8]),
}

// === impl Numbers ===

impl Client for Numbers {
    async fn call(&mut self, server: SocketAddr, call: &Call, seen: &Seen) -> Outcome {
        let channel = self.0.entry(server).or_insert_with(|| {
            let endpoint = Endpoint::from_shared(format!("http://{server}")).expect("an address");
            endpoint.connect_lazy()
        });
        let message = Bytes::from(message(&call.numbers(seen)));
        match raw::call(channel, &call.path(), message).await {
            Ok(answer) => Outcome::Bytes(answer),
            Err(status) => Outcome::Refused {
                code: status.code().into(),
                message: status.message().to_owned(),
            },
        }
    }
}

// === writing ===

fn message(fields: &Value) -> Vec<u8> {
    let Value::Object(fields) = fields else {
        panic!("{fields} is no message");
    };
    let each = fields.iter().flat_map(|(key, value)| match value {
        Value::Array(values) => values.iter().flat_map(|value| field(number_of(key), value)).collect(),
        one => field(number_of(key), one),
    });
    each.collect()
}

fn number_of(key: &str) -> u32 {
    key.parse()
        .unwrap_or_else(|_| panic!("{key:?} is no number of a field"))
}

fn field(number: u32, value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => raw::field(number, text.as_bytes()),
        Value::Object(_) => raw::field(number, &message(value)),
        Value::Bool(is_set) => raw::number(number, (*is_set).into()),
        Value::Number(_) => match wire(value) {
            Field::Double(double) => [raw::varint(u64::from(number << 3 | 1)), double.to_le_bytes().into()].concat(),
            Field::Varint(varint) => raw::number(number, varint),
            Field::Bytes(_) => unreachable!("a number is no text"),
        },
        Value::Null | Value::Array(_) => panic!("{value} cannot be sent"),
    }
}

/// A number with a point is a double, any other one a varint; negative ones take all of its 64 bits.
fn wire(value: &Value) -> Field<'static> {
    match (value.is_f64(), value.as_f64(), value.as_i64()) {
        (true, Some(double), _) => Field::Double(double),
        (false, _, Some(number)) => Field::Varint(number.cast_unsigned()),
        _ => panic!("{value} is no number of the table"),
    }
}

// === reading ===

/// Whether a message has exactly the wanted fields, by number.
pub(crate) fn same(wanted: &Value, found: &[u8], seen: &mut Seen) -> Result<(), String> {
    let Value::Object(wanted) = wanted else {
        return Err(format!("{wanted} is no message"));
    };
    let found = fields(found).ok_or("it is no message")?;
    let numbers = |fields: &Map<String, Value>| fields.keys().map(|key| number_of(key)).collect::<BTreeSet<_>>();
    if !numbers(wanted).iter().eq(found.keys()) {
        return Err(format!("it is to have fields {:?}, and has {found:?}", numbers(wanted)));
    }
    for (key, wanted) in wanted {
        let found = &found[&number_of(key)];
        let wanted = match wanted {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        // Of any value there may be any number: entries of a map are repeated.
        if wanted.len() != found.len() && wanted != [Value::Null] {
            return Err(format!(
                "field {key} is to be there {} times, not {}",
                wanted.len(),
                found.len()
            ));
        }
        for (wanted, found) in wanted.iter().zip(found) {
            same_field(wanted, *found, seen).map_err(|why| format!("field {key}: {why}"))?;
        }
    }
    Ok(())
}

fn same_field(wanted: &Value, found: Field<'_>, seen: &mut Seen) -> Result<(), String> {
    let is_same = match (wanted, found) {
        (Value::Null, _) => true,
        (Value::String(wanted), Field::Bytes(found)) => {
            std::str::from_utf8(found).is_ok_and(|found| seen.is_same(wanted, found))
        }
        (Value::Object(_), Field::Bytes(found)) => return same(wanted, found, seen),
        (Value::Bool(wanted), Field::Varint(found)) => u64::from(*wanted) == found,
        (Value::Number(_), found) => wire(wanted) == found,
        _ => false,
    };
    match is_same {
        true => Ok(()),
        false => Err(format!("it is to be {wanted}, and is {found:?}")),
    }
}

/// The fields of a message, each as often as it is there; `None` if it is none.
fn fields(mut bytes: &[u8]) -> Option<BTreeMap<u32, Vec<Field<'_>>>> {
    let mut found = BTreeMap::<u32, Vec<_>>::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let field = match tag & 7 {
            0 => Field::Varint(varint(&mut bytes)?),
            1 => Field::Double(f64::from_le_bytes(take(&mut bytes, 8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Field::Bytes(take(&mut bytes, length)?)
            }
            // No message of either dialect has a field of 32 bits, or a group.
            _ => return None,
        };
        found.entry(u32::try_from(tag >> 3).ok()?).or_default().push(field);
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

// What is shown by numbers is shown only if this reads them right.
#[test]
fn wrong_numbers_are_noticed() {
    let sent = message(&serde_json::json!({"1": "s1", "2": -1, "3": [{"1": "a", "2": 0.5}, {"1": "b", "2": 3.0}]}));
    let read = |wanted: Value| same(&wanted, &sent, &mut Seen::default());
    let entries = serde_json::json!([{"1": "a", "2": 0.5}, {"1": "b", "2": 3.0}]);
    read(serde_json::json!({"1": "s1", "2": -1, "3": entries})).expect("what was sent");
    read(serde_json::json!({"1": "$id", "2": -1, "3": null})).expect("what was sent");
    for wrong in [
        serde_json::json!({"1": "s2", "2": -1, "3": entries}),
        serde_json::json!({"1": "s1", "3": entries}),
        serde_json::json!({"1": "s1", "2": -1, "3": entries, "4": null}),
        serde_json::json!({"1": "s1", "2": 1, "3": entries}),
        serde_json::json!({"1": "s1", "2": -1, "3": [{"1": "a", "2": 0.5}]}),
        serde_json::json!({"1": "s1", "2": -1, "3": [{"1": "a", "2": 0.5}, {"1": "b", "2": 3}]}),
    ] {
        assert!(read(wrong.clone()).is_err(), "{wrong}");
    }
}
