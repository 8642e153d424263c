//! The walk of the document along the schema: finds every mistake, and gives what is left when they are taken out.

use serde_json::{Map, Value};

use super::diagnostic::{Findings, instead_of, listed, quoted};
use super::document::{Content, Entry, Kind, Node, Scalar};
use super::formats::{self, Given};
use super::place::{KeyPath, Origin};
use super::schema::{Choices, Object, Rule, Shape};

/// Checks `node` against `shape`. The result lacks what is wrong; `None` where nothing of it can be used.
///
/// `label` is where a mistake of the whole is shown: the key that the value stands under.
pub fn check(node: &Node, shape: Shape<'_>, label: &Origin, path: &KeyPath, findings: &mut Findings<'_>) -> Option<Value> {
    let choices = shape.choices();
    match &node.content {
        Content::Scalar(scalar) => scalar_value(node, scalar, &choices, label, path, findings),
        Content::List(items) => match choices.list {
            Some((shape, least)) => list(items, shape, least, label, path, findings),
            None => wrong_type(node, &choices, label, path, findings),
        },
        Content::Map(_) if choices.objects.is_empty() => wrong_type(node, &choices, label, path, findings),
        Content::Map(entries) => map(node, entries, &choices, label, path, findings),
    }
}

fn wrong_type(node: &Node, choices: &Choices<'_>, label: &Origin, path: &KeyPath, findings: &mut Findings<'_>) -> Option<Value> {
    let origin = if matches!(node.content, Content::Scalar(_)) { &node.origin } else { label };
    let name = subject(path);
    match &node.content {
        Content::Scalar(Scalar { kind: Kind::Null, .. }) => {
            let help = format!("write {}, or remove the key", expected(choices));
            findings.add(label, path, format!("{name} has no value"), help);
        }
        _ => findings.add(origin, path, format!("{name} must be {}, not {}", expected(choices), node.described()), None),
    }
    None
}

/// The key itself, or the item with its list, in backticks.
fn subject(path: &KeyPath) -> String {
    let last = path.as_str().rsplit('.').next().unwrap_or_default();
    if last.is_empty() { "the configuration".to_owned() } else { quoted(last) }
}

/// What may stand in a place, in words.
fn expected(choices: &Choices<'_>) -> String {
    let mut words = Vec::new();
    if !choices.words.is_empty() {
        let lead = if choices.words.len() == 1 { "" } else { "one of " };
        words.push(format!("{lead}{}", listed(choices.words.iter().copied())));
    }
    words.extend(choices.scalars.iter().map(|rule| match rule {
        Rule::Text(format) => formats::described(*format).to_owned(),
        Rule::Integer { .. } => "a whole number".to_owned(),
        Rule::Number { min, max } => format!("a number from {min} to {max}"),
        Rule::Bool => "`true` or `false`".to_owned(),
    }));
    if choices.list.is_some() {
        words.push("a list".to_owned());
    }
    if !choices.objects.is_empty() {
        let keys: Vec<&str> = choices.objects.iter().flat_map(|object| object.known_keys()).collect();
        words.push(match keys[..] {
            [only] => format!("a map with the key {}", quoted(only)),
            _ => "a map".to_owned(),
        });
    }
    words.join(" or ")
}

fn list(items: &[Node], shape: Shape<'_>, least: usize, label: &Origin, path: &KeyPath, findings: &mut Findings<'_>) -> Option<Value> {
    if items.len() < least {
        findings.add(label, path, format!("{} is empty", subject(path)), format!("it needs {}", expected(&shape.choices())));
        return None;
    }
    let checked: Vec<_> =
        items.iter().enumerate().map(|(index, item)| check(item, shape, &item.origin, &path.item(index), findings)).collect();
    // An item that is taken out would shift those behind it: without it there is no list.
    checked.into_iter().collect::<Option<_>>().map(Value::Array)
}

fn map(
    node: &Node,
    entries: &[Entry],
    choices: &Choices<'_>,
    label: &Origin,
    path: &KeyPath,
    findings: &mut Findings<'_>,
) -> Option<Value> {
    if let Some(object) = choices.object_for(node) {
        return object_value(entries, object, label, path, findings);
    }
    match choices.tag() {
        Some(tag) => wrong_tag(node, tag, choices, label, path, findings),
        None => single_key(entries, choices, label, path, findings),
    }
}

/// The key that says of which kind the map is, is missing or wrong.
fn wrong_tag(node: &Node, tag: &str, choices: &Choices<'_>, label: &Origin, path: &KeyPath, findings: &mut Findings<'_>) -> Option<Value> {
    let words: Vec<&str> = choices.objects.iter().filter_map(|object| object.fixed(tag)).collect();
    match node.get(tag) {
        None => findings.add(
            label,
            path,
            format!("the key `{tag}` is missing"),
            format!("write `{tag}:` and one of {}", listed(words.iter().copied())),
        ),
        Some(value) => {
            let kinds = Choices { words, ..Choices::default() };
            let path = path.key(tag);
            match &value.content {
                Content::Scalar(scalar) => drop(scalar_value(value, scalar, &kinds, &value.origin, &path, findings)),
                Content::List(_) | Content::Map(_) => drop(wrong_type(value, &kinds, &value.origin, &path, findings)),
            }
        }
    }
    None
}

/// A map with one key, which says of which kind it is.
fn single_key(entries: &[Entry], choices: &Choices<'_>, label: &Origin, path: &KeyPath, findings: &mut Findings<'_>) -> Option<Value> {
    let known: Vec<&str> = choices.objects.iter().flat_map(|object| object.known_keys()).collect();
    let object_of = |entry: &Entry| choices.objects.iter().find(|object| object.value(&entry.key).is_some()).copied();
    let unknown: Vec<&Entry> = entries.iter().filter(|entry| object_of(entry).is_none()).collect();
    for entry in &unknown {
        unknown_key(entry, &known, path, findings);
    }
    let mut fitting = entries.iter().filter_map(|entry| Some((entry, object_of(entry)?)));
    match (fitting.next(), fitting.next()) {
        (Some((_, object)), None) => {
            let value = object_value(entries, object, label, path, findings);
            value.filter(|_| unknown.is_empty())
        }
        (Some((_, _)), Some((second, _))) => {
            findings.add(
                &second.origin,
                &path.key(&second.key),
                format!("only one of {} can be given", listed(known.iter().copied())),
                "remove the other".to_owned(),
            );
            None
        }
        (None, _) => {
            if unknown.is_empty() {
                findings.add(label, path, format!("{} is empty", subject(path)), format!("write one of {}", listed(known.iter().copied())));
            }
            None
        }
    }
}

fn unknown_key(entry: &Entry, known: &[&str], path: &KeyPath, findings: &mut Findings<'_>) {
    findings.add(
        &entry.origin,
        &path.key(&entry.key),
        format!("unknown key {}", quoted(&entry.key)),
        instead_of(&entry.key, known, "known keys"),
    );
}

fn object_value(entries: &[Entry], object: Object<'_>, label: &Origin, path: &KeyPath, findings: &mut Findings<'_>) -> Option<Value> {
    let mut values = Map::new();
    let known = object.known_keys();
    for entry in entries {
        let Some(shape) = object.value(&entry.key) else {
            unknown_key(entry, &known, path, findings);
            continue;
        };
        let path = path.key(&entry.key);
        if let Some(format) = object.key_format() {
            let given = Given { text: &entry.key, shown: &quoted(&entry.key) };
            if let Err(complaint) = formats::check(format, given) {
                findings.add(&entry.origin, &path, complaint.message, complaint.help);
                continue;
            }
        }
        if let Some(value) = check(&entry.value, shape, &entry.origin, &path, findings) {
            values.insert(entry.key.clone(), value);
        }
    }
    for key in object.required() {
        let is_misspelt =
            entries.iter().any(|entry| !known.contains(&entry.key.as_str()) && super::diagnostic::closest(&entry.key, &[key]).is_some());
        if !entries.iter().any(|entry| entry.key == key) && !is_misspelt {
            let what = object.value(key).map(|shape| expected(&shape.choices())).unwrap_or_default();
            findings.add(label, path, format!("the key `{key}` is missing"), format!("write `{key}:` and {what}"));
        }
    }
    // Without a key that it must have, it is no good as a whole.
    object.required().iter().all(|key| values.contains_key(*key)).then_some(Value::Object(values))
}

fn scalar_value(
    node: &Node,
    scalar: &Scalar,
    choices: &Choices<'_>,
    label: &Origin,
    path: &KeyPath,
    findings: &mut Findings<'_>,
) -> Option<Value> {
    if scalar.kind == Kind::Unknown {
        return None;
    }
    let empty = scalar.kind == Kind::Null || (scalar.kind == Kind::Untyped && scalar.text.is_empty());
    if empty && choices.nullable {
        return Some(Value::Null);
    }
    if scalar.kind != Kind::Null {
        if let Some(word) = choices.words.iter().find(|word| **word == scalar.text) {
            return Some(Value::String((*word).to_owned()));
        }
        for rule in &choices.scalars {
            match fit(scalar, *rule, &node.origin, path, findings) {
                Fit::Value(value) => return Some(value),
                Fit::Wrong => return None,
                Fit::Other => {}
            }
        }
    }
    let only_words = choices.scalars.is_empty() && choices.list.is_none() && !choices.words.is_empty();
    if matches!(scalar.kind, Kind::Text | Kind::Untyped) && !choices.words.is_empty() {
        let suggestion = super::diagnostic::closest(&scalar.text, &choices.words).map(|word| format!("did you mean {}?", quoted(word)));
        let all = if only_words && choices.objects.is_empty() { listed(choices.words.iter().copied()) } else { expected(choices) };
        let help = suggestion.unwrap_or_else(|| {
            format!("write {}{all}", if only_words && choices.words.len() > 1 && choices.objects.is_empty() { "one of " } else { "" })
        });
        findings.add(&node.origin, path, format!("{} is not a value of {}", scalar.shown, subject(path)), help);
        return None;
    }
    wrong_type(node, choices, label, path, findings)
}

/// How a single value fits a rule.
enum Fit {
    /// It does, and this is its value.
    Value(Value),
    /// It is what the rule is about, but wrong; that was told.
    Wrong,
    /// It is something else.
    Other,
}

fn fit(scalar: &Scalar, rule: Rule<'_>, origin: &Origin, path: &KeyPath, findings: &mut Findings<'_>) -> Fit {
    match rule {
        Rule::Bool => match (scalar.kind, scalar.text.to_lowercase().as_str()) {
            (Kind::Bool(value), _) => Fit::Value(Value::Bool(value)),
            (Kind::Untyped, "true") => Fit::Value(Value::Bool(true)),
            (Kind::Untyped, "false") => Fit::Value(Value::Bool(false)),
            _ => Fit::Other,
        },
        Rule::Integer { min, max } => {
            let number = match scalar.kind {
                Kind::Integer(number) => Some(number),
                Kind::Untyped => scalar.text.trim().parse().ok(),
                _ => None,
            };
            match number.map(|number| (number, i64::try_from(number))) {
                None => Fit::Other,
                Some((number, Ok(value))) if (min..=max).contains(&number) => Fit::Value(Value::from(value)),
                Some(_) => {
                    let help = if max == i128::from(i64::MAX) {
                        format!("write a number of at least {min}")
                    } else {
                        format!("write a number from {min} to {max}")
                    };
                    findings.add(origin, path, format!("{} is out of range", scalar.shown), help);
                    Fit::Wrong
                }
            }
        }
        Rule::Number { min, max } => {
            let number = match scalar.kind {
                Kind::Integer(_) | Kind::Float | Kind::Untyped => scalar.text.trim().parse::<f64>().ok(),
                _ => None,
            };
            match number {
                None => Fit::Other,
                Some(number) if (min..=max).contains(&number) => Fit::Value(Value::from(number)),
                Some(_) => {
                    findings.add(origin, path, format!("{} is out of range", scalar.shown), format!("write a number from {min} to {max}"));
                    Fit::Wrong
                }
            }
        }
        Rule::Text(None) => Fit::Value(Value::String(scalar.text.clone())),
        Rule::Text(Some(format)) => match formats::check(format, Given { text: &scalar.text, shown: &scalar.shown }) {
            Ok(()) => Fit::Value(Value::String(scalar.text.clone())),
            Err(complaint) => {
                let add = if complaint.secret { Findings::add_secret } else { Findings::add };
                add(findings, origin, path, complaint.message, complaint.help);
                Fit::Wrong
            }
        },
    }
}
