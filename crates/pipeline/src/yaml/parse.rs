//! YAML text to a tree with positions. Builds the tree from the parser's events on a stack of its own: a recursive reader
//! would overflow the thread's stack long before a limit of depth could be told. Aliases are expanded, and paid for, here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Number;
use serde_saphyr::granit_parser::{Event, Marker, Options, Parser, ScalarStyle, Span, Tag};

use crate::diagnostic::Diagnostic;
use crate::limits::{MAX_ALIASES, MAX_BYTES, MAX_DEPTH, MAX_NODES};
use crate::model::Position;
use crate::node::{Content, Node};

use super::scalar::{Meaning, resolve};
use super::syntax::{explain, too_deep};

/// A document, and the faults that did not keep it from being read.
pub(crate) struct Document {
    pub(crate) root: Node,
    pub(crate) faults: Vec<Diagnostic>,
}

/// A list or a map that is not complete.
struct Frame {
    position: Position,
    anchor: usize,
    size: Size,
    kind: Open,
}

enum Open {
    List(Vec<Node>),
    Map {
        entries: Vec<(Node, Node)>,
        /// Where `<<` stands, and what is merged there.
        merges: Vec<(Position, Node)>,
        key: Option<Key>,
    },
}

enum Key {
    Ordinary(Node),
    Merge(Position),
}

/// What a node costs, all that is in it included.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    bytes: usize,
    /// Lists and maps inside one another.
    depth: usize,
}

#[derive(Default)]
struct Builder {
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: BTreeMap<usize, (Node, Size)>,
    aliases: usize,
    spent: Size,
    documents: usize,
    faults: Vec<Diagnostic>,
}

/// Reads one YAML document.
pub(crate) fn parse(text: &str) -> Result<Document, Diagnostic> {
    if text.len() > MAX_BYTES {
        let problem = format!("the file has {} bytes; at most {MAX_BYTES} are read", text.len());
        return Err(Diagnostic::new(None, "", problem));
    }
    let mut builder = Builder::default();
    let mut options = Options::default();
    // Another crate of the build may switch comments on; a parser that hands them out limits how many may follow another.
    options.set_emit_comments(false);
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| explain(&error))?;
        builder.event(event, span)?;
    }
    let empty = Node {
        content: Content::Null,
        position: Position { line: 1, column: 1 },
    };
    Ok(Document {
        root: builder.root.unwrap_or(empty),
        faults: builder.faults,
    })
}

/// Where the parser stands: it counts lines from 1 and columns from 0.
pub(super) fn position(marker: &Marker) -> Position {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Position {
        line: count(marker.line().max(1)),
        column: count(marker.col().saturating_add(1)),
    }
}

// === impl Builder ===

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
        let at = position(&span.start);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let fault = Diagnostic::new(Some(at), "", "a second document begins here");
                    return Err(fault.hint("a pipeline file has one; split the file"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                if self.is_merge_key(&text, style, tag.as_deref()) {
                    self.expect_merge(at);
                    return Ok(());
                }
                let size = Size {
                    nodes: 1,
                    bytes: text.len(),
                    depth: 0,
                };
                let content = self.scalar(&text, style, tag.as_deref(), at);
                self.complete(Node { content, position: at }, size, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.open(at, anchor, Open::List(Vec::new())),
            Event::MappingStart(_, anchor, _) => {
                let kind = Open::Map {
                    entries: Vec::new(),
                    merges: Vec::new(),
                    key: None,
                };
                self.open(at, anchor, kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, at),
            // Comments and the frame of the stream.
            _ => Ok(()),
        }
    }

    fn open(&mut self, position: Position, anchor: usize, kind: Open) -> Result<(), Diagnostic> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep(Some(position)));
        }
        self.stack.push(Frame {
            position,
            anchor,
            size: Size::default(),
            kind,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Diagnostic> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let content = match frame.kind {
            Open::List(items) => Content::List(items),
            Open::Map { entries, merges, .. } => Content::Map(self.merged(entries, merges)?),
        };
        let size = Size {
            nodes: frame.size.nodes + 1,
            depth: frame.size.depth + 1,
            ..frame.size
        };
        self.complete(
            Node {
                content,
                position: frame.position,
            },
            size,
            frame.anchor,
        )
    }

    /// Puts a node where it belongs.
    fn complete(&mut self, node: Node, size: Size, anchor: usize) -> Result<(), Diagnostic> {
        let position = node.position;
        // What a list or map holds was paid for when it came.
        self.spend(
            Size {
                nodes: 1,
                bytes: 0,
                depth: 0,
            },
            position,
        )?;
        if anchor != 0 {
            // The copy that aliases are made from.
            self.spend(size, position)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        self.place(node, size)
    }

    fn place(&mut self, node: Node, size: Size) -> Result<(), Diagnostic> {
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        frame.size.add(size);
        match &mut frame.kind {
            Open::List(items) => items.push(node),
            Open::Map { entries, merges, key } => match key.take() {
                None => *key = Some(Key::Ordinary(node)),
                Some(Key::Ordinary(key)) => entries.push((key, node)),
                Some(Key::Merge(position)) => merges.push((position, node)),
            },
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<(), Diagnostic> {
        self.aliases += 1;
        if self.aliases > MAX_ALIASES {
            let fault = Diagnostic::new(Some(at), "", format!("more than {MAX_ALIASES} aliases"));
            return Err(fault.hint("write the values out"));
        }
        let Some((node, size)) = self.anchors.get(&anchor) else {
            let fault = Diagnostic::new(Some(at), "", "an anchor that holds an alias to itself");
            return Err(fault.hint("write the value out"));
        };
        let size = *size;
        let node = Node {
            position: at,
            ..node.clone()
        };
        self.spend(size, at)?;
        if self.stack.len() + size.depth > MAX_DEPTH {
            return Err(too_deep(Some(at)));
        }
        self.place(node, size)
    }

    fn spend(&mut self, size: Size, at: Position) -> Result<(), Diagnostic> {
        self.spent.nodes += size.nodes;
        self.spent.bytes += size.bytes;
        // The text itself is within its own limit; these bytes are what aliases add.
        let problem = if self.spent.nodes > MAX_NODES {
            format!("the file describes more than {MAX_NODES} values")
        } else if self.spent.bytes > MAX_BYTES {
            format!("aliases make the file larger than {MAX_BYTES} bytes")
        } else {
            return Ok(());
        };
        let fault = Diagnostic::new(Some(at), "", problem);
        Err(if self.aliases > 0 {
            fault.hint("write the values out instead of using aliases")
        } else {
            fault
        })
    }

    fn is_merge_key(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> bool {
        let is_key = matches!(
            self.stack.last(),
            Some(Frame {
                kind: Open::Map { key: None, .. },
                ..
            })
        );
        is_key && text == "<<" && style == ScalarStyle::Plain && tag.is_none()
    }

    fn expect_merge(&mut self, at: Position) {
        if let Some(Frame {
            kind: Open::Map { key, .. },
            ..
        }) = self.stack.last_mut()
        {
            *key = Some(Key::Merge(at));
        }
    }

    /// The entries of a map and what `<<` adds to them: the map's own keys win, then the first map that has the key.
    fn merged(
        &mut self,
        mut entries: Vec<(Node, Node)>,
        merges: Vec<(Position, Node)>,
    ) -> Result<Vec<(Node, Node)>, Diagnostic> {
        let mut names: BTreeSet<String> = entries
            .iter()
            .filter_map(|(key, _)| key.text())
            .map(str::to_owned)
            .collect();
        for (at, node) in merges {
            let maps = match node.content {
                Content::List(items) => items,
                _ => vec![node],
            };
            for map in maps {
                let Content::Map(merged) = map.content else {
                    let fault =
                        Diagnostic::new(Some(map.position), "", format!("`<<` merges maps, not {}", map.noun()));
                    self.faults
                        .push(fault.hint("put `<<` in quotes if it is an ordinary key"));
                    continue;
                };
                for (key, value) in merged {
                    let is_new = key.text().is_none_or(|name| names.insert(name.to_owned()));
                    if is_new {
                        // Told where it is used: the merged map may serve many.
                        entries.push((Node { position: at, ..key }, value));
                    }
                }
            }
        }
        Ok(entries)
    }

    /// What a scalar is. One that is wrong counts as a text, so that it is told once.
    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Content {
        let as_text = Content::Text(text.to_owned());
        if let Some(tag) = tag {
            return self.tagged(text, tag, at).unwrap_or(as_text);
        }
        if style != ScalarStyle::Plain {
            return as_text;
        }
        match resolve(text) {
            Meaning::Null => Content::Null,
            Meaning::Flag(flag) => Content::Flag(flag),
            Meaning::Number(number) => Content::Number(number),
            Meaning::Text => as_text,
            Meaning::NotFinite => {
                let fault = Diagnostic::new(Some(at), "", format!("the number {text} is not finite"));
                self.faults.push(fault.hint("put it in quotes if it is a text"));
                as_text
            }
        }
    }

    /// What a scalar with a tag is; `None` for a text.
    fn tagged(&mut self, text: &str, tag: &Tag, at: Position) -> Option<Content> {
        let written = tag.original();
        let mut fault = |problem: String, hint: &str| {
            self.faults.push(Diagnostic::new(Some(at), "", problem).hint(hint));
            None
        };
        match (tag.core_suffix(), resolve(text)) {
            (Some("str"), _) => None,
            (None, _) if written == "!" => None,
            (Some("null"), Meaning::Null) => Some(Content::Null),
            (Some("bool"), Meaning::Flag(flag)) => Some(Content::Flag(flag)),
            (Some("int"), Meaning::Number(number)) if !number.is_f64() => Some(Content::Number(number)),
            (Some("float"), Meaning::Number(number)) => number.as_f64().and_then(Number::from_f64).map(Content::Number),
            (Some("int" | "float" | "bool" | "null"), _) => {
                fault(format!("{text:?} does not fit the tag {written}"), "remove the tag")
            }
            _ => fault(
                format!("the tag {written} is not known here"),
                "remove it, or put a text that begins with ! in quotes",
            ),
        }
    }
}

// === impl Size ===

impl Size {
    fn add(&mut self, other: Self) {
        self.nodes += other.nodes;
        self.bytes += other.bytes;
        self.depth = self.depth.max(other.depth);
    }
}
