//! Edits carried out on the text: whatever they do not touch stays as it is, byte for byte.

use std::ops::Range;

use serde_json::{Value, json};

use super::tree::{Content, Document, Form, Node};
use super::write::{block, flow, key_and_value};
use crate::kubernetes::edit::{Edit, Path, Step};

/// A stretch of the text, and what stands there instead.
pub type Splice = (Range<usize>, String);

/// Why an edit has no place in the text.
pub struct Unplaced {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is in the way.
    pub message: &'static str,
}

const REPEATED: &str = "it is shared with other places of the document (`&`, `*`, `<<`), where the change would show as well: write it out";
const FORM: &str = "it is written in a form that cannot be changed in place: write it as a key, and its value below";

/// The splices that carry out edits in a document, in their order.
///
/// # Errors
/// The first edit that has no place.
pub fn splices(text: &str, document: &Document, edits: &[Edit]) -> Result<Vec<Splice>, Unplaced> {
    let mut splices = Vec::new();
    for edit in edits {
        match edit {
            Edit::Set { map, key, value } => {
                let (above, map) = locate(document, map)?;
                match map.entry(key) {
                    Some((key, old)) if document.repeated.contains(&old.anchor) => return Err(at(key, REPEATED)),
                    Some((key, old)) => splices.extend(replaced(text, map, key, old, value)),
                    None => {
                        splices.push(inserted(text, above, map, &key_and_value(key, value), &format!("{}: {}", json!(key), flow(value)))?)
                    }
                }
            }
            Edit::Prepend { list, items } => {
                let (above, list) = locate(document, list)?;
                let as_flow = items.iter().map(flow).collect::<Vec<_>>().join(", ");
                splices.push(inserted(text, above, list, &block(&json!(items)), &as_flow)?);
            }
        }
    }
    Ok(splices)
}

/// Carries splices out; those at one place in their order.
pub fn spliced(text: &str, mut splices: Vec<Splice>) -> String {
    splices.sort_by_key(|(range, _)| range.start);
    let mut result = String::with_capacity(text.len() + splices.iter().map(|(_, new)| new.len()).sum::<usize>());
    let mut done = 0;
    for (range, new) in splices {
        result.push_str(text.get(done..range.start).unwrap_or_default());
        result.push_str(&new);
        done = range.end.max(done);
    }
    result.push_str(text.get(done..).unwrap_or_default());
    result
}

/// The node at a path, with the key that it stands under.
fn locate<'d>(document: &'d Document, path: &Path) -> Result<(&'d Node, &'d Node), Unplaced> {
    let (mut above, mut node) = (&document.root, &document.root);
    for step in path.steps() {
        let next = match (step, &node.content) {
            (Step::Key(key), _) => node.entry(key),
            (Step::Item(index), Content::List(_, items)) => items.get(*index).map(|item| (node, item)),
            (Step::Item(_), _) => None,
        };
        // The path is one of the document's value: what is not here comes from elsewhere in it.
        (above, node) = next.ok_or_else(|| at(node, REPEATED))?;
        if matches!(node.content, Content::Alias(_)) || document.repeated.contains(&node.anchor) {
            return Err(at(node, REPEATED));
        }
    }
    Ok((above, node))
}

/// Something new before all else in a list or a map.
fn inserted(text: &str, above: &Node, node: &Node, as_block: &str, as_flow: &str) -> Result<Splice, Unplaced> {
    let (form, is_empty) = match &node.content {
        Content::List(form, items) => (form, items.is_empty()),
        Content::Map(form, entries) => (form, entries.is_empty()),
        Content::Scalar { .. } | Content::Alias(_) => return Err(at(node, FORM)),
    };
    if *form == Form::Flow {
        let inside = node.range.start + 1;
        let Some(rest) = text.get(node.range.start..).and_then(|rest| rest.strip_prefix(['[', '{'])) else { return Err(at(node, FORM)) };
        let separator = if is_empty { "" } else { "," };
        let space = if is_empty || rest.starts_with(char::is_whitespace) { "" } else { " " };
        return Ok((inside..inside, format!("{as_flow}{separator}{space}")));
    }
    // Right below the key, so that comments stay with what they are about.
    let Some(below) = line_below(text, above.range.end) else { return Err(at(node, FORM)) };
    let Some(indent) = first_indent(&text[below..]) else { return Err(at(node, FORM)) };
    Ok((below..below, indented(as_block, indent, ending(text))))
}

/// Another value under a key that is there.
fn replaced(text: &str, map: &Node, key: &Node, old: &Node, value: &Value) -> Vec<Splice> {
    let is_block = matches!(map.content, Content::Map(Form::Block, _));
    let is_one_line = text.get(key.range.end..old.range.end).is_some_and(|between| !between.contains('\n'));
    let is_nested = value.is_array() || value.is_object();
    if !(is_block && is_one_line && is_nested) {
        let new = if is_nested { flow(value) } else { value.to_string() };
        if !old.range.is_empty() {
            return vec![(old.range.clone(), new)];
        }
        // Nothing is written there: the place is behind the colon.
        let rest = text.get(key.range.end..).unwrap_or_default();
        let colon = key.range.end + rest.find(':').map_or(0, |colon| colon + 1);
        return vec![(colon..colon, format!(" {new}"))];
    }
    // `volumes: []` becomes a list in lines of its own.
    let before = text.get(..old.range.start).unwrap_or_default();
    let start = before.trim_end_matches(' ').len().max(key.range.end);
    let indent = " ".repeat(key.column + 1);
    let ending = ending(text);
    let lines = indented(&block(value), &indent, ending);
    match line_below(text, old.range.end) {
        Some(below) => vec![(start..old.range.end, String::new()), (below..below, lines)],
        None => vec![(start..old.range.end, String::new()), (text.len()..text.len(), format!("{ending}{lines}"))],
    }
}

/// Where the next line begins.
fn line_below(text: &str, from: usize) -> Option<usize> {
    Some(from + text.get(from..)?.find('\n')? + 1)
}

/// What stands before the first word that is no comment.
fn first_indent(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let rest = line.trim_start_matches(' ');
        let is_content = !rest.trim().is_empty() && !rest.starts_with('#');
        is_content.then(|| &line[..line.len() - rest.len()])
    })
}

fn indented(lines: &str, indent: &str, ending: &str) -> String {
    lines.lines().map(|line| if line.is_empty() { ending.to_owned() } else { format!("{indent}{line}{ending}") }).collect()
}

/// How lines end in this text.
fn ending(text: &str) -> &'static str {
    let first = text.find('\n').unwrap_or_default();
    if text[..first].ends_with('\r') { "\r\n" } else { "\n" }
}

const fn at(node: &Node, message: &'static str) -> Unplaced {
    Unplaced { line: node.line, column: node.column, message }
}
