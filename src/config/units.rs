//! Durations (`500ms`, `30s`, `5m`, `24h`) and sizes (`64KiB`) as the operator writes them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

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

    /// For `#[serde(with)]`.
    ///
    /// # Errors
    /// As [`Duration::parse`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<std::time::Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }

    /// Writes it with its unit, as an operator would.
    pub fn text(duration: std::time::Duration) -> String {
        // `1day` and `1month` are of humantime, and hardly what was written.
        match (duration.as_secs(), duration.subsec_nanos()) {
            (seconds, 0) if seconds > 0 && seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
            (seconds, 0) if seconds > 0 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
            _ => humantime::format_duration(duration).to_string(),
        }
    }

    /// For `#[serde(with)]`.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(duration: &std::time::Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Self::text(*duration))
    }
}

/// `#[serde(with = ...)]` for a [`std::time::Duration`] that may be absent.
pub struct MaybeDuration;

impl MaybeDuration {
    /// For `#[serde(with)]`.
    ///
    /// # Errors
    /// As [`Duration::parse`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<std::time::Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| Duration::parse(&text)).transpose().map_err(de::Error::custom)
    }

    /// For `#[serde(with)]`.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(duration: &Option<std::time::Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        duration.map(Duration::text).serialize(serializer)
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

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const KIB: usize = 1024;
        const MIB: usize = 1024 * KIB;
        serializer.serialize_str(&match self.0 {
            bytes if bytes > 0 && bytes.is_multiple_of(MIB) => format!("{}MiB", bytes / MIB),
            bytes if bytes > 0 && bytes.is_multiple_of(KIB) => format!("{}KiB", bytes / KIB),
            bytes => format!("{bytes}B"),
        })
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

/// A part of a whole, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub u8);

impl Percent {
    /// Reads a whole number from 0 to 100 with its sign.
    ///
    /// # Errors
    /// When the text is none; the message says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok()).filter(|number| *number <= 100);
        number.map(Self).ok_or_else(|| format!("`{text}` is not a percentage: write a whole number from `0%` to `100%`"))
    }

    /// From 0 to 1.
    pub fn as_fraction(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}%", self.0))
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "percent", "examples": ["50%"] })
    }
}

/// The mode of a file, in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Mode {
    /// Reads three or four octal digits.
    ///
    /// # Errors
    /// When the text is none; the message says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let mode = if digits { u32::from_str_radix(text, 8).ok() } else { None };
        mode.filter(|mode| *mode <= 0o777 && mode & 0o400 != 0)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not the mode of a file that its owner can read: write it in octal, as `\"0400\"`"))
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:04o}", self.0))
    }
}

impl JsonSchema for Mode {
    fn schema_name() -> Cow<'static, str> {
        "Mode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "file-mode", "examples": ["0400"] })
    }
}
