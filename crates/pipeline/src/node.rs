//! A YAML document as a tree in which every value knows where it stands. It keeps what a map would swallow (repeated keys,
//! keys that are not text), so that the reader can report all faults; it knows nothing of pipelines.

use serde_json::Number;

use crate::model::Position;

/// A value and where it stands; for an alias or a merged key, where it is used.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) content: Content,
    pub(crate) position: Position,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Null,
    Flag(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    /// In the order of the document.
    Map(Vec<(Node, Node)>),
}

// === impl Node ===

impl Node {
    /// The text, when it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            Content::Null | Content::Flag(_) | Content::Number(_) | Content::List(_) | Content::Map(_) => None,
        }
    }

    /// The entries, when it is a map.
    pub(crate) fn entries(&self) -> Option<&[(Node, Node)]> {
        match &self.content {
            Content::Map(entries) => Some(entries),
            Content::Null | Content::Flag(_) | Content::Number(_) | Content::Text(_) | Content::List(_) => None,
        }
    }

    /// The value at a key, when it is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        let mut entries = self.entries()?.iter();
        entries
            .find(|(name, _)| name.text() == Some(key))
            .map(|(_, value)| value)
    }

    /// Where a fault of this value is told: at the value, or where its key stands when there is no value to see.
    pub(crate) fn position_or(&self, key: Position) -> Position {
        if matches!(self.content, Content::Null) {
            key
        } else {
            self.position
        }
    }

    /// What it is, in a sentence: `the number 30`, `a list`.
    pub(crate) fn noun(&self) -> String {
        match &self.content {
            Content::Null => "an empty value".to_owned(),
            Content::Flag(flag) => format!("the flag {flag}"),
            Content::Number(number) => format!("the number {number}"),
            Content::Text(text) if text.chars().count() > 40 => "a text".to_owned(),
            Content::Text(text) => format!("the text {text:?}"),
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a map".to_owned(),
        }
    }
}
