//! Steps and their configs. A config is kept as it is, whatever it holds; where each of its keys stands is remembered, for
//! whoever checks it later.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::catalogue;
use crate::model::{Origin, Place, Position, Step};
use crate::node::{Content, Node};

use super::{Reader, join, last};

const STEP_KEYS: [&str; 3] = ["type", "name", "config"];

// === impl Reader ===

impl Reader {
    pub(super) fn source(&mut self, at: Position, node: &Node, path: &str) -> Option<Step> {
        if let Content::List(items) = &node.content {
            let hint = match items.len() {
                0 | 1 => "write it without the `- `".to_owned(),
                count => format!("make {count} files, one for each source"),
            };
            self.fault_with(
                node.position,
                path,
                "a pipeline has one source, and it is a map, not a list",
                hint,
            );
            return None;
        }
        self.step(at, node, path, Place::Source)
    }

    pub(super) fn steps(&mut self, at: Position, node: &Node, path: &str, place: Place) -> Vec<Step> {
        let hint = match &node.content {
            Content::List(items) => {
                let items = items.iter().enumerate();
                let steps =
                    items.map(|(index, item)| self.step(item.position, item, &format!("{path}[{index}]"), place));
                return steps.collect::<Vec<_>>().into_iter().flatten().collect();
            }
            // A key whose entries are all commented out.
            Content::Null => return Vec::new(),
            Content::Map(_) if node.get("type").is_some() => "put `- ` before its first key",
            Content::Flag(_) | Content::Number(_) | Content::Text(_) | Content::Map(_) => {
                "write `- type: …` for each step"
            }
        };
        let problem = format!("{} must be a list of steps, not {}", last(path), node.noun());
        self.fault_with(node.position_or(at), path, problem, hint);
        Vec::new()
    }

    fn step(&mut self, at: Position, node: &Node, path: &str, place: Place) -> Option<Step> {
        let Some(entries) = node.entries() else {
            let hint = match node.text() {
                Some(text) if !text.is_empty() && !text.contains(char::is_whitespace) => {
                    format!("write {{type: {text}}}")
                }
                _ => "write {type: …, config: {…}}".to_owned(),
            };
            let problem = format!("a {} is a map with type and config, not {}", place.noun(), node.noun());
            self.fault_with(node.position_or(at), path, problem, hint);
            return None;
        };
        // `LedgerReader: {network: pubnet}`: how the short spelling of the Go binary writes a step.
        if let [(key, _)] = entries
            && let Some(kind) = key.text().filter(|kind| kind.starts_with(char::is_uppercase))
        {
            let problem = format!("{kind:?} stands where \"type\" should be");
            let hint = format!("write type: {kind}, and what stands below it under config");
            self.fault_with(key.position, path, problem, hint);
            return None;
        }

        let known = node
            .get("type")
            .and_then(Node::text)
            .and_then(|kind| catalogue::lookup(place, kind));
        let has_config = node.get("config").is_some();
        let fields = self.fields(node, path, &STEP_KEYS, |key| {
            if key == "processorRef" {
                return Some(refer(place));
            }
            let key = known?.key(key)?.name;
            Some(match has_config {
                true => format!("it belongs under \"config\": indent {key:?} by two more spaces"),
                false => format!("put \"config:\" above {key:?} and indent it by two more spaces"),
            })
        });
        let position = if place == Place::Source { at } else { node.position };
        let mut origin = Origin {
            path: path.to_owned(),
            position: Some(position),
            keys: BTreeMap::from_iter(fields.iter().map(|(key, (at, _))| ((*key).to_owned(), *at))),
        };
        let kind = match fields.get("type") {
            Some((at, node)) => self.text(*at, node, &join(path, "type")),
            // The reference is the fault, and it is told.
            None if node.get("processorRef").is_some() => None,
            None => {
                let examples: Vec<_> = catalogue::types(place).map(|kind| kind.name).collect();
                let hint = format!("types are for example {}", examples.join(", "));
                self.fault_with(position, path, format!("the {} has no \"type\"", place.noun()), hint);
                None
            }
        };
        let name = match fields.get("name") {
            Some((at, node)) => self.name(*at, node, &join(path, "name")),
            None => None,
        };
        let config = match fields.get("config") {
            Some((at, node)) => self.config(*at, node, path, &mut origin),
            None => Map::new(),
        };
        Some(Step {
            name,
            kind: kind?,
            config,
            origin,
        })
    }

    fn name(&mut self, at: Position, node: &Node, path: &str) -> Option<String> {
        let name = self.text(at, node, path)?;
        match self.names.get(&name) {
            Some(first) => {
                let problem = format!("the step name {name:?} is used twice; first on line {}", first.line);
                self.fault_with(at, path, problem, "give each step its own name");
            }
            None => {
                self.names.insert(name.clone(), at);
            }
        }
        Some(name)
    }

    fn config(&mut self, at: Position, node: &Node, root: &str, origin: &mut Origin) -> Map<String, Value> {
        let hint = match &node.content {
            Content::Map(entries) => return self.object(entries, root, "config", origin),
            Content::Null => return Map::new(),
            Content::List(_) => "write its keys without the `- `",
            Content::Flag(_) | Content::Number(_) | Content::Text(_) => "write config: {key: value}",
        };
        let problem = format!("config must be a map, not {}", node.noun());
        self.fault_with(node.position_or(at), &join(root, "config"), problem, hint);
        Map::new()
    }

    fn object(&mut self, entries: &[(Node, Node)], root: &str, path: &str, origin: &mut Origin) -> Map<String, Value> {
        let mut map = Map::new();
        for (key, (at, node)) in self.distinct(entries, &join(root, path)) {
            let path = join(path, key);
            let value = self.value(node, root, &path, origin);
            origin.keys.insert(path, at);
            map.insert(key.to_owned(), value);
        }
        map
    }

    fn value(&mut self, node: &Node, root: &str, path: &str, origin: &mut Origin) -> Value {
        match &node.content {
            Content::Null => Value::Null,
            Content::Flag(flag) => Value::Bool(*flag),
            Content::Number(number) => Value::Number(number.clone()),
            Content::Text(text) => Value::String(text.clone()),
            Content::List(items) => {
                let mut values = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    values.push(self.value(item, root, &path, origin));
                    origin.keys.insert(path, item.position);
                }
                Value::Array(values)
            }
            Content::Map(entries) => Value::Object(self.object(entries, root, path, origin)),
        }
    }
}

fn refer(place: Place) -> String {
    let kind = match place {
        Place::Consumer => "ExternalConsumer",
        Place::Source | Place::Processor => "ExternalProcessor",
    };
    format!("references belong into the Pipeline object; in a file write type: {kind} and config: {{endpoint: …}}")
}
