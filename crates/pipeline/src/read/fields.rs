//! The keys of a map: which are known, which are misspelt, which come twice. Knows nothing of what they mean.

use std::collections::BTreeMap;

use crate::model::Position;
use crate::node::{Content, Node};
use crate::suggest::nearest;

use super::{Reader, join, last};

/// Other words for our keys, too far from them to be found as slips.
const SYNONYMS: [(&str, &str); 12] = [
    ("process", "processors"),
    ("transforms", "processors"),
    ("steps", "processors"),
    ("save_to", "consumers"),
    ("sink", "consumers"),
    ("sinks", "consumers"),
    ("output", "consumers"),
    ("outputs", "consumers"),
    ("input", "source"),
    ("inputs", "source"),
    ("kind", "type"),
    ("settings", "config"),
];

/// The known keys of a map: where each key stands, and its value.
pub(super) type Fields<'a> = BTreeMap<&'static str, (Position, &'a Node)>;

// === impl Reader ===

impl Reader {
    /// The known keys of a map. Reports the others, and uses one that is only misspelt as what it was meant to be;
    /// `explain` may know better than a spelling what an unknown key is about.
    pub(super) fn fields<'a>(
        &mut self,
        node: &'a Node,
        path: &str,
        known: &[&'static str],
        explain: impl Fn(&str) -> Option<String>,
    ) -> Fields<'a> {
        let mut fields = Fields::new();
        let mut unknown = Vec::new();
        for (key, value) in self.distinct(node.entries().unwrap_or_default(), path) {
            match known.iter().find(|name| **name == key) {
                Some(name) => {
                    fields.insert(name, value);
                }
                None => unknown.push((key, value)),
            }
        }
        for (key, (at, value)) in unknown {
            let synonym = SYNONYMS.iter().find(|(other, _)| *other == key).map(|(_, name)| *name);
            let meant = synonym.or_else(|| nearest(key, known.iter().copied()));
            let meant = meant.and_then(|meant| known.iter().find(|name| **name == meant));
            let hint = match (explain(key), meant) {
                (Some(hint), _) => hint,
                (None, Some(meant)) if !fields.contains_key(meant) => {
                    fields.insert(meant, (at, value));
                    format!("did you mean {meant:?}?")
                }
                (None, _) => format!("known keys are {}", known.join(", ")),
            };
            self.fault_with(at, &join(path, key), format!("unknown key {key:?}"), hint);
        }
        fields
    }

    /// The entries of a map that have a text as key, each key once. Reports the others.
    pub(super) fn distinct<'a>(
        &mut self,
        entries: &'a [(Node, Node)],
        path: &str,
    ) -> Vec<(&'a str, (Position, &'a Node))> {
        let mut seen: BTreeMap<&str, Position> = BTreeMap::new();
        let mut distinct = Vec::new();
        for (key, value) in entries {
            let Some(name) = key.text() else {
                let problem = format!("a key must be a text, not {}", key.noun());
                match &key.content {
                    Content::Number(number) => self.fault_with(key.position, path, problem, in_quotes(number)),
                    Content::Flag(flag) => self.fault_with(key.position, path, problem, in_quotes(flag)),
                    Content::Null | Content::Text(_) | Content::List(_) | Content::Map(_) => {
                        self.fault(key.position, path, problem);
                    }
                }
                continue;
            };
            match seen.get(name) {
                Some(first) => {
                    let problem = format!("the key {name:?} is given twice; first on line {}", first.line);
                    self.fault_with(key.position, &join(path, name), problem, "keep one of them");
                }
                None => {
                    seen.insert(name, key.position);
                    distinct.push((name, (key.position, value)));
                }
            }
        }
        distinct
    }

    /// A text that is not empty.
    pub(super) fn text(&mut self, at: Position, node: &Node, path: &str) -> Option<String> {
        let problem = format!("{} must be a text, not {}", last(path), node.noun());
        match &node.content {
            Content::Text(text) if !text.is_empty() => return Some(text.clone()),
            Content::Text(_) | Content::Null => self.fault(at, path, format!("{} is empty", last(path))),
            Content::Flag(flag) => self.fault_with(node.position, path, problem, in_quotes(flag)),
            Content::Number(number) => self.fault_with(node.position, path, problem, in_quotes(number)),
            Content::List(_) | Content::Map(_) => self.fault(node.position, path, problem),
        }
        None
    }
}

fn in_quotes(value: impl std::fmt::Display) -> String {
    format!("write \"{value}\" in quotes")
}
