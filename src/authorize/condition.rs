//! What a route requires of one claim.

use regex::Regex;
use serde_json::Value;

use crate::claims::{Claims, Path};

/// A condition on one claim. A list fulfils it where one of its items does; `mem`, an object, where one of its names does. Types count: the number 7
/// is not the text `7`.
#[derive(Clone, Debug)]
pub enum Condition {
    /// There, and not null; or the contrary.
    Present(bool),
    /// This value.
    Equals(Value),
    /// One of these values.
    OneOf(Vec<Value>),
    /// Text of this shape.
    Glob(Glob),
}

/// Text in which `*` stands for any characters, or none.
#[derive(Clone, Debug)]
pub struct Glob(Regex);

/// The pattern is too long to be compiled.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the pattern is too long")]
pub struct BadGlob;

impl Glob {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// When it is far too long.
    pub fn new(pattern: &str) -> Result<Self, BadGlob> {
        let parts: Vec<String> = pattern.split('*').map(regex::escape).collect();
        Regex::new(&format!(r"(?s)\A{}\z", parts.join(".*"))).map(Self).map_err(|_| BadGlob)
    }

    fn fits(&self, value: &Value) -> bool {
        value.as_str().is_some_and(|text| self.0.is_match(text))
    }
}

impl Condition {
    /// Whether the claim at `path` fulfils it.
    pub fn holds(&self, path: &Path, claims: &Claims) -> bool {
        let found = claims.at(path).filter(|value| !value.is_null());
        if let Self::Present(wanted) = self {
            return found.is_some() == *wanted;
        }
        match found.as_deref() {
            Some(Value::Array(items)) => items.iter().any(|item| self.fits(item)),
            Some(Value::Object(members)) if path.is("mem") => members.keys().any(|name| self.fits(&Value::String(name.clone()))),
            Some(value) => self.fits(value),
            None => false,
        }
    }

    fn fits(&self, value: &Value) -> bool {
        match self {
            Self::Present(wanted) => *wanted,
            Self::Equals(wanted) => value == wanted,
            Self::OneOf(wanted) => wanted.contains(value),
            Self::Glob(glob) => glob.fits(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn holds(condition: &Condition, path: &str, claims: &Value) -> bool {
        condition.holds(&Path::parse(path).unwrap(), &Claims::parse(claims.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn values_lists_and_memberships_are_found() {
        let acme = Condition::Equals(json!("acme"));
        for (path, good) in [
            ("tid", json!({ "tid": "acme" })),
            ("acl", json!({ "acl": ["x", "acme"] })),
            ("mem", json!({ "mem": { "acme": {} } })),
            ("a.b", json!({ "a": { "b": "acme" } })),
        ] {
            assert!(holds(&acme, path, &good), "{path} {good}");
        }
        for (path, bad) in [
            ("tid", json!({ "tid": "acme2" })),
            ("tid", json!({ "tid": { "acme": 1 } })),
            ("tid", json!({ "tid": [["acme"]] })),
            ("mem", json!({ "mem": { "x": "acme" } })),
            ("a.mem", json!({ "a": { "mem": { "acme": 1 } } })),
            ("tid", json!({ "tid": null })),
            ("tid", json!({})),
        ] {
            assert!(!holds(&acme, path, &bad), "{path} {bad}");
        }
        assert!(!holds(&Condition::Equals(json!(7)), "n", &json!({ "n": "7" })));
        assert!(holds(&Condition::OneOf(vec![json!(true), json!("a")]), "n", &json!({ "n": true })));
    }

    #[test]
    fn presence_is_more_than_null() {
        for (claims, there) in [(json!({ "x": 0 }), true), (json!({ "x": false }), true), (json!({ "x": null }), false), (json!({}), false)]
        {
            assert_eq!(holds(&Condition::Present(true), "x", &claims), there);
            assert_eq!(holds(&Condition::Present(false), "x", &claims), !there);
        }
    }

    #[test]
    fn a_glob_is_anchored_and_everything_else_in_it_is_itself() {
        let fits = |pattern: &str, text: &str| Glob::new(pattern).unwrap().fits(&json!(text));
        assert!(fits("team-*", "team-") && fits("*@acme.com", "a\n@acme.com") && fits("a*b*c", "a-b-b-c") && fits("*", ""));
        assert!(
            !fits("team-*", "xteam-1")
                && !fits("*@acme.com", "a@acmexcom")
                && !fits("*@acme.com", "a@acme.com.evil")
                && !fits("a.c", "abc")
        );
        assert!(!Glob::new("*").unwrap().fits(&json!(1)));
    }
}
