//! A YAML text as trees in which every node knows its place; comments and spelling stay in the text.

use std::collections::HashSet;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StructureStyle, options};

/// One YAML document.
pub struct Document {
    /// The node that all others are in.
    pub root: Node,
    /// The numbers of nodes that are repeated elsewhere.
    pub repeated: HashSet<usize>,
}

impl Document {
    /// Whether nothing is in it but comments: the parser says `~` then.
    pub fn is_empty(&self) -> bool {
        matches!(&self.root.content, Content::Scalar { text, is_text: false } if matches!(text.as_str(), "" | "~"))
    }
}

/// A value and its place.
pub struct Node {
    /// What it is.
    pub content: Content,
    /// Where its text begins and ends, in bytes; of lists and maps in blocks both are their beginning.
    pub range: Range<usize>,
    /// Its line, from 1.
    pub line: usize,
    /// Its column, from 1.
    pub column: usize,
    /// The number by which it can be repeated elsewhere, or 0.
    pub anchor: usize,
}

/// What a value is.
pub enum Content {
    /// A single value.
    Scalar {
        /// What it says.
        text: String,
        /// Whether it is text whatever it says, as in quotes.
        is_text: bool,
    },
    /// A list.
    List(Form, Vec<Node>),
    /// A map, in the order of the text.
    Map(Form, Vec<(Node, Node)>),
    /// The node with this number once more.
    Alias(usize),
}

/// How a list or a map is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Line by line.
    Block,
    /// In brackets, as in JSON.
    Flow,
}

impl Node {
    /// The value under a key of this map, with the key: its own, not one that is merged into it.
    pub fn entry(&self, wanted: &str) -> Option<(&Self, &Self)> {
        let Content::Map(_, entries) = &self.content else { return None };
        let found = entries.iter().find(|(key, _)| matches!(&key.content, Content::Scalar { text, .. } if text == wanted));
        found.map(|(key, value)| (key, value))
    }

    /// The text under a key of this map.
    pub fn text(&self, key: &str) -> Option<&str> {
        match &self.entry(key)?.1.content {
            Content::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether a key in it begins so.
    pub fn has_key_like(&self, beginning: &str) -> bool {
        match &self.content {
            Content::List(_, items) => items.iter().any(|item| item.has_key_like(beginning)),
            Content::Map(_, entries) => entries.iter().any(|(key, value)| {
                let is_like = matches!(&key.content, Content::Scalar { text, .. } if text.starts_with(beginning));
                is_like || value.has_key_like(beginning)
            }),
            Content::Scalar { .. } | Content::Alias(_) => false,
        }
    }

    /// Whether it says the same, wherever it stands.
    pub fn says_the_same(&self, other: &Self) -> bool {
        match (&self.content, &other.content) {
            (Content::Scalar { text, is_text }, Content::Scalar { text: other, is_text: is_other }) => text == other && is_text == is_other,
            (Content::List(_, items), Content::List(_, others)) => {
                items.len() == others.len() && items.iter().zip(others).all(|(item, other)| item.says_the_same(other))
            }
            (Content::Map(_, entries), Content::Map(_, others)) => {
                let same = |((key, value), (other_key, other)): (&(Self, Self), &(Self, Self))| {
                    key.says_the_same(other_key) && value.says_the_same(other)
                };
                entries.len() == others.len() && entries.iter().zip(others).all(same)
            }
            (Content::Alias(_), Content::Alias(_)) => true,
            _ => false,
        }
    }
}

/// Reads all documents of a text.
///
/// # Errors
/// Where it is no YAML, or lists and maps are nested more than 255 deep.
pub fn parse(text: &str) -> Result<Vec<Document>, ScanError> {
    let options = options! { emit_comments: false };
    let mut documents = Vec::new();
    // What is open, the outermost first: a text nested deeply costs no stack.
    let mut open: Vec<Open> = Vec::new();
    let mut repeated = HashSet::new();
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next?;
        let done = match event {
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(|open| open.closed(&span)),
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix() == "str");
                Some(node(Content::Scalar { text: text.into_owned(), is_text }, &span, anchor))
            }
            Event::Alias(number) => {
                repeated.insert(number);
                Some(node(Content::Alias(number), &span, 0))
            }
            Event::SequenceStart(style, anchor, _) => {
                open.push(Open { node: node(Content::List(form(style), Vec::new()), &span, anchor), key: None });
                None
            }
            Event::MappingStart(style, anchor, _) => {
                open.push(Open { node: node(Content::Map(form(style), Vec::new()), &span, anchor), key: None });
                None
            }
            // None of the others is a value.
            _ => None,
        };
        let Some(done) = done else { continue };
        match open.last_mut() {
            Some(outer) => outer.take(done),
            None => documents.push(Document { root: done, repeated: std::mem::take(&mut repeated) }),
        }
    }
    Ok(documents)
}

fn node(content: Content, span: &Span, anchor: usize) -> Node {
    Node { content, range: bytes(span), line: span.start.line(), column: span.start.col() + 1, anchor }
}

/// A list or a map that is not at its end.
struct Open {
    node: Node,
    /// The key whose value comes next.
    key: Option<Node>,
}

impl Open {
    fn take(&mut self, next: Node) {
        match &mut self.node.content {
            Content::List(_, items) => items.push(next),
            Content::Map(_, entries) => match self.key.take() {
                Some(key) => entries.push((key, next)),
                None => self.key = Some(next),
            },
            Content::Scalar { .. } | Content::Alias(_) => {}
        }
    }

    fn closed(mut self, span: &Span) -> Node {
        if matches!(self.node.content, Content::List(Form::Flow, _) | Content::Map(Form::Flow, _)) {
            self.node.range.end = bytes(span).end;
        }
        self.node
    }
}

fn bytes(span: &Span) -> Range<usize> {
    // The parser counts bytes in whatever it gets as one text.
    let start = span.start.byte_offset().unwrap_or_default();
    start..span.end.byte_offset().unwrap_or(start).max(start)
}

fn form(style: StructureStyle) -> Form {
    if style == StructureStyle::Flow { Form::Flow } else { Form::Block }
}
