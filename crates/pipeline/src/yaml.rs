//! YAML in and out: the only file that names serde-saphyr. Reading resolves scalars as Go's yaml.v3 does (`yes` is text,
//! `0123` is octal) and within the [`crate::limits`]; writing quotes whatever any YAML reader could take for something
//! else. Nothing here knows what a pipeline is.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::{Number, Value};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::{AliasLimits, DuplicateKeyPolicy, Options};
use serde_saphyr::{
    DoubleQuoted, Error, Location, MessageFormatter, Spanned, UserMessageFormatter,
};

use crate::diagnostic::Diagnostic;
use crate::limits::{MAX_ALIASES, MAX_BYTES, MAX_DEPTH, MAX_NODES};
use crate::model::Position;
use crate::node::{Content, Node};

/// The spellings of truth and nothing that Go's yaml.v3 knows.
const GO_WORDS: [&str; 9] = [
    "true", "True", "TRUE", "false", "False", "FALSE", "null", "Null", "NULL",
];

/// A node's content while it is being read: serde-saphyr hands out positions around values, not inside them.
struct Raw(Content);

struct RawVisitor;

/// A value on its way out.
struct Written<'a>(&'a Value);

/// Reads one YAML document.
pub(crate) fn parse(text: &str) -> Result<Node, Diagnostic> {
    if text.len() > MAX_BYTES {
        let problem = format!(
            "the file has {} bytes; at most {MAX_BYTES} are read",
            text.len()
        );
        return Err(Diagnostic::new(None, "", problem));
    }
    let read = serde_saphyr::from_str_with_options(text, options());
    let read = read.map_err(|error| explain(error.without_snippet()))?;
    Ok(settle(read, text))
}

/// Reads the few plain scalars as Go does that serde-saphyr reads otherwise: words such as `tRue` and `nUll` are texts, and
/// `_` may stand anywhere in a number (`1_`, `1_000.5`).
fn settle(node: Node, text: &str) -> Node {
    let written = node
        .written
        .clone()
        .and_then(|range| text.get(range))
        .unwrap_or_default();
    let is_word = |word: &str| written.eq_ignore_ascii_case(word) && !GO_WORDS.contains(&written);
    let content = match node.content {
        Content::Null if is_word("null") => Content::Text(written.to_owned()),
        Content::Flag(_) if is_word("true") || is_word("false") => {
            Content::Text(written.to_owned())
        }
        Content::Text(plain) if plain == written => {
            number_with_underscores(&plain).unwrap_or(Content::Text(plain))
        }
        Content::List(items) => {
            Content::List(items.into_iter().map(|item| settle(item, text)).collect())
        }
        Content::Map(entries) => {
            let entries = entries.into_iter();
            Content::Map(
                entries
                    .map(|(key, value)| (settle(key, text), settle(value, text)))
                    .collect(),
            )
        }
        other => other,
    };
    Node { content, ..node }
}

fn number_with_underscores(plain: &str) -> Option<Content> {
    if !plain.contains('_')
        || !plain.starts_with(|first: char| first.is_ascii_digit() || first == '+' || first == '-')
    {
        return None;
    }
    let Raw(content) =
        serde_saphyr::from_str_with_options(&plain.replace('_', ""), options()).ok()?;
    matches!(content, Content::Number(_)).then_some(content)
}

/// Writes one YAML document, in block style, ending in a line break.
pub(crate) fn emit(value: &Value) -> String {
    let options = serde_saphyr::ser_options! {
        compact_list_indent: true,
        prefer_block_scalars: true,
    };
    // Writing JSON values into a String has no way to fail; should one appear, JSON is YAML too.
    serde_saphyr::to_string_with_options(&Written(value), options)
        .unwrap_or_else(|_| value.to_string())
}

/// Whether a text may stand as a block literal (`|`). Go's yaml.v3 takes a tab at the beginning of the first line that is
/// not empty for broken indentation, so only texts whose first line begins with ink are written that way.
fn may_be_block(text: &str) -> bool {
    text.chars()
        .next()
        .is_some_and(|first| !first.is_whitespace())
}

fn options() -> Options {
    let mut alias_limits = AliasLimits::default();
    alias_limits.max_total_replayed_events = MAX_NODES;
    serde_saphyr::options! {
        strict_booleans: true,
        legacy_octal_numbers: true,
        // Lets every entry through: the tree keeps repeated keys, and the reader reports all of them.
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        with_snippet: false,
        alias_limits: alias_limits,
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 3 * MAX_NODES,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_merge_keys: MAX_ALIASES,
            max_recorded_anchor_events: MAX_NODES,
            max_recorded_anchor_bytes: 4 * MAX_BYTES,
            max_total_scalar_bytes: 4 * MAX_BYTES,
        },
    }
}

fn explain(error: &Error) -> Diagnostic {
    let position = error.location().and_then(position);
    let fault = |problem: String| Diagnostic::new(position, "", problem);
    match error {
        Error::Budget { breach, .. } => match breach {
            BudgetBreach::Depth { .. } => fault(format!(
                "lists and maps are nested more than {MAX_DEPTH} deep"
            )),
            BudgetBreach::Aliases { .. }
            | BudgetBreach::Anchors { .. }
            | BudgetBreach::MergeKeys { .. } => {
                fault(format!("more than {MAX_ALIASES} anchors or aliases"))
                    .hint("write the values out")
            }
            BudgetBreach::AliasAnchorRatio { .. } => {
                fault("the same anchor is used very often".to_owned()).hint("write the values out")
            }
            BudgetBreach::Documents { .. } => second_document(position),
            _ => fault(format!("the file describes more than {MAX_NODES} values")),
        },
        Error::AliasReplayLimitExceeded { .. } | Error::AliasExpansionLimitExceeded { .. } => {
            fault(format!("aliases expand to more than {MAX_NODES} values"))
                .hint("write the values out")
        }
        Error::MultipleDocuments { .. } => second_document(position),
        Error::AliasError { error, .. } => explain(error),
        other => fault(format!(
            "not YAML: {}",
            UserMessageFormatter.format_message(other)
        )),
    }
}

fn second_document(position: Option<Position>) -> Diagnostic {
    Diagnostic::new(position, "", "a second document begins here")
        .hint("a pipeline file has one; split the file")
}

fn position(location: Location) -> Option<Position> {
    let line = u32::try_from(location.line()).ok()?;
    let column = u32::try_from(location.column()).ok()?;
    (line > 0).then_some(Position { line, column })
}

// === impl Node ===

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Raw>::deserialize(deserializer)?;
        let span = spanned.defined.span();
        let written = span.byte_offset().zip(span.byte_len());
        let written = written.and_then(|(start, len)| {
            Some(usize::try_from(start).ok()?..usize::try_from(start + len).ok()?)
        });
        Ok(Self {
            content: spanned.value.0,
            written,
            position: position(spanned.referenced).unwrap_or(Position { line: 1, column: 1 }),
        })
    }
}

// === impl Raw ===

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Raw, E> {
        Ok(Raw(Content::Flag(flag)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw(Content::Number(number.into())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Raw, E> {
        Ok(Raw(Content::Number(number.into())))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Raw, E> {
        let number =
            Number::from_f64(number).ok_or_else(|| E::custom("a number must be finite"))?;
        Ok(Raw(Content::Number(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw(Content::Text(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw(Content::Text(text)))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw(Content::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw(Content::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw(Content::List(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw(Content::Map(entries)))
    }
}

// === impl Written ===

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) if text.contains('\n') && !may_be_block(text) => {
                DoubleQuoted(text).serialize(serializer)
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(Written)),
            Value::Object(map) => {
                serializer.collect_map(map.iter().map(|(key, value)| (key, Written(value))))
            }
            other => other.serialize(serializer),
        }
    }
}
