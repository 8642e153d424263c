//! A document's value, as Kubernetes reads it: repeated nodes written out, merge keys (`<<`) followed.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};

use super::tree::{Content, Document, Node};

/// How deep a value may be nested, with what it repeats.
const MAX_DEPTH: usize = 256;
/// How many values a document may have, with what it repeats.
const MAX_NODES: usize = 1_000_000;

/// Why a document has no value.
pub struct Unreadable {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: &'static str,
}

/// The value of a document.
///
/// # Errors
/// The first place that Kubernetes would not take, either.
pub fn value(document: &Document) -> Result<Value, Unreadable> {
    let mut anchors = HashMap::new();
    collect(&document.root, &mut anchors);
    Reading { anchors, left: MAX_NODES }.value(&document.root, MAX_DEPTH)
}

fn collect<'d>(node: &'d Node, anchors: &mut HashMap<usize, &'d Node>) {
    if node.anchor != 0 {
        anchors.insert(node.anchor, node);
    }
    match &node.content {
        Content::List(_, items) => items.iter().for_each(|item| collect(item, anchors)),
        Content::Map(_, entries) => entries.iter().for_each(|(key, value)| {
            collect(key, anchors);
            collect(value, anchors);
        }),
        Content::Scalar { .. } | Content::Alias(_) => {}
    }
}

struct Reading<'d> {
    anchors: HashMap<usize, &'d Node>,
    left: usize,
}

impl<'d> Reading<'d> {
    fn value(&mut self, node: &'d Node, depth: usize) -> Result<Value, Unreadable> {
        let Some(deeper) = depth.checked_sub(1) else { return Err(at(node, "it is nested too deeply")) };
        self.left = self.left.checked_sub(1).ok_or_else(|| at(node, "the document is too large, with what it repeats"))?;
        match &node.content {
            Content::Scalar { text, is_text: true } => Ok(Value::from(text.as_str())),
            Content::Scalar { text, is_text: false } => Ok(plain(text)),
            Content::List(_, items) => items.iter().map(|item| self.value(item, deeper)).collect::<Result<_, _>>().map(Value::Array),
            Content::Map(_, entries) => self.map(entries, deeper).map(Value::Object),
            Content::Alias(number) => {
                let repeated = self.anchors.get(number).copied();
                self.value(repeated.ok_or_else(|| at(node, "it repeats what is not there"))?, deeper)
            }
        }
    }

    fn map(&mut self, entries: &'d [(Node, Node)], depth: usize) -> Result<Map<String, Value>, Unreadable> {
        let (mut map, mut merged) = (Map::new(), Map::new());
        for (key, value) in entries {
            let Content::Scalar { text, is_text } = &key.content else { return Err(at(key, "a key must be text")) };
            if text == "<<" && !is_text {
                let sources = match self.value(value, depth)? {
                    Value::Array(sources) => sources,
                    source => vec![source],
                };
                for source in sources {
                    let Value::Object(source) = source else { return Err(at(value, "only a map can be merged into a map")) };
                    for (key, value) in source {
                        merged.entry(key).or_insert(value);
                    }
                }
            } else if map.insert(text.clone(), self.value(value, depth)?).is_some() {
                return Err(at(key, "the key is there twice"));
            }
        }
        for (key, value) in merged {
            map.entry(key).or_insert(value);
        }
        Ok(map)
    }
}

const fn at(node: &Node, message: &'static str) -> Unreadable {
    Unreadable { line: node.line, column: node.column, message }
}

/// A scalar without quotes, in YAML's core schema.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        // Rust reads `inf` and `nan` as numbers, too.
        _ if !text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '-' | '+' | '.')) => Value::from(text),
        _ if text.contains(|char: char| char.is_ascii_alphabetic() && !matches!(char, 'e' | 'E')) => Value::from(text),
        _ => {
            let integer = text.parse::<i64>().map(Number::from).ok().or_else(|| text.parse::<u64>().map(Number::from).ok());
            let float = || Number::from_f64(text.parse().ok()?);
            integer.or_else(float).map_or_else(|| Value::from(text), Value::Number)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::parse;
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, String> {
        value(&parse(text).unwrap()[0]).map_err(|error| format!("{}:{}: {}", error.line, error.column, error.message))
    }

    #[test]
    fn values_are_as_kubernetes_reads_them() {
        let text = "a: &a { x: 1, y: '1' }\nb: { <<: *a, y: !!str 2 }\nc: [*a, ~, 1.5, -3, true, 1e3, 10.0.0.1, inf]\nd:\ne: |\n  x\n";
        let a = json!({ "x": 1, "y": "1" });
        let c = json!([a, null, 1.5, -3, true, 1000.0, "10.0.0.1", "inf"]);
        assert_eq!(read(text).unwrap(), json!({ "a": a, "b": { "y": "2", "x": 1 }, "c": c, "d": null, "e": "x\n" }));
    }

    #[test]
    fn what_is_no_object_has_a_place() {
        assert_eq!(read("a: 1\nb:\n  c: 1\n  c: 2\n").unwrap_err(), "4:3: the key is there twice");
        assert_eq!(read("? [a]\n: 1\n").unwrap_err(), "1:3: a key must be text");
        assert_eq!(read("<<: 1\n").unwrap_err(), "1:5: only a map can be merged into a map");
        assert!(read("a: &a [*a]\n").unwrap_err().contains("too deeply"));
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(", ")));
        }
        assert!(read(&bomb).unwrap_err().contains("too large"));
    }
}
