//! What may stand in the fields of a key: text, names, items of lists, memberships.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Text that is not empty and has no control characters.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Text(pub(super) String);

impl TryFrom<String> for Text {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.trim().is_empty() || text.chars().any(char::is_control) {
            return Err("this must be visible text, and not empty");
        }
        Ok(Self(text))
    }
}

/// [`Text`] without `:`, which parts user from password in Basic, and the segments of `tid`.
#[derive(Clone, Deserialize)]
#[serde(try_from = "Text")]
pub(super) struct Name(pub(super) String);

impl TryFrom<Text> for Name {
    type Error = &'static str;

    fn try_from(text: Text) -> Result<Self, Self::Error> {
        if text.0.contains(':') { Err("there must be no `:` in this name") } else { Ok(Self(text.0)) }
    }
}

/// [`Text`] without `,`, which parts the items of a request and of the claim `scope`.
#[derive(Clone, Deserialize)]
#[serde(try_from = "Text")]
pub(super) struct Item(pub(super) String);

impl TryFrom<Text> for Item {
    type Error = &'static str;

    fn try_from(text: Text) -> Result<Self, Self::Error> {
        if text.0.contains(',') {
            return Err("there must be no `,` in one item: write a list, as `[A, B]`");
        }
        Ok(Self(text.0))
    }
}

/// Checks the name of a key or tenant.
///
/// # Errors
/// What is wrong with it.
pub fn parse_name(text: &str) -> Result<String, &'static str> {
    Text::try_from(text.to_owned()).and_then(Name::try_from).map(|name| name.0)
}

/// Checks a subject or workgroup.
///
/// # Errors
/// What is wrong with it.
pub fn parse_text(text: &str) -> Result<String, &'static str> {
    Text::try_from(text.to_owned()).map(|text| text.0)
}

/// A map from membership to whatever its readers expect there, or a list of memberships.
#[derive(Default)]
pub(super) struct Memberships(pub(super) Map<String, Value>);

impl<'de> Deserialize<'de> for Memberships {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MembershipsVisitor)
    }
}

struct MembershipsVisitor;

impl<'de> Visitor<'de> for MembershipsVisitor {
    type Value = Memberships;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of memberships, as `[\"cid:1\"]`, or a map of them, as `{ \"cid:1\": {} }`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Memberships, A::Error> {
        let mut mem = Map::new();
        while let Some(item) = items.next_element::<Item>()? {
            mem.insert(item.0, Value::Object(Map::new()));
        }
        Ok(Memberships(mem))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Memberships, A::Error> {
        let mut mem = Map::new();
        while let Some((item, value)) = entries.next_entry::<Item, Value>()? {
            mem.insert(item.0, value);
        }
        Ok(Memberships(mem))
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Memberships, E> {
        Err(E::custom(format_args!("this must be {}", &self as &dyn de::Expected)))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Memberships, E> {
        Ok(Memberships::default())
    }
}
