//! The YAML text as a tree in which every key and value knows its place.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, NonFiniteFloatPolicy, Spanned};

use super::diagnostic::{Findings, quoted};
use super::place::{KeyPath, Origin, Span};

/// How deep a configuration may be nested: its own structure goes six deep.
const MAX_DEPTH: usize = 32;
/// How many values a configuration may have.
const MAX_NODES: usize = 100_000;

/// A value and its place.
pub struct Node {
    /// Where it stands.
    pub origin: Origin,
    /// What it is.
    pub content: Content,
}

/// What a value is.
pub enum Content {
    /// A single value.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<Entry>),
}

/// A key of a map, and its value.
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub origin: Origin,
    /// The value.
    pub value: Node,
}

/// A single value. It has no `Debug`: once `${ENV}` is expanded, it may hold a secret.
pub struct Scalar {
    /// What YAML takes it for.
    pub kind: Kind,
    /// The text that counts.
    pub text: String,
    /// How messages show it: as it is written, in backticks.
    pub shown: String,
}

/// What YAML takes a scalar for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Another number.
    Float,
    /// Text.
    Text,
    /// It comes from the environment: what is expected in its place decides.
    Untyped,
    /// It cannot be expanded; that was told.
    Unknown,
}

impl Node {
    /// The value under a key, where this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub fn described(&self) -> String {
        match &self.content {
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a map".to_owned(),
            Content::Scalar(Scalar { kind: Kind::Null, .. }) => "nothing".to_owned(),
            Content::Scalar(scalar) => scalar.shown.clone(),
        }
    }
}

/// Reads a YAML text. Doubled keys are found here; a text that is no YAML gives one finding and no tree.
pub fn parse(text: &str, findings: &mut Findings<'_>) -> Option<Node> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES, flow_nesting_limit: MAX_DEPTH },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Some(node(raw, text, &KeyPath::default(), findings)),
        Err(error) => {
            let location = error.location().unwrap_or(Location::UNKNOWN);
            let span = span(location);
            let line = text.lines().nth(span.line - 1).unwrap_or_default();
            let (message, help) = syntax_error(&error, line);
            findings.add(&Origin::File(span), &KeyPath::default(), message, help);
            None
        }
    }
}

/// An empty file is a map without keys.
pub fn take_nothing_as_empty(root: &mut Node) {
    if matches!(root.content, Content::Scalar(Scalar { kind: Kind::Null, .. })) {
        root.content = Content::Map(Vec::new());
    }
}

fn syntax_error(error: &serde_saphyr::Error, line: &str) -> (String, Option<String>) {
    use serde_saphyr::Error;
    match error.without_snippet() {
        Error::MultipleDocuments { .. } => {
            ("a second document begins here: a configuration is one document".to_owned(), Some("remove the `---`".to_owned()))
        }
        Error::NullIntoString { .. } | Error::Unexpected { .. } => ("a key must be plain text".to_owned(), None),
        Error::Budget { .. } => ("too large or nested too deeply for a configuration".to_owned(), None),
        other => {
            let text = other.to_string();
            let message = text.find(" at line ").map_or(text.as_str(), |end| &text[..end]);
            let help = line.contains("${").then(|| "inside `{ }` and `[ ]`, put values with `${NAME}` in quotes".to_owned());
            (format!("not valid YAML: {message}"), help)
        }
    }
}

fn span(location: Location) -> Span {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    Span { line: number(location.line()).max(1), column: number(location.column()).max(1), length: number(location.span().len()) }
}

/// What the parser gives, before places and spellings are looked up in the text.
enum Raw {
    Scalar(Kind, Option<String>),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

/// Aliases count where they are defined: that is where a mistake in them is.
fn node(raw: Spanned<Raw>, text: &str, path: &KeyPath, findings: &mut Findings<'_>) -> Node {
    let content = match raw.value {
        Raw::Scalar(kind, decoded) => {
            let text = decoded.unwrap_or_else(|| spelling(text, raw.defined));
            Content::Scalar(Scalar { kind, shown: quoted(&text), text })
        }
        Raw::List(items) => {
            Content::List(items.into_iter().enumerate().map(|(index, item)| node(item, text, &path.item(index), findings)).collect())
        }
        Raw::Map(entries) => Content::Map(map(entries, text, path, findings)),
    };
    Node { origin: Origin::File(span(raw.defined)), content }
}

fn map(raw: Vec<(Spanned<String>, Spanned<Raw>)>, text: &str, path: &KeyPath, findings: &mut Findings<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::with_capacity(raw.len());
    let mut lines = std::collections::HashMap::new();
    for (key, value) in raw {
        let origin = Origin::File(span(key.defined));
        let path = path.key(&key.value);
        let value = node(value, text, &path, findings);
        if let Some(line) = lines.get(&key.value) {
            findings.add(
                &origin,
                &path,
                format!("the key {} is there twice", quoted(&key.value)),
                format!("the first is on line {line}: keep one of them"),
            );
            continue;
        }
        lines.insert(key.value.clone(), key.defined.line());
        entries.push(Entry { key: key.value, origin, value });
    }
    entries
}

/// A number as it is written: `1.10` and `0755` are not to lose their look.
fn spelling(text: &str, location: Location) -> String {
    let span = location.span();
    let range = || {
        let start = usize::try_from(span.byte_offset()?).ok()?;
        let length = usize::try_from(span.byte_len()?).ok()?;
        text.get(start..start.checked_add(length)?)
    };
    range().unwrap_or_default().to_owned()
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Bool(value), None))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Integer(value.into()), None))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Integer(value.into()), None))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Integer(value), None))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Integer(i128::try_from(value).unwrap_or(i128::MAX)), None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Float, None))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Null, None))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Null, None))
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Text, Some(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scalar(node: &Node) -> (Kind, &str) {
        match &node.content {
            Content::Scalar(scalar) => (scalar.kind, scalar.text.as_str()),
            _ => panic!("no scalar"),
        }
    }

    fn complaints(text: &str) -> Vec<String> {
        let mut findings = Findings::new("f", text);
        parse(text, &mut findings);
        findings.sorted().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let text = "a: 1\nb:\n  é: [x, 'y']\n";
        let root = parse(text, &mut Findings::new("f", text)).unwrap();
        let Content::Map(entries) = &root.content else { panic!("no map") };
        assert_eq!(entries[0].value.origin, Origin::File(Span { line: 1, column: 4, length: 1 }));
        let Some(Content::List(items)) = root.get("b").and_then(|b| b.get("é")).map(|node| &node.content) else { panic!("no list") };
        assert_eq!(items[1].origin, Origin::File(Span { line: 3, column: 10, length: 3 }));
        assert_eq!(scalar(&items[1]), (Kind::Text, "y"));
    }

    #[test]
    fn numbers_keep_their_look() {
        let text = "\u{feff}é: é\na: 1.10\nb: 0755\nc: &x 10_000\nd: *x\ne: .inf\n";
        let root = parse(text, &mut Findings::new("f", text)).unwrap();
        assert_eq!(scalar(root.get("a").unwrap()), (Kind::Float, "1.10"));
        assert_eq!(scalar(root.get("b").unwrap()).1, "0755");
        assert_eq!(scalar(root.get("c").unwrap()), (Kind::Integer(10_000), "10_000"));
        assert_eq!(scalar(root.get("d").unwrap()), (Kind::Integer(10_000), "10_000"));
        assert_eq!(scalar(root.get("e").unwrap()), (Kind::Text, ".inf"));
    }

    #[test]
    fn all_doubled_keys_are_found() {
        let found = complaints("a: 1\na: 2\nb: {c: 1, c: 2}\n");
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], "f:2:1: the key `a` is there twice\n 2 | a: 2\n   | ^\n   = help: the first is on line 1: keep one of them");
        assert!(found[1].starts_with("f:3:11: the key `c` is there twice"));
    }

    #[test]
    fn broken_yaml_has_a_place() {
        assert_eq!(
            complaints("a: b: c\n"),
            ["f:1:5: not valid YAML: mapping values are not allowed in this context\n 1 | a: b: c\n   |     ^"]
        );
        assert!(complaints("a: 1\n---\nb: 2\n")[0].contains("a second document begins here"));
        assert!(complaints("? [a]\n: 1\n")[0].contains("a key must be plain text"));
    }

    #[test]
    fn a_bomb_does_not_go_off() {
        let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        assert_eq!(complaints(&deep).len(), 1);
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![before; 9].join(", ")));
        }
        assert_eq!(complaints(&bomb).len(), 1);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ \\-:a-c\\[\\]{}#&*!|>'\"%@`?,~<0-9.\t\n\r\u{feff}é$]{0,120}") {
            complaints(&text);
        }
    }
}
