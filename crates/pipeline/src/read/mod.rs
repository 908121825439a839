//! From text to the model. Walks the whole tree and collects every fault on the way; a key that is only misspelt is used as
//! what it was meant to be, so that what stands under it is checked in the same go. Which step types exist is not asked here.

mod fields;
mod foreign;
mod step;

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::{PipelineFile, Place, Position};
use crate::node::{Content, Node};
use crate::yaml;

const TOP_KEYS: [&str; 2] = ["pipelines", "pipeline"];
const PIPELINE_KEYS: [&str; 4] = ["name", "source", "processors", "consumers"];
const SHAPE: &str = "pipelines: {NAME: {source: …, processors: […], consumers: […]}}";

/// Reads a pipeline file in the spelling `pipelines:` (a map with one entry) or `pipeline:`.
///
/// Step types are not looked up and configs not checked against them: see [`crate::check_runnable`]. `${NAME}` stays as it
/// is: see [`crate::expand`]. Scalars mean what they mean to Go's yaml.v3, with two exceptions: a bare date is a text here,
/// and `.inf` and `.nan` are faults.
///
/// # Errors
/// All faults of the file, by position. Only a text that is no YAML at all, or that goes beyond [`crate::limits`], is told
/// alone.
pub fn read(text: &str) -> Result<PipelineFile, Diagnostics> {
    let yaml::Document { root, faults } = yaml::parse(text)?;
    if let Some(refusal) = foreign::refuse(&root) {
        return Err(refusal.into());
    }
    let mut reader = Reader {
        faults,
        names: BTreeMap::new(),
    };
    let file = reader.document(&root);
    Diagnostics::none_or(reader.faults)?;
    // Without faults there is a file; a reader that forgot to say why there is none must still not invent one.
    file.ok_or_else(|| Diagnostic::new(None, "", "the file holds no pipeline").into())
}

struct Reader {
    faults: Vec<Diagnostic>,
    /// Names of steps and where they were given, within one pipeline.
    names: BTreeMap<String, Position>,
}

// === impl Reader ===

impl Reader {
    fn fault(&mut self, at: Position, path: &str, problem: impl Into<String>) {
        self.faults.push(Diagnostic::new(Some(at), path, problem));
    }

    fn fault_with(&mut self, at: Position, path: &str, problem: impl Into<String>, hint: impl Into<String>) {
        self.faults.push(Diagnostic::new(Some(at), path, problem).hint(hint));
    }

    fn document(&mut self, document: &Node) -> Option<PipelineFile> {
        let hint = format!("write {SHAPE}");
        if matches!(document.content, Content::Null) {
            self.faults
                .push(Diagnostic::new(None, "", "the file is empty").hint(hint));
            return None;
        }
        if document.entries().is_none() {
            let problem = format!("a pipeline file is a map, not {}", document.noun());
            self.fault_with(document.position, "", problem, hint);
            return None;
        }
        let fields = self.fields(document, "", &TOP_KEYS, |_| None);
        match (fields.get("pipelines"), fields.get("pipeline")) {
            (Some((at, node)), None) => self.pipelines(*at, node),
            (None, Some((at, node))) => self.pipeline(*at, node, "pipeline", None),
            (Some((left, _)), Some((right, _))) => {
                let problem = "both \"pipelines\" and \"pipeline\" are given";
                self.fault_with(*left.max(right), "", problem, "keep one of them");
                None
            }
            (None, None) => {
                if self.faults.is_empty() {
                    self.fault_with(document.position, "", "the file holds no pipeline", hint);
                }
                None
            }
        }
    }

    fn pipelines(&mut self, at: Position, node: &Node) -> Option<PipelineFile> {
        const PATH: &str = "pipelines";
        let is_empty = |entries: &[_]| entries.is_empty();
        if matches!(node.content, Content::Null) || node.entries().is_some_and(is_empty) {
            let hint = "give it one entry, NAME: {source: …, consumers: […]}";
            self.fault_with(at, PATH, "\"pipelines\" is empty", hint);
            return None;
        }
        let Some(entries) = node.entries() else {
            let problem = format!(
                "\"pipelines\" must be a map from a name to a pipeline, not {}",
                node.noun()
            );
            let hint = "write NAME: {source: …, consumers: […]}, or \"pipeline\" for one without a name";
            self.fault_with(node.position, PATH, problem, hint);
            return None;
        };
        let entries = self.distinct(entries, PATH);
        if let [_, (_, (second, _)), ..] = entries.as_slice() {
            let mut names: Vec<_> = entries.iter().take(5).map(|(name, _)| *name).collect();
            if entries.len() > names.len() {
                names.push("…");
            }
            let count = entries.len();
            let problem = format!("{count} pipelines in one file ({}); a file holds one", names.join(", "));
            self.fault_with(*second, PATH, problem, "split the file");
        }
        let mut files = Vec::new();
        for (key, (at, node)) in entries {
            let path = format!("{PATH}.{key}");
            if key.is_empty() {
                self.fault(at, &path, "the name of the pipeline is empty");
            }
            files.push(self.pipeline(at, node, &path, Some(key)));
        }
        files.into_iter().next().flatten()
    }

    fn pipeline(&mut self, at: Position, node: &Node, path: &str, key: Option<&str>) -> Option<PipelineFile> {
        self.names.clear();
        if node.entries().is_none() {
            let problem = format!(
                "a pipeline is a map with source, processors and consumers, not {}",
                node.noun()
            );
            self.fault(node.position_or(at), path, problem);
            return None;
        }
        let fields = self.fields(node, path, &PIPELINE_KEYS, |_| None);
        let name = fields
            .get("name")
            .and_then(|(at, node)| self.text(*at, node, &join(path, "name")));
        let source = match fields.get("source") {
            Some((at, node)) => self.source(*at, node, &join(path, "source")),
            None => {
                let hint = "write source: {type: BufferedStorageSourceAdapter, config: {…}}";
                self.fault_with(at, path, "a pipeline needs a source", hint);
                None
            }
        };
        let processors = match fields.get("processors") {
            Some((at, node)) => self.steps(*at, node, &join(path, "processors"), Place::Processor),
            None => Vec::new(),
        };
        let (consumers_at, consumers) = match fields.get("consumers") {
            Some((at, node)) => {
                let before = self.faults.len();
                let steps = self.steps(*at, node, &join(path, "consumers"), Place::Consumer);
                // Steps that are wrong are told on their own.
                (*at, (self.faults.len() == before).then_some(steps))
            }
            None => (at, Some(Vec::new())),
        };
        if consumers.as_ref().is_some_and(Vec::is_empty) {
            let hint = "write consumers: [{type: StdoutConsumer}]";
            self.fault_with(
                consumers_at,
                &join(path, "consumers"),
                "a pipeline needs at least one consumer",
                hint,
            );
        }
        Some(PipelineFile {
            key: key.or(name.as_deref()).unwrap_or("default").to_owned(),
            name,
            source: source?,
            processors,
            consumers: consumers?,
        })
    }
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
