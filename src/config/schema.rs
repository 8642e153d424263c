//! The JSON Schema of the configuration, seen as the check needs it: what may stand in a place.

use serde_json::{Map, Value};

use super::document::{Content, Kind, Node};

/// The schema of [`super::Config`], made from its structures.
pub struct Schema(Value);

/// The JSON Schema of the configuration (draft 2020-12), as editors and other tools take it.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(super::Config);
    schema.insert("title".to_owned(), "bearerd".into());
    schema.to_value()
}

impl Schema {
    /// Makes it.
    pub fn of_config() -> Self {
        Self(schema())
    }

    /// What the document may be.
    pub fn root(&self) -> Shape<'_> {
        Shape { root: &self.0, rule: &self.0 }
    }
}

/// What may stand in one place.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    root: &'a Value,
    rule: &'a Value,
}

/// A map that may stand in a place.
#[derive(Clone, Copy)]
pub struct Object<'a> {
    shape: Shape<'a>,
}

/// What may stand in a place, sorted by what it looks like in YAML.
#[derive(Default)]
pub struct Choices<'a> {
    /// Whether nothing at all will do.
    pub nullable: bool,
    /// Fixed words.
    pub words: Vec<&'a str>,
    /// Single values: the rules of each.
    pub scalars: Vec<Rule<'a>>,
    /// A list with items of this shape, and how many at least.
    pub list: Option<(Shape<'a>, usize)>,
    /// Maps.
    pub objects: Vec<Object<'a>>,
}

/// The rule for a single value that is not a fixed word.
#[derive(Clone, Copy)]
pub enum Rule<'a> {
    /// Text, in this format.
    Text(Option<&'a str>),
    /// A whole number within bounds.
    Integer {
        /// The least.
        min: i128,
        /// The most.
        max: i128,
    },
    /// A number, with a fraction or without, within bounds.
    Number {
        /// The least.
        min: f64,
        /// The most.
        max: f64,
    },
    /// `true` or `false`.
    Bool,
}

impl<'a> Shape<'a> {
    fn at(self, rule: &'a Value) -> Self {
        Self { root: self.root, rule }
    }

    /// The rule itself, where it is only a reference to a definition.
    fn resolved(self) -> Self {
        let target = self.rule.get("$ref").and_then(Value::as_str).and_then(|reference| self.root.pointer(reference.strip_prefix('#')?));
        target.map_or(self, |rule| self.at(rule).resolved())
    }

    /// All that may stand here.
    pub fn choices(self) -> Choices<'a> {
        let mut choices = Choices::default();
        self.collect(&mut choices);
        choices
    }

    fn collect(self, choices: &mut Choices<'a>) {
        let shape = self.resolved();
        for word in ["oneOf", "anyOf"] {
            if let Some(alternatives) = shape.rule.get(word).and_then(Value::as_array) {
                alternatives.iter().for_each(|alternative| shape.at(alternative).collect(choices));
                return;
            }
        }
        if let Some(fixed) = shape.rule.get("const").and_then(Value::as_str) {
            return choices.words.push(fixed);
        }
        if let Some(words) = shape.rule.get("enum").and_then(Value::as_array) {
            return choices.words.extend(words.iter().filter_map(Value::as_str));
        }
        match shape.rule.get("type") {
            Some(Value::String(name)) => shape.collect_type(name, choices),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).for_each(|name| shape.collect_type(name, choices)),
            _ => {}
        }
    }

    fn collect_type(self, name: &str, choices: &mut Choices<'a>) {
        let bound = |key: &str| self.rule.get(key).and_then(Value::as_i64).map(i128::from);
        match name {
            "null" => choices.nullable = true,
            "boolean" => choices.scalars.push(Rule::Bool),
            "string" => choices.scalars.push(Rule::Text(self.rule.get("format").and_then(Value::as_str))),
            "integer" => {
                let most = match self.rule.get("format").and_then(Value::as_str) {
                    Some("uint16") => i128::from(u16::MAX),
                    Some("uint32") => i128::from(u32::MAX),
                    _ => i128::from(i64::MAX),
                };
                choices.scalars.push(Rule::Integer { min: bound("minimum").unwrap_or(0), max: bound("maximum").unwrap_or(most) });
            }
            "number" => {
                let bound = |key: &str, otherwise: f64| self.rule.get(key).and_then(Value::as_f64).unwrap_or(otherwise);
                choices.scalars.push(Rule::Number { min: bound("minimum", 0.0), max: bound("maximum", f64::MAX) });
            }
            "array" => {
                let least = self.rule.get("minItems").and_then(Value::as_u64).and_then(|least| usize::try_from(least).ok()).unwrap_or(0);
                choices.list = Some((self.at(self.rule.get("items").unwrap_or(&Value::Null)), least));
            }
            "object" => choices.objects.push(Object { shape: self }),
            _ => {}
        }
    }

    /// Whether only single values may stand here.
    pub fn is_scalar(self) -> bool {
        let choices = self.choices();
        choices.list.is_none() && choices.objects.is_empty()
    }

    /// The map that `node` is meant to be, where that can be told.
    pub fn object_for(self, node: &Node) -> Option<Object<'a>> {
        self.choices().object_for(node)
    }
}

impl<'a> Choices<'a> {
    /// The map that `node` is meant to be: the only one, or the one whose tag `node` has.
    pub fn object_for(&self, node: &Node) -> Option<Object<'a>> {
        if let [only] = self.objects[..] {
            return Some(only);
        }
        let tag = self.tag()?;
        let given = match &node.get(tag)?.content {
            Content::Scalar(scalar) if matches!(scalar.kind, Kind::Text | Kind::Untyped) => &scalar.text,
            _ => return None,
        };
        self.objects.iter().find(|object| object.fixed(tag) == Some(given)).copied()
    }

    /// The key that tells the maps apart by its value.
    pub fn tag(&self) -> Option<&'a str> {
        let first = self.objects.first()?;
        let tag = first.properties()?.keys().find(|key| first.fixed(key).is_some())?;
        self.objects.iter().all(|object| object.fixed(tag).is_some()).then_some(tag)
    }
}

impl<'a> Object<'a> {
    fn properties(self) -> Option<&'a Map<String, Value>> {
        self.shape.rule.get("properties").and_then(Value::as_object)
    }

    /// The one word that a key may have as its value.
    pub fn fixed(self, key: &str) -> Option<&'a str> {
        self.properties()?.get(key)?.get("const")?.as_str()
    }

    /// The keys that it may have; none for a map with names of the operator's choice.
    pub fn known_keys(self) -> Vec<&'a str> {
        self.properties().map(|properties| properties.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// The keys that it may have, or those that `node` has where names are of the operator's choice.
    pub fn key_names(self, node: &Node) -> Vec<String> {
        match (self.properties(), &node.content) {
            (Some(properties), _) => properties.keys().cloned().collect(),
            (None, Content::Map(entries)) => entries.iter().map(|entry| entry.key.clone()).collect(),
            (None, _) => Vec::new(),
        }
    }

    /// The keys that it must have.
    pub fn required(self) -> Vec<&'a str> {
        let required = self.shape.rule.get("required").and_then(Value::as_array);
        required.map(|keys| keys.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
    }

    /// What may stand under a key; `None` for a key that it may not have.
    pub fn value(self, key: &str) -> Option<Shape<'a>> {
        let rule = match self.properties() {
            Some(properties) => properties.get(key),
            None => self.shape.rule.get("additionalProperties").filter(|rule| rule.is_object()),
        };
        rule.map(|rule| self.shape.at(rule))
    }

    /// The format of its keys, where names are of the operator's choice.
    pub fn key_format(self) -> Option<&'a str> {
        self.shape.rule.get("propertyNames")?.get("format")?.as_str()
    }
}
