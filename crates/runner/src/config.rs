//! Typed reading of a step's config. Which keys exist and what they look like is checked against
//! the catalogue before; here values get their types. Texts are accepted for numbers and flags,
//! because a value that came out of `${NAME}` is a text.

use std::time::Duration;

use flowctl_pipeline::{Diagnostic, Step, duration, size};
use serde_json::{Map, Value};

/// A map of the config, and where its faults are collected.
pub(crate) struct Config<'a> {
    map: &'a Map<String, Value>,
    step: &'a Step,
    /// Path of the map below its step.
    below: String,
    faults: &'a mut Vec<Diagnostic>,
}

// === impl Config ===

impl<'a> Config<'a> {
    pub(crate) fn of(step: &'a Step, faults: &'a mut Vec<Diagnostic>) -> Self {
        Self {
            map: &step.config,
            step,
            below: "config".to_owned(),
            faults,
        }
    }

    /// Notes a fault of a key, or of the whole step when the key is empty.
    pub(crate) fn fault(&mut self, key: &str, problem: impl Into<String>) {
        let below = match key {
            "" => self.below.clone(),
            key => format!("{}.{key}", self.below),
        };
        let path = format!("{}.{below}", self.step.path());
        let fault = Diagnostic::new(self.step.position_of(&below), path, problem);
        self.faults.push(fault);
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The value of a key as text.
    pub(crate) fn text(&mut self, key: &str) -> Option<String> {
        match self.map.get(key)? {
            Value::String(text) if text.is_empty() => {
                self.fault(key, "the text is empty");
                None
            }
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// The value of a key, read from text by `read`.
    pub(crate) fn read<T, E: std::fmt::Display>(
        &mut self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(key)?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(key, error.to_string());
                None
            }
        }
    }

    /// A duration above zero.
    pub(crate) fn duration(&mut self, key: &str) -> Option<Duration> {
        let value = self.read(key, duration::parse)?;
        if value.is_zero() {
            self.fault(key, "a duration must be above zero");
            return None;
        }
        Some(value)
    }

    /// An amount of memory in bytes, above zero.
    pub(crate) fn size(&mut self, key: &str) -> Option<usize> {
        let bytes = self.read(key, size::parse)?;
        if bytes == 0 {
            self.fault(key, "a size must be above zero");
            return None;
        }
        Some(usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// A number, whole or not as the type says.
    pub(crate) fn number<T: std::str::FromStr>(&mut self, key: &str) -> Option<T> {
        self.read(key, |text| {
            text.trim()
                .parse::<T>()
                .map_err(|_| format!("{text:?} is not a number that fits here"))
        })
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, key: &str) -> Option<bool> {
        self.read(key, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(format!("expected true or false, not {other:?}")),
        })
    }

    /// A map below a key.
    pub(crate) fn map<T>(&mut self, key: &str, read: impl FnOnce(&mut Config<'_>) -> T) -> Option<T> {
        let Value::Object(map) = self.map.get(key)? else {
            self.fault(key, "expected a map");
            return None;
        };
        let mut inner = Config {
            map,
            step: self.step,
            below: format!("{}.{key}", self.below),
            faults: self.faults,
        };
        Some(read(&mut inner))
    }

    /// Refuses a key or a value whose function does not exist yet: ignoring it would give less
    /// than what was asked for, without a word.
    pub(crate) fn only(&mut self, key: &str, works: &str) {
        match self.text(key) {
            Some(text) if text != works => self.fault(
                key,
                format!("{key}: {text} is not supported yet; what works now is {key}: {works}"),
            ),
            _ => {}
        }
    }

    /// Refuses a key whose function does not exist yet.
    pub(crate) fn not_yet(&mut self, key: &str, instead: &str) {
        if self.has(key) {
            self.fault(key, format!("{key} is not supported yet; {instead}"));
        }
    }
}
