//! The metrics of a service, compactly: services of one kind report the same names, so the names are shared and each service
//! keeps its numbers only. Texts are the exception and kept aside. Beats merge, a registration clears. What is too much is left out:
//! who measures too much is alive all the same.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::error::RegistryError;
use super::model::{Metric, Value};
use crate::limits::Limits;

/// The names of the metrics of a service, sorted; shared by all services that have the same.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Shape(Box<[Box<str>]>);

/// Every shape that is in use.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    shared: HashSet<Arc<Shape>>,
    /// Places and numbers of one beat; kept so that a beat allocates nothing.
    beat: Vec<(usize, f64)>,
}

/// What one service measures.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    shape: Option<Arc<Shape>>,
    /// One for each name; NaN if it is a text that is no number.
    numbers: Box<[f64]>,
    /// Texts that are not what their number would be written as, by place.
    #[expect(
        clippy::box_collection,
        reason = "8 bytes in every service for what almost none has, not 24"
    )]
    texts: Option<Box<BTreeMap<usize, Box<str>>>>,
}

/// What the metrics of a beat did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// Whether there are names that were not there before.
    pub(super) has_new_names: bool,
    /// How many were left out, because a bound was exceeded or the name is empty.
    pub(super) left_out: usize,
}

/// The text of a number, as `flowctl.v1` readers get it: plain where that is short, else with an exponent.
pub(super) fn text(number: f64) -> String {
    Short::of(number).as_str().to_owned()
}

/// The number that a text is, if it is a finite one.
pub(super) fn number(text: &str) -> Option<f64> {
    let may_be = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    text.parse().ok().filter(|number: &f64| may_be && number.is_finite())
}

/// The number that a text of few digits is: what counters are, told without writing the number to compare.
fn whole(text: &str) -> Option<f64> {
    // As many digits as a number has exactly.
    let is_short = (1..=15).contains(&text.len()) && (text == "0" || !text.starts_with('0'));
    let is_whole = is_short && text.bytes().all(|byte| byte.is_ascii_digit());
    is_whole
        .then(|| text.parse().ok())
        .flatten()
        .map(|number: u64| number as f64)
}

/// A number in its shortest form, on the stack.
struct Short {
    bytes: [u8; 32],
    length: usize,
}

// === impl Shape ===

impl Shape {
    pub(super) fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The place of a name. Clients tend to send names in the same order each time: `hint` is tried first.
    pub(super) fn place(&self, name: &str, hint: usize) -> Option<usize> {
        if self.0.get(hint).is_some_and(|there| **there == *name) {
            return Some(hint);
        }
        self.0.binary_search_by(|there| (**there).cmp(name)).ok()
    }
}

// === impl Shapes ===

impl Shapes {
    fn share(&mut self, shape: Shape) -> Arc<Shape> {
        if let Some(shared) = self.shared.get(&shape) {
            return Arc::clone(shared);
        }
        let shared = Arc::new(shape);
        self.shared.insert(Arc::clone(&shared));
        shared
    }

    /// Forgets what no service uses any more.
    pub(super) fn sweep(&mut self) {
        self.shared.retain(|shape| Arc::strong_count(shape) > 1);
    }
}

// === impl Metrics ===

impl Metrics {
    pub(super) fn shape(&self) -> Option<&Arc<Shape>> {
        self.shape.as_ref()
    }

    /// One for each name of the shape.
    pub(super) fn numbers(&self) -> &[f64] {
        &self.numbers
    }

    /// Adds what a beat brings, as far as there is room for it.
    pub(super) fn merge(&mut self, incoming: &[(&str, Value<'_>)], limits: &Limits, shapes: &mut Shapes) -> Merged {
        if incoming.is_empty() || self.overwrite(incoming, shapes) {
            return Merged::default();
        }
        self.rebuild(incoming, limits, shapes)
    }

    /// The way of almost every beat: known names, only numbers. `false` if it is not such a beat; nothing is changed then.
    fn overwrite(&mut self, incoming: &[(&str, Value<'_>)], shapes: &mut Shapes) -> bool {
        let (Some(shape), None) = (&self.shape, &self.texts) else {
            return false;
        };
        shapes.beat.clear();
        for (hint, (name, value)) in incoming.iter().enumerate() {
            let (Some(place), Some(number)) = (shape.place(name, hint), value.as_number()) else {
                return false;
            };
            shapes.beat.push((place, number));
        }
        for (place, number) in &shapes.beat {
            if let Some(kept) = self.numbers.get_mut(*place) {
                *kept = *number;
            }
        }
        true
    }

    fn rebuild(&mut self, incoming: &[(&str, Value<'_>)], limits: &Limits, shapes: &mut Shapes) -> Merged {
        let mut merged: BTreeMap<&str, Value<'_>> = self.values().collect();
        let before = merged.len();
        let mut text_bytes: usize = merged.values().map(Value::text_bytes).sum();
        let mut left_out = 0;
        for (name, value) in incoming {
            let known = merged.get(name);
            let is_name = !name.is_empty() && name.len() <= limits.metric_key_bytes;
            let bytes = text_bytes - known.map_or(0, Value::text_bytes) + value.text_bytes();
            let has_room = (known.is_some() || merged.len() < limits.metrics) && bytes <= limits.metric_text_bytes;
            if is_name && has_room {
                text_bytes = bytes;
                merged.insert(name, *value);
            } else {
                left_out += 1;
            }
        }

        let numbers = merged
            .values()
            .map(|value| value.as_number().unwrap_or_else(|| value.closest()));
        let numbers: Box<[f64]> = numbers.collect();
        let texts = merged.values().enumerate().filter_map(|(place, value)| match value {
            Value::Text(text) if value.as_number().is_none() => Some((place, Box::from(*text))),
            Value::Text(_) | Value::Number(_) => None,
        });
        let texts: BTreeMap<usize, Box<str>> = texts.collect();

        let has_new_names = merged.len() != before;
        let shape = match (&self.shape, has_new_names) {
            (Some(shape), false) => Arc::clone(shape),
            (_, false | true) => shapes.share(Shape(merged.keys().map(|name| Box::from(*name)).collect())),
        };
        *self = Self {
            shape: Some(shape),
            numbers,
            texts: (!texts.is_empty()).then(|| Box::new(texts)),
        };
        Merged {
            has_new_names,
            left_out,
        }
    }

    fn values(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        let names = self.shape.iter().flat_map(|shape| shape.names());
        names.zip(&self.numbers).enumerate().map(|(place, (name, number))| {
            let text = self.texts.as_ref().and_then(|texts| texts.get(&place));
            (name, text.map_or(Value::Number(*number), |text| Value::Text(text)))
        })
    }

    /// At most `most` numbers of `wanted` names, sorted by name. Texts that are no numbers are passed over.
    pub(super) fn select(&self, wanted: impl Fn(&str) -> bool, most: usize) -> Vec<(String, f64)> {
        let of_names = self.values().filter(|(name, _)| wanted(name));
        let numbers = of_names.filter_map(|(name, value)| match value {
            Value::Number(found) => Some((name.to_owned(), found)),
            Value::Text(text) => Some((name.to_owned(), number(text)?)),
        });
        numbers.take(most).collect()
    }

    pub(super) fn read(&self) -> BTreeMap<String, Metric> {
        self.values()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect()
    }
}

pub(super) fn bound(what: &'static str, found: usize, limit: usize) -> Result<(), RegistryError> {
    if found > limit {
        return Err(RegistryError::TooLarge { what, found, limit });
    }
    Ok(())
}

// === impl Value ===

impl Value<'_> {
    /// What it takes of the room for texts.
    fn text_bytes(&self) -> usize {
        match self {
            Value::Text(text) if self.as_number().is_none() => text.len(),
            Value::Text(_) | Value::Number(_) => 0,
        }
    }

    /// The number, if that is all there is to it: of a text, only if writing the number gives the text again.
    fn as_number(&self) -> Option<f64> {
        match self {
            Value::Number(found) => Some(*found),
            Value::Text(text) => {
                whole(text).or_else(|| number(text).filter(|found| Short::of(*found).as_str() == *text))
            }
        }
    }

    /// The number that legacy readers and the history get.
    fn closest(&self) -> f64 {
        match self {
            Value::Number(found) => *found,
            Value::Text(text) => number(text).unwrap_or(f64::NAN),
        }
    }
}

impl From<Value<'_>> for Metric {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Number(number) => Self::Number(number),
            Value::Text(text) => Self::Text(text.to_owned()),
        }
    }
}

// === impl Short ===

impl Short {
    fn of(number: f64) -> Self {
        let mut short = Self {
            bytes: [0; 32],
            length: 0,
        };
        let is_plain = number == 0.0 || !number.is_finite() || (1e-5..1e17).contains(&number.abs());
        // 32 bytes hold the longest: 17 digits, a sign, a point, and either five zeros or an exponent.
        let written = if is_plain {
            write!(short, "{number}")
        } else {
            write!(short, "{number:e}")
        };
        debug_assert!(written.is_ok(), "{number} is longer than 32 bytes");
        short
    }

    fn as_str(&self) -> &str {
        let written = self.bytes.get(..self.length).unwrap_or_default();
        std::str::from_utf8(written).unwrap_or_default()
    }
}

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let room = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
