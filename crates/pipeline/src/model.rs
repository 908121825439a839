//! The model of a pipeline file: what the planner writes and the runner reads. Plain data; it knows neither YAML nor
//! which step types exist.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

/// One pipeline: a source, processors in order, and consumers that each receive what the last processor gives.
#[derive(Clone, Debug, PartialEq)]
pub struct PipelineFile {
    /// The key in the map `pipelines:`, for example `stellar.payments`. A file in the spelling `pipeline:` has no key; its
    /// `name` stands in, or `default`. Components register as `cdp-<key>` when they are not given an id.
    pub key: String,
    /// A title for people.
    pub name: Option<String>,
    /// Where messages come from.
    pub source: Step,
    /// What is done to each message, in order. May be empty.
    pub processors: Vec<Step>,
    /// Where messages go. At least one in a file that was read.
    pub consumers: Vec<Step>,
}

/// One step of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What the step is called in status, metrics and messages; unique in its file.
    pub name: Option<String>,
    /// `type` in the file, for example `ExternalProcessor`. Any text: see [`crate::catalogue`] for the known ones.
    pub kind: String,
    /// Settings of the step, in the file's order, with `${NAME}` placeholders as they were written.
    pub config: Map<String, Value>,
    /// Where the step was read from. Not compared: two files that say the same are equal.
    pub origin: Origin,
}

/// Where a step can stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// `source`
    Source,
    /// An entry of `processors`.
    Processor,
    /// An entry of `consumers`.
    Consumer,
}

/// A place in a text. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

/// Where a step came from. Empty for a step that was made in memory. All origins are equal, so that a file which is written
/// and read again compares equal.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Path of the step in its file, for example `pipelines.x.processors[1]`; empty when it was not read.
    pub(crate) path: String,
    /// Where the step begins.
    pub(crate) position: Option<Position>,
    /// Where each key of the step stands, by its path below the step, for example `config.retry.initial`.
    pub(crate) keys: BTreeMap<String, Position>,
}

// === impl Step ===

impl Step {
    /// A step without a name.
    pub fn new(kind: impl Into<String>, config: Map<String, Value>) -> Self {
        Self {
            name: None,
            kind: kind.into(),
            config,
            origin: Origin::default(),
        }
    }

    /// The same step with a name.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..self
        }
    }

    /// Where the step begins in the file it was read from.
    pub fn position(&self) -> Option<Position> {
        self.origin.position
    }

    /// Where a key of the step stands, by its path below the step (`config.retry.initial`); else the nearest key above it,
    /// else the step.
    pub fn position_of(&self, key: &str) -> Option<Position> {
        self.origin.at(key)
    }

    /// The path of the step in the file it was read from, for example `pipelines.x.processors[1]`; empty when it was not
    /// read.
    pub fn path(&self) -> &str {
        &self.origin.path
    }
}

// === impl PipelineFile ===

impl PipelineFile {
    /// All steps with their place and their index in it, in the order in which messages pass.
    pub fn steps(&self) -> impl Iterator<Item = (Place, usize, &Step)> {
        let processors = self.processors.iter().enumerate();
        let consumers = self.consumers.iter().enumerate();
        std::iter::once((Place::Source, 0, &self.source))
            .chain(processors.map(|(index, step)| (Place::Processor, index, step)))
            .chain(consumers.map(|(index, step)| (Place::Consumer, index, step)))
    }

    /// The path of a step in messages: as it was read, or else as it will be written.
    pub(crate) fn path_of(&self, place: Place, index: usize, step: &Step) -> String {
        if !step.origin.path.is_empty() {
            return step.origin.path.clone();
        }
        let root = format!("pipelines.{}", self.key);
        match place {
            Place::Source => format!("{root}.source"),
            Place::Processor => format!("{root}.processors[{index}]"),
            Place::Consumer => format!("{root}.consumers[{index}]"),
        }
    }
}

// === impl Origin ===

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Origin {}

impl Origin {
    /// Where the key at `path` below the step stands, else the nearest key above it, else the step.
    pub(crate) fn at(&self, path: &str) -> Option<Position> {
        let mut rest = path;
        loop {
            if let Some(position) = self.keys.get(rest) {
                return Some(*position);
            }
            match rest.rfind(['.', '[']) {
                Some(end) => rest = &rest[..end],
                None => return self.position,
            }
        }
    }
}

// === impl Place ===

impl Place {
    /// All places, in the order in which messages pass.
    pub const ALL: [Self; 3] = [Self::Source, Self::Processor, Self::Consumer];

    /// What a step in this place is called in a sentence.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Processor => "processor",
            Self::Consumer => "consumer",
        }
    }
}

// === impl Position ===

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}
