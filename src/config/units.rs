//! Durations (`500ms`, `30s`, `5m`, `24h`) and sizes (`64KiB`) as the operator writes them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// `#[serde(with = ...)]` and `#[schemars(with = ...)]` for a [`std::time::Duration`].
pub struct Duration;

impl Duration {
    /// Reads a duration with a unit.
    ///
    /// # Errors
    /// When the text is not a number with a unit; the message says what to write.
    pub fn parse(text: &str) -> Result<std::time::Duration, String> {
        humantime::parse_duration(text)
            .map_err(|_| format!("`{text}` is not a duration: write a number with a unit, as `500ms`, `30s`, `5m` or `24h`"))
    }

    /// For `#[serde(deserialize_with)]`.
    ///
    /// # Errors
    /// As [`Duration::parse`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<std::time::Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl Duration {
    /// For `#[serde(deserialize_with)]` of a key that may be absent.
    ///
    /// # Errors
    /// As [`Duration::parse`].
    pub fn deserialize_some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<std::time::Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| Self::parse(&text)).transpose().map_err(de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "duration", "examples": ["500ms", "30s", "5m", "24h"] })
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub usize);

impl Bytes {
    /// Reads a size with a unit.
    ///
    /// # Errors
    /// When the text is not a number with a unit; the message says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is not a size: write a number with a unit, as `512B`, `64KiB` or `1MiB`");
        if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(refused());
        }
        let size: bytesize::ByteSize = text.parse().map_err(|_| refused())?;
        usize::try_from(size.as_u64()).map(Self).map_err(|_| refused())
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "size", "examples": ["512B", "64KiB", "1MiB"] })
    }
}
