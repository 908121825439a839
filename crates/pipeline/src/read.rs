//! From text to the model. Walks the whole tree and collects every fault on the way; a key that is only misspelt is used as
//! what it was meant to be, so that what stands under it is checked in the same go. Which step types exist is not asked here.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::catalogue;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::foreign;
use crate::model::{Origin, PipelineFile, Place, Position, Step};
use crate::node::{Content, Node};
use crate::suggest::nearest;
use crate::yaml;

const TOP_KEYS: [&str; 2] = ["pipelines", "pipeline"];
const PIPELINE_KEYS: [&str; 4] = ["name", "source", "processors", "consumers"];
const STEP_KEYS: [&str; 3] = ["type", "name", "config"];

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

/// Reads a pipeline file in the spelling `pipelines:` (a map with one entry) or `pipeline:`.
///
/// Step types are not looked up and configs not checked against them: see [`crate::check_runnable`]. `${NAME}` stays as it
/// is: see [`crate::expand`].
///
/// # Errors
/// All faults of the file, by position.
pub fn read(text: &str) -> Result<PipelineFile, Diagnostics> {
    let document = yaml::parse(text)?;
    if let Some(refusal) = foreign::refuse(&document) {
        return Err(refusal.into());
    }
    let mut reader = Reader::default();
    let file = reader.document(&document);
    Diagnostics::none_or(reader.faults)?;
    // Without faults there is a file; a reader that forgot to say why there is none must still not invent one.
    file.ok_or_else(|| Diagnostic::new(None, "", "the file holds no pipeline").into())
}

#[derive(Default)]
struct Reader {
    faults: Vec<Diagnostic>,
    /// Names of steps and where they were given, within one pipeline.
    names: BTreeMap<String, Position>,
}

/// The known keys of a map and their values, with where the key stands.
type Fields<'a> = BTreeMap<&'static str, (Position, &'a Node)>;

// === impl Reader ===

impl Reader {
    fn fault(
        &mut self,
        position: Position,
        path: &str,
        problem: impl Into<String>,
    ) -> &mut Diagnostic {
        self.push(Diagnostic::new(Some(position), path, problem))
    }

    fn document(&mut self, document: &Node) -> Option<PipelineFile> {
        const HINT: &str = "write pipelines: {NAME: {source: …, processors: […], consumers: […]}}";
        match &document.content {
            Content::Map(_) => {}
            Content::Null => {
                self.faults
                    .push(Diagnostic::new(None, "", "the file is empty").hint(HINT));
                return None;
            }
            Content::Flag(_) | Content::Number(_) | Content::Text(_) | Content::List(_) => {
                let problem = format!("a pipeline file is a map, not {}", document.noun());
                self.faults
                    .push(Diagnostic::new(Some(document.position), "", problem).hint(HINT));
                return None;
            }
        }
        let fields = self.fields(document, "", &TOP_KEYS, |_| None);
        match (fields.get("pipelines"), fields.get("pipeline")) {
            (Some((position, node)), None) => self.pipelines(*position, node),
            (None, Some((position, node))) => self.pipeline(*position, node, "pipeline", None),
            (Some((first, _)), Some((second, _))) => {
                let (position, path) = if first > second {
                    (*first, "pipelines")
                } else {
                    (*second, "pipeline")
                };
                self.faults.push(
                    Diagnostic::new(
                        Some(position),
                        path,
                        "both \"pipelines\" and \"pipeline\" are given",
                    )
                    .hint("keep one of them"),
                );
                None
            }
            (None, None) => {
                if self.faults.is_empty() {
                    self.faults.push(
                        Diagnostic::new(Some(document.position), "", "the file holds no pipeline")
                            .hint(HINT),
                    );
                }
                None
            }
        }
    }

    fn pipelines(&mut self, position: Position, node: &Node) -> Option<PipelineFile> {
        let entries = match &node.content {
            Content::Map(entries) if !entries.is_empty() => entries,
            Content::Map(_) | Content::Null => {
                self.faults.push(
                    Diagnostic::new(Some(position), "pipelines", "\"pipelines\" is empty")
                        .hint("give it one entry: NAME: {source: …, consumers: […]}"),
                );
                return None;
            }
            Content::Flag(_) | Content::Number(_) | Content::Text(_) | Content::List(_) => {
                self.faults.push(
                    Diagnostic::new(
                        Some(node.position),
                        "pipelines",
                        format!(
                            "\"pipelines\" must be a map from a name to a pipeline, not {}",
                            node.noun()
                        ),
                    )
                    .hint("for a single pipeline without a name write \"pipeline\""),
                );
                return None;
            }
        };
        let mut files = Vec::new();
        for (key, value) in self.distinct(entries, "pipelines") {
            if key.is_empty() {
                self.fault(position, "pipelines", "the name of a pipeline is empty");
            }
            let path = format!("pipelines.{key}");
            files.push(self.pipeline(value.0, value.1, &path, Some(key)));
        }
        if let [_, (second, _), ..] = entries.as_slice() {
            let names: Vec<_> = entries.iter().filter_map(|(key, _)| key.text()).collect();
            self.faults.push(
                Diagnostic::new(
                    Some(second.position),
                    "pipelines",
                    format!(
                        "{} pipelines in one file ({}); a file holds one",
                        entries.len(),
                        names.join(", ")
                    ),
                )
                .hint("split the file"),
            );
        }
        files.into_iter().next().flatten()
    }

    fn pipeline(
        &mut self,
        position: Position,
        node: &Node,
        path: &str,
        key: Option<&str>,
    ) -> Option<PipelineFile> {
        self.names.clear();
        if node.entries().is_none() {
            let fault = self.fault(
                position,
                path,
                format!(
                    "a pipeline is a map with source, processors and consumers, not {}",
                    node.noun()
                ),
            );
            fault.position = Some(if matches!(node.content, Content::Null) {
                position
            } else {
                node.position
            });
            return None;
        }
        let fields = self.fields(node, path, &PIPELINE_KEYS, |_| None);
        let name = fields
            .get("name")
            .and_then(|(at, node)| self.text(*at, node, &join(path, "name")));
        let source = match fields.get("source") {
            Some((at, node)) => self.source(*at, node, &join(path, "source")),
            None => {
                self.missing(position, path, "a pipeline needs a source");
                None
            }
        };
        let processors = match fields.get("processors") {
            Some((at, node)) => self.steps(*at, node, &join(path, "processors"), Place::Processor),
            None => Vec::new(),
        };
        let consumers = match fields.get("consumers") {
            Some((at, node)) => {
                let before = self.faults.len();
                let steps = self.steps(*at, node, &join(path, "consumers"), Place::Consumer);
                if steps.is_empty() && self.faults.len() == before {
                    self.missing(
                        *at,
                        &join(path, "consumers"),
                        "a pipeline needs at least one consumer",
                    );
                }
                steps
            }
            None => {
                self.missing(position, path, "a pipeline needs at least one consumer");
                Vec::new()
            }
        };
        Some(PipelineFile {
            key: key.or(name.as_deref()).unwrap_or("default").to_owned(),
            name,
            source: source?,
            processors,
            consumers,
        })
    }

    fn missing(&mut self, position: Position, path: &str, problem: &str) {
        let hint = match problem.contains("source") {
            true => "write source: {type: BufferedStorageSourceAdapter, config: {…}}",
            false => "write consumers: [{type: StdoutConsumer}]",
        };
        self.fault(position, path, problem).hint = Some(hint.to_owned());
    }

    fn source(&mut self, position: Position, node: &Node, path: &str) -> Option<Step> {
        if let Content::List(items) = &node.content {
            let fault = self.fault(
                node.position,
                path,
                "a pipeline has one source, and it is a map, not a list",
            );
            fault.hint = Some(match items.len() {
                0 | 1 => "write it without the `- `".to_owned(),
                count => format!("make {count} files, one for each source"),
            });
            return None;
        }
        self.step(position, node, path, Place::Source)
    }

    fn steps(&mut self, position: Position, node: &Node, path: &str, place: Place) -> Vec<Step> {
        match &node.content {
            Content::List(items) => {
                let steps = items.iter().enumerate();
                steps
                    .filter_map(|(index, item)| {
                        self.step(item.position, item, &format!("{path}[{index}]"), place)
                    })
                    .collect()
            }
            // A key whose entries are all commented out.
            Content::Null => Vec::new(),
            Content::Map(_) if node.get("type").is_some() => {
                let fault = self.fault(
                    node.position,
                    path,
                    format!("{} must be a list of steps, not one step", last(path)),
                );
                fault.hint = Some("put `- ` before its first key".to_owned());
                Vec::new()
            }
            Content::Flag(_) | Content::Number(_) | Content::Text(_) | Content::Map(_) => {
                let fault = self.fault(
                    node.position,
                    path,
                    format!(
                        "{} must be a list of steps, not {}",
                        last(path),
                        node.noun()
                    ),
                );
                fault.hint = Some("write `- type: …` for each step".to_owned());
                fault.position = Some(node.position.max(position));
                Vec::new()
            }
        }
    }

    fn step(&mut self, position: Position, node: &Node, path: &str, place: Place) -> Option<Step> {
        let Some(entries) = node.entries() else {
            let hint = match node.text() {
                Some(text) if !text.is_empty() && !text.contains(char::is_whitespace) => {
                    format!("write {{type: {text}}}")
                }
                _ => "write {type: …, config: {…}}".to_owned(),
            };
            let at = if matches!(node.content, Content::Null) {
                position
            } else {
                node.position
            };
            self.fault(
                at,
                path,
                format!(
                    "a {} is a map with type and config, not {}",
                    place.noun(),
                    node.noun()
                ),
            )
            .hint = Some(hint);
            return None;
        };
        // `LedgerReader: {network: pubnet}`: the short spelling's way to write a step.
        if let [(key, _)] = entries
            && let Some(kind) = key.text().filter(|kind| !STEP_KEYS.contains(kind))
            && kind.starts_with(char::is_uppercase)
        {
            self.fault(
                key.position,
                path,
                format!("{kind:?} stands where a step's \"type\" should be"),
            )
            .hint = Some(format!(
                "write type: {kind}, and what stands below it under config"
            ));
            return None;
        }
        let known = node
            .get("type")
            .and_then(Node::text)
            .and_then(|kind| catalogue::lookup(place, kind));
        let fields = self.fields(node, path, &STEP_KEYS, |key| {
            if key == "processorRef" {
                return Some("it belongs into the Pipeline object; in the file write type: ExternalProcessor (or ExternalConsumer) and config: {endpoint: …}".to_owned());
            }
            let key = known?.key(key)?.name;
            Some(format!("it belongs under \"config\": indent {key:?} by two more spaces"))
        });
        let mut origin = Origin {
            path: path.to_owned(),
            position: Some(if place == Place::Source {
                position
            } else {
                node.position
            }),
            keys: BTreeMap::new(),
        };
        for (key, (at, _)) in &fields {
            origin.keys.insert((*key).to_owned(), *at);
        }
        let kind = match fields.get("type") {
            Some((at, node)) => self.text(*at, node, &join(path, "type")),
            None => {
                let at = origin.position.unwrap_or(position);
                self.fault(at, path, format!("the {} has no \"type\"", place.noun()))
                    .hint = Some(format!("types are for example {}", examples(place)));
                None
            }
        };
        let name = fields.get("name").and_then(|(at, node)| {
            self.text(*at, node, &join(path, "name"))
                .map(|name| (*at, name))
        });
        if let Some((at, name)) = &name {
            self.name(*at, name, path);
        }
        let config = match fields.get("config") {
            Some((at, node)) => self.config(*at, node, path, &mut origin),
            None => Map::new(),
        };
        Some(Step {
            name: name.map(|(_, name)| name),
            kind: kind?,
            config,
            origin,
        })
    }

    fn name(&mut self, at: Position, name: &str, path: &str) {
        match self.names.get(name).copied() {
            Some(first) => {
                let problem = format!(
                    "the step name {name:?} is used twice; first on line {}",
                    first.line
                );
                self.fault(at, &join(path, "name"), problem).hint =
                    Some("give each step its own name".to_owned());
            }
            None => {
                self.names.insert(name.to_owned(), at);
            }
        }
    }

    fn config(
        &mut self,
        at: Position,
        node: &Node,
        path: &str,
        origin: &mut Origin,
    ) -> Map<String, Value> {
        match &node.content {
            Content::Null => Map::new(),
            Content::Map(entries) => self.object(entries, path, "config", origin),
            Content::List(_) => {
                self.fault(
                    node.position,
                    &join(path, "config"),
                    "config must be a map, not a list",
                )
                .hint = Some("write its keys without the `- `".to_owned());
                Map::new()
            }
            Content::Flag(_) | Content::Number(_) | Content::Text(_) => {
                self.fault(
                    node.position.max(at),
                    &join(path, "config"),
                    format!("config must be a map, not {}", node.noun()),
                )
                .hint = Some("write config: {key: value}".to_owned());
                Map::new()
            }
        }
    }

    fn object(
        &mut self,
        entries: &[(Node, Node)],
        root: &str,
        path: &str,
        origin: &mut Origin,
    ) -> Map<String, Value> {
        let mut map = Map::new();
        for (key, (at, node)) in self.distinct(entries, &join(root, path)) {
            let path = join(path, key);
            origin.keys.insert(path.clone(), at);
            let value = self.value(node, root, &path, origin);
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
                let items = items.iter().enumerate();
                items
                    .map(|(index, item)| {
                        let path = format!("{path}[{index}]");
                        origin.keys.insert(path.clone(), item.position);
                        self.value(item, root, &path, origin)
                    })
                    .collect()
            }
            Content::Map(entries) => Value::Object(self.object(entries, root, path, origin)),
        }
    }

    /// A text that is not empty.
    fn text(&mut self, at: Position, node: &Node, path: &str) -> Option<String> {
        match &node.content {
            Content::Text(text) if !text.is_empty() => Some(text.clone()),
            Content::Text(_) | Content::Null => {
                self.fault(at, path, format!("{} is empty", last(path)));
                None
            }
            Content::Flag(_) | Content::Number(_) => {
                let written = node.noun();
                let bare = written.rsplit(' ').next().unwrap_or_default().to_owned();
                self.fault(
                    node.position,
                    path,
                    format!("{} must be a text, not {written}", last(path)),
                )
                .hint = Some(format!("write \"{bare}\" in quotes"));
                None
            }
            Content::List(_) | Content::Map(_) => {
                self.fault(
                    node.position,
                    path,
                    format!("{} must be a text, not {}", last(path), node.noun()),
                );
                None
            }
        }
    }

    /// The entries of a map with a text as key, each key once. Reports the others.
    fn distinct<'a>(
        &mut self,
        entries: &'a [(Node, Node)],
        path: &str,
    ) -> Vec<(&'a str, (Position, &'a Node))> {
        let mut seen: BTreeMap<&str, Position> = BTreeMap::new();
        let mut distinct = Vec::new();
        for (key, value) in entries {
            let Some(name) = key.text() else {
                let problem = format!("a key must be a text, not {}", key.noun());
                let fault = self.fault(key.position, path, problem);
                if let Content::Number(number) = &key.content {
                    fault.hint = Some(format!("write \"{number}\" in quotes"));
                }
                continue;
            };
            match seen.get(name) {
                Some(first) => {
                    let problem = format!(
                        "the key {name:?} is given twice; first on line {}",
                        first.line
                    );
                    self.fault(key.position, &join(path, name), problem).hint =
                        Some("keep one of them".to_owned());
                }
                None => {
                    seen.insert(name, key.position);
                    distinct.push((name, (key.position, value)));
                }
            }
        }
        distinct
    }

    /// The known keys of a map. Reports the others, and uses one that is only misspelt as what it was meant to be;
    /// `explain` may know better than a spelling what an unknown key is about.
    fn fields<'a>(
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
            let path = join(path, key);
            let problem = format!("unknown key {key:?}");
            if let Some(hint) = explain(key) {
                self.fault(at, &path, problem).hint = Some(hint);
                continue;
            }
            let meant = SYNONYMS
                .iter()
                .find(|(other, name)| *other == key && known.contains(name));
            let meant = meant
                .map(|(_, name)| *name)
                .or_else(|| nearest(key, known.iter().copied()));
            let meant = meant.and_then(|meant| known.iter().find(|name| **name == meant));
            match meant {
                Some(meant) if !fields.contains_key(meant) => {
                    self.fault(at, &path, problem).hint = Some(format!("did you mean {meant:?}?"));
                    fields.insert(meant, (at, value));
                }
                _ => {
                    self.fault(at, &path, problem).hint =
                        Some(format!("known keys are {}", known.join(", ")))
                }
            }
        }
        fields
    }

    fn push(&mut self, fault: Diagnostic) -> &mut Diagnostic {
        self.faults.push(fault);
        let last = self.faults.len() - 1;
        &mut self.faults[last]
    }
}

fn examples(place: Place) -> String {
    let names: Vec<_> = catalogue::types(place).map(|kind| kind.name).collect();
    names.join(", ")
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The last key of a path, as messages call it.
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}
