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
    let mut reader = Reader { events: Parser::new_from_str_with_options(text, options), repeated: HashSet::new() };
    let mut documents = Vec::new();
    while let Some((event, span)) = reader.next()? {
        if matches!(event, Event::DocumentStart(..) | Event::DocumentEnd | Event::StreamStart | Event::StreamEnd) {
            continue;
        }
        let root = reader.node(event, span)?;
        documents.push(Document { root, repeated: std::mem::take(&mut reader.repeated) });
    }
    Ok(documents)
}

struct Reader<I> {
    events: I,
    repeated: HashSet<usize>,
}

impl<'t, I: Iterator<Item = Result<(Event<'t>, Span), ScanError>>> Reader<I> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, ScanError> {
        self.events.next().transpose()
    }

    /// The parser closes all that it opens, or fails: an end of the events is the end of what is read.
    fn node(&mut self, event: Event<'t>, span: Span) -> Result<Node, ScanError> {
        let mut range = bytes(&span);
        let (content, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix() == "str");
                (Content::Scalar { text: text.into_owned(), is_text }, anchor)
            }
            Event::SequenceStart(style, anchor, _) => {
                let mut items = Vec::new();
                while let Some((event, span)) = self.next()? {
                    if matches!(event, Event::SequenceEnd) {
                        range.end = end(style, &range, &span);
                        break;
                    }
                    items.push(self.node(event, span)?);
                }
                (Content::List(form(style), items), anchor)
            }
            Event::MappingStart(style, anchor, _) => {
                let mut entries = Vec::new();
                while let Some((event, span)) = self.next()? {
                    if matches!(event, Event::MappingEnd) {
                        range.end = end(style, &range, &span);
                        break;
                    }
                    let key = self.node(event, span)?;
                    let Some((event, span)) = self.next()? else { break };
                    entries.push((key, self.node(event, span)?));
                }
                (Content::Map(form(style), entries), anchor)
            }
            Event::Alias(number) => {
                self.repeated.insert(number);
                (Content::Alias(number), 0)
            }
            // None of them is a value.
            _ => (Content::Scalar { text: String::new(), is_text: false }, 0),
        };
        Ok(Node { content, range, line: span.start.line(), column: span.start.col() + 1, anchor })
    }
}

fn bytes(span: &Span) -> Range<usize> {
    // The parser counts bytes in whatever it gets as one text.
    let start = span.start.byte_offset().unwrap_or_default();
    start..span.end.byte_offset().unwrap_or(start).max(start)
}

fn end(style: StructureStyle, range: &Range<usize>, span: &Span) -> usize {
    if form(style) == Form::Flow { bytes(span).end } else { range.end }
}

fn form(style: StructureStyle) -> Form {
    if style == StructureStyle::Flow { Form::Flow } else { Form::Block }
}
