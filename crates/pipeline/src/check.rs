//! Whether our runner can run a file: its step types exist in their place, and their configs hold what the catalogue says.
//! Reading a file does not ask this, because the Go binary has types of its own.

use serde_json::{Map, Value};

use crate::catalogue::{self, Expects, Key, Presence, StepType};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::{PipelineFile, Place, Step};
use crate::placeholder::has_placeholder;
use crate::suggest::nearest;
use crate::{duration, size};

/// Checks step types and configs against the [`catalogue`].
///
/// # Errors
/// Every unknown type, unknown or missing key and wrong value, by position.
pub fn check_runnable(file: &PipelineFile) -> Result<(), Diagnostics> {
    let mut faults = Vec::new();
    for (place, index, step) in file.steps() {
        let root = file.path_of(place, index, step);
        let mut checker = Checker {
            step,
            root: &root,
            faults: &mut faults,
        };
        match catalogue::lookup(place, &step.kind) {
            Some(kind) => checker.known(kind),
            None => checker.unknown(place),
        }
    }
    Diagnostics::none_or(faults)
}

struct Checker<'a> {
    step: &'a Step,
    root: &'a str,
    faults: &'a mut Vec<Diagnostic>,
}

// === impl Checker ===

impl Checker<'_> {
    fn fault(&mut self, path: &str, problem: String, hint: Option<String>) {
        self.faults.push(Diagnostic {
            position: self.step.origin.at(path),
            path: format!("{}.{path}", self.root),
            problem,
            hint,
        });
    }

    fn unknown(&mut self, place: Place) {
        let kind = &self.step.kind;
        let names: Vec<_> = catalogue::types(place).map(|kind| kind.name).collect();
        let elsewhere = Place::ALL
            .into_iter()
            .find(|other| catalogue::lookup(*other, kind).is_some());
        let problem = match elsewhere {
            Some(other) => format!("{kind:?} is a {}, not a {}", other.noun(), place.noun()),
            None => format!("unknown {} type {kind:?}", place.noun()),
        };
        let hint = match (nearest(kind, names.iter().copied()), place) {
            (Some(similar), _) => format!("did you mean {similar:?}?"),
            (None, Place::Source) => format!("the runner has {}", names.join(", ")),
            (None, Place::Processor) => {
                format!(
                    "the runner has {}; a service of your own is called with ExternalProcessor",
                    names.join(", ")
                )
            }
            (None, Place::Consumer) => {
                format!(
                    "the runner has {}; a service of your own is called with ExternalConsumer",
                    names.join(", ")
                )
            }
        };
        self.fault("type", problem, Some(hint));
    }

    fn known(&mut self, kind: &StepType) {
        let step = self.step;
        self.map(&step.config, kind.keys, "config");
        let has = |key: &str| step.config.contains_key(key);
        if step.config.get("on_error").and_then(Value::as_str) == Some("dlq") && !has("dlq") {
            self.fault(
                "config.on_error",
                "on_error is dlq, but there is no \"dlq\"".to_owned(),
                Some("add dlq: {path: …}".to_owned()),
            );
        }
        let ledger = |key: &str| step.config.get(key).and_then(Value::as_u64);
        if let (Some(start), Some(end)) = (ledger("start_ledger"), ledger("end_ledger"))
            && (1..start).contains(&end)
        {
            self.fault(
                "config.end_ledger",
                format!("end_ledger {end} comes before start_ledger {start}"),
                None,
            );
        }
    }

    fn map(&mut self, map: &Map<String, Value>, keys: &[Key], path: &str) {
        let names: Vec<_> = keys.iter().map(|key| key.name).collect();
        let mut meant = Vec::new();
        for (name, value) in map {
            let path = format!("{path}.{name}");
            if let Some(key) = keys.iter().find(|key| key.name == name) {
                self.value(value, key, &path);
                continue;
            }
            let hint = match nearest(name, names.iter().copied()) {
                Some(similar) if !map.contains_key(similar) => {
                    meant.push(similar);
                    format!("did you mean {similar:?}?")
                }
                _ if names.is_empty() => format!("{} takes no config", self.step.kind),
                _ => format!("known keys are {}", names.join(", ")),
            };
            self.fault(&path, format!("unknown key {name:?}"), Some(hint));
        }
        for key in keys {
            // One that is only misspelt has been told.
            let is_there = map.contains_key(key.name) || meant.contains(&key.name);
            if key.presence == Presence::Required && !is_there {
                let problem = format!("{} needs {:?} in its config", self.step.kind, key.name);
                self.fault(path, problem, Some(format!("{:?} is {}", key.name, key.summary)));
            }
        }
    }

    fn value(&mut self, value: &Value, key: &Key, path: &str) {
        if value.as_str().is_some_and(has_placeholder) {
            return;
        }
        if let (Expects::Map(keys), Value::Object(map)) = (&key.expects, value) {
            self.map(map, keys, path);
        } else if let Err(problem) = fits(value, &key.expects) {
            self.fault(path, format!("{}: {problem}", key.name), None);
        }
    }
}

/// Whether a value is what is expected; else what is wrong.
fn fits(value: &Value, expects: &Expects) -> Result<(), String> {
    match (expects, value) {
        (Expects::Anything, _) | (Expects::Flag, Value::Bool(_)) | (Expects::Map(_), Value::Object(_)) => Ok(()),
        (Expects::Text, Value::String(text)) if !text.is_empty() => Ok(()),
        (Expects::Text, Value::String(_)) => Err("the text is empty".to_owned()),
        (Expects::Duration, Value::String(text)) => match duration::parse(text) {
            Ok(duration) if duration.is_zero() => Err("a duration must be above zero".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        },
        (Expects::Duration, Value::Number(number)) => Err(format!(
            "the number {number} has no unit; write {number}s for seconds or {number}ms for milliseconds"
        )),
        (Expects::Size, Value::String(text)) => match size::parse(text) {
            Ok(0) => Err("a size must be above zero".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        },
        (Expects::Size, Value::Number(number)) if number.as_u64().is_some_and(|bytes| bytes > 0) => Ok(()),
        (Expects::Count(least, most), Value::Number(number)) => match number.as_u64() {
            Some(count) if (*least..=*most).contains(&count) => Ok(()),
            _ => Err(format!("expected a whole number from {least} to {most}, not {number}")),
        },
        (Expects::Factor(least), Value::Number(number)) => match number.as_f64() {
            Some(factor) if factor >= f64::from(*least) => Ok(()),
            _ => Err(format!("expected a number of at least {least}, not {number}")),
        },
        (Expects::OneOf(words), Value::String(text)) if words.contains(&text.as_str()) => Ok(()),
        (Expects::OneOf(words), Value::String(text)) => Err(match nearest(text, words.iter().copied()) {
            Some(similar) => format!("{text:?} is not one of {}; did you mean {similar:?}?", words.join(", ")),
            None => format!("{text:?} is not one of {}", words.join(", ")),
        }),
        (expects, value) => Err(format!("expected {}, not {}", wanted(expects), noun(value))),
    }
}

fn wanted(expects: &Expects) -> String {
    match expects {
        Expects::Text => "a text".to_owned(),
        Expects::Duration => "a duration such as 30s".to_owned(),
        Expects::Size => "a size such as 32MiB".to_owned(),
        Expects::Count(least, most) => format!("a whole number from {least} to {most}"),
        Expects::Factor(least) => format!("a number of at least {least}"),
        Expects::Flag => "true or false".to_owned(),
        Expects::OneOf(words) => format!("one of {}", words.join(", ")),
        Expects::Map(keys) => {
            let names: Vec<_> = keys.iter().map(|key| key.name).collect();
            format!("a map with {}", names.join(", "))
        }
        Expects::Anything => "anything".to_owned(),
    }
}

fn noun(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(flag) => format!("the flag {flag}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.chars().count() > 40 => "a text".to_owned(),
        Value::String(text) => format!("the text {text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
    }
}
