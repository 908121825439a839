//! `${NAME}` in configs: secrets reach a pipeline through the environment of the process that runs it, never through the
//! file. Reading and writing keep placeholders as they are; only the process that runs the pipeline expands them, from
//! variables that its caller hands in.
//!
//! Only text values inside a step's `config` are expanded, never keys, types or names, and never what an expansion put in: a
//! variable cannot change the structure of a file. `NAME` is `[A-Za-z_][A-Za-z0-9_]*`. `$${` is a literal `${`. A `$` that is
//! not followed by `{` stays as it is. (The Go binary also expands `$NAME`, and drops a `$` that is doubled: there a literal
//! `$` cannot be written. What is written for both uses `${NAME}` only.)

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::{PipelineFile, Step};

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Literal(&'a str),
    Variable(&'a str),
    /// From `${` to `}`, or to the end, when what stands between is no name.
    Malformed(&'a str),
}

/// The names of all variables that the file's configs use.
pub fn placeholders(file: &PipelineFile) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, _, step) in file.steps() {
        for value in step.config.values() {
            visit(value, "", &mut |_, text| {
                names.extend(pieces(text).into_iter().filter_map(|piece| match piece {
                    Piece::Variable(name) => Some(name.to_owned()),
                    Piece::Literal(_) | Piece::Malformed(_) => None,
                }));
            });
        }
    }
    names
}

/// Whether a text holds a placeholder, and so says nothing yet about its value.
pub(crate) fn has_placeholder(text: &str) -> bool {
    pieces(text).iter().any(|piece| matches!(piece, Piece::Variable(_)))
}

/// The file with each `${NAME}` replaced by what `lookup` gives for it. The values are texts, whatever they look like.
///
/// # Errors
/// Every variable that is not set (an empty value is set) and every malformed placeholder, where it stands. Messages name
/// variables, never values.
pub fn expand(file: &PipelineFile, lookup: impl Fn(&str) -> Option<String>) -> Result<PipelineFile, Diagnostics> {
    let mut faults = Vec::new();
    for (place, index, step) in file.steps() {
        let root = file.path_of(place, index, step);
        for (key, value) in &step.config {
            visit(value, &format!("config.{key}"), &mut |path, text| {
                for piece in pieces(text) {
                    let (problem, hint) = match piece {
                        Piece::Literal(_) => continue,
                        Piece::Variable(name) if lookup(name).is_some() => continue,
                        Piece::Variable(name) => (
                            format!("the variable {name:?} is not set"),
                            "set it in the environment of the process that runs the pipeline".to_owned(),
                        ),
                        Piece::Malformed(written) => (
                            format!("{written:?} is not a placeholder"),
                            "write ${NAME} with letters, digits and _, or $${ for a literal ${".to_owned(),
                        ),
                    };
                    faults.push(Diagnostic::new(step.origin.at(path), format!("{root}.{path}"), problem).hint(hint));
                }
            });
        }
    }
    Diagnostics::none_or(faults)?;
    let steps = |steps: &[Step]| steps.iter().map(|step| expand_step(step, &lookup)).collect();
    Ok(PipelineFile {
        key: file.key.clone(),
        name: file.name.clone(),
        source: expand_step(&file.source, &lookup),
        processors: steps(&file.processors),
        consumers: steps(&file.consumers),
    })
}

fn expand_step(step: &Step, lookup: &impl Fn(&str) -> Option<String>) -> Step {
    Step {
        config: expand_map(&step.config, lookup),
        ..step.clone()
    }
}

fn expand_map(map: &Map<String, Value>, lookup: &impl Fn(&str) -> Option<String>) -> Map<String, Value> {
    let entries = map.iter();
    entries
        .map(|(key, value)| (key.clone(), expand_value(value, lookup)))
        .collect()
}

fn expand_value(value: &Value, lookup: &impl Fn(&str) -> Option<String>) -> Value {
    match value {
        Value::String(text) => Value::String(expand_text(text, lookup)),
        Value::Array(items) => items.iter().map(|item| expand_value(item, lookup)).collect(),
        Value::Object(map) => Value::Object(expand_map(map, lookup)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn expand_text(text: &str, lookup: &impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Literal(literal) => expanded.push_str(literal),
            Piece::Variable(name) => expanded.push_str(&lookup(name).unwrap_or_default()),
            // Refused before anything is expanded.
            Piece::Malformed(_) => {}
        }
    }
    expanded
}

/// Calls `each` with the path and the text of every text in a value.
fn visit(value: &Value, path: &str, each: &mut impl FnMut(&str, &str)) {
    match value {
        Value::String(text) => each(path, text),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                visit(item, &format!("{path}[{index}]"), each);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                visit(item, &format!("{path}.{key}"), each);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            pieces.push(Piece::Literal(before));
            pieces.push(Piece::Literal("${"));
            rest = after;
            continue;
        }
        pieces.push(Piece::Literal(before));
        let end = match after.find('}') {
            Some(end) if is_name(&after[..end]) => {
                pieces.push(Piece::Variable(&after[..end]));
                rest = &after[end + 1..];
                continue;
            }
            Some(end) => at + 2 + end + 1,
            None => rest.len(),
        };
        pieces.push(Piece::Malformed(&rest[at..end]));
        rest = &rest[end..];
    }
    pieces.push(Piece::Literal(rest));
    pieces.retain(|piece| *piece != Piece::Literal(""));
    pieces
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|other| other.is_ascii_alphanumeric() || other == '_')
}
