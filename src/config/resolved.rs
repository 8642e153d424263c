//! The configuration as people see it: every value with its default, where it comes from, and no secret.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::Config;
use super::place::{KeyPath, Origin};
use super::positions::Positions;

/// In the place of what nobody should read.
const REDACTED: &str = "[redacted]";
/// Headers with one of these in their name tend to carry secrets.
const SECRETIVE: [&str; 7] = ["auth", "cookie", "key", "token", "secret", "password", "credential"];

/// Every value of a configuration and its origin. Secrets are in files or in variables: of a file its path is shown, of a value with `${NAME}` the name.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Resolved {
    /// The values, as the file would have them.
    values: Value,
    /// Where those are from that are no defaults, by their dotted key.
    origins: BTreeMap<String, String>,
}

impl Resolved {
    /// What `config` holds, which was read from `positions` of `file`.
    pub(super) fn of(config: &Config, positions: &Positions, file: &str) -> Self {
        let mut resolved = Self { values: serde_json::to_value(config).unwrap_or_default(), origins: BTreeMap::new() };
        let mut values = std::mem::take(&mut resolved.values);
        resolved.visit(&mut values, &KeyPath::default(), positions, file);
        resolved.values = values;
        resolved
    }

    fn visit(&mut self, value: &mut Value, path: &KeyPath, positions: &Positions, file: &str) {
        match value {
            Value::Object(map) => {
                map.retain(|_, value| !value.is_null());
                let secretive = ["set", "headers"].iter().any(|name| path.as_str().ends_with(&format!(".{name}")));
                for (key, value) in map {
                    let path = path.key(key);
                    if secretive && value.is_string() && SECRETIVE.iter().any(|word| key.to_lowercase().contains(word)) {
                        *value = REDACTED.into();
                    }
                    self.visit(value, &path, positions, file);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.visit(item, &path.item(index), positions, file);
                }
            }
            scalar if positions.has(path) => {
                // As it is written: a variable may hold a secret.
                let written = positions.shown(path);
                if written.contains("${") {
                    *scalar = written.trim_matches('`').into();
                }
                let origin = match positions.value(path) {
                    Origin::File(span) => format!("{file}:{}", span.line),
                    Origin::Variable(name) => name.clone(),
                };
                self.origins.insert(path.as_str().to_owned(), origin);
            }
            _ => {}
        }
    }

    /// The values in YAML, each with its origin behind it. Not a file for `check`: it has keys that mean nothing beside others.
    ///
    /// # Errors
    /// Never in practice: it is a tree of plain values.
    pub fn to_yaml(&self) -> Result<String, serde_saphyr::SerializeError> {
        serde_saphyr::to_string(&self.commented(&self.values, &KeyPath::default()))
    }

    fn commented(&self, value: &Value, path: &KeyPath) -> Commented {
        match value {
            Value::Object(map) => {
                Commented::Map(map.iter().map(|(key, value)| (key.clone(), self.commented(value, &path.key(key)))).collect())
            }
            Value::Array(items) => {
                Commented::List(items.iter().enumerate().map(|(index, item)| self.commented(item, &path.item(index))).collect())
            }
            scalar => {
                let origin = self.origins.get(path.as_str()).map_or("default", String::as_str);
                Commented::Scalar(serde_saphyr::Commented(scalar.clone(), origin.to_owned()))
            }
        }
    }
}

/// A value with a comment behind each of its single values.
enum Commented {
    Map(Vec<(String, Self)>),
    List(Vec<Self>),
    Scalar(serde_saphyr::Commented<Value>),
}

impl Serialize for Commented {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Map(entries) => serializer.collect_map(entries.iter().map(|(key, value)| (key, value))),
            Self::List(items) => serializer.collect_seq(items),
            Self::Scalar(scalar) => scalar.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Environment, from_text};

    const TEXT: &str = "
token_services: { default: { kind: iap, url: 'https://t' } }
upstreams: { app: { servers: ['${HOST}:1'] } }
routes:
  - upstream: app
    headers: { set: { X-Api-Token: abc, X-Plain: plain } }
";

    fn shown(environment: &[(&str, &str)]) -> (String, serde_json::Value) {
        let environment: Environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let resolved = from_text(TEXT, "a.yaml", &environment, Path::new("/nowhere")).unwrap_or_else(|error| panic!("{error}")).resolved;
        (resolved.to_yaml().unwrap(), serde_json::to_value(&resolved).unwrap())
    }

    #[test]
    fn every_value_is_there_with_its_origin_and_no_secret_is() {
        let (yaml, json) = shown(&[("HOST", "hidden"), ("BEARERD__LOGGING__LEVEL", "debug")]);
        assert!(yaml.contains("level: debug # BEARERD__LOGGING__LEVEL\n"), "{yaml}");
        assert!(yaml.contains("drain_timeout: 20s # default\n"), "{yaml}");
        assert!(yaml.contains("X-Plain: plain # a.yaml:6\n"), "{yaml}");
        for secret in ["hidden", "abc"] {
            assert!(!yaml.contains(secret) && !json.to_string().contains(secret), "{secret}: {yaml}");
        }
        assert_eq!(json["values"]["upstreams"]["app"]["servers"][0], "${HOST}:1");
        assert_eq!(json["origins"]["upstreams.app.servers[0]"], "a.yaml:3");
    }

    #[test]
    fn what_is_printed_is_what_is_there() {
        let (yaml, json) = shown(&[("HOST", "localhost")]);
        let read: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(read, json["values"]);
    }
}
