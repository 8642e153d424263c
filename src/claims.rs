//! What a JWT says of its holder, read strictly: text that could be read in two ways is not read at all.

mod path;
mod strict;

use std::borrow::Cow;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

pub use path::{BadPath, Path};

/// Base64 of `tid`, as token services write it: with or without padding.
const TENANT: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// The text is no JSON object, or names a member twice somewhere (RFC 7519 section 4: names must be unique; parsers disagree on which one counts).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object with unique names")]
pub struct Unreadable;

/// The claims of a token. No `Debug`: they say who somebody is.
#[derive(Clone, Default)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// Reads a JSON object, such as a JWT's header or payload.
    ///
    /// # Errors
    /// When it is none, or a name comes twice in any object of it.
    pub fn parse(json: &[u8]) -> Result<Self, Unreadable> {
        serde_json::from_slice::<strict::Object>(json).map(|object| Self(object.0)).map_err(|_| Unreadable)
    }

    /// Reads the payload of a JWT in compact form, without a look at its signature. A text that has not three parts has no claims: `None`.
    ///
    /// # Errors
    /// When the second part is no base64url of such an object.
    pub fn of(token: &str) -> Result<Option<Self>, Unreadable> {
        let mut parts = token.split('.');
        let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else { return Ok(None) };
        Self::parse(&part(payload)?).map(Some)
    }

    /// A member at the top.
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// What stands at a path. `tid` is decoded: base64 of text whose last `:` segment is the tenant.
    pub fn at(&self, path: &Path) -> Option<Cow<'_, Value>> {
        let (first, rest) = path.split()?;
        let mut found = self.0.get(first)?;
        for name in rest {
            found = found.as_object()?.get(name)?;
        }
        if first == "tid"
            && rest.is_empty()
            && let Some(tenant) = found.as_str().and_then(tenant)
        {
            return Some(Cow::Owned(Value::String(tenant)));
        }
        Some(Cow::Borrowed(found))
    }

    /// Whether every one of `wanted` is among the scopes; else the first that is missing. They stand in `scope`, or else in `scp`: in one text,
    /// parted by commas (the token API) or blanks (RFC 8693 section 4.2), or in a list. Anything else holds none.
    ///
    /// # Errors
    /// The first scope that is missing.
    pub fn has_scopes<'w>(&self, wanted: &'w [String]) -> Result<(), &'w str> {
        let scopes = self.0.get("scope").or_else(|| self.0.get("scp"));
        let has = |wanted: &str| match scopes {
            Some(Value::String(text)) => text.split(|c: char| c == ',' || c.is_ascii_whitespace()).any(|scope| scope == wanted),
            Some(Value::Array(items)) => items.iter().any(|item| item.as_str() == Some(wanted)),
            _ => false,
        };
        wanted.iter().find(|wanted| wanted.is_empty() || !has(wanted)).map_or(Ok(()), |missing| Err(missing.as_str()))
    }
}

/// Decodes one part of a JWT (RFC 7515 section 2: base64url). Token services that pad are forgiven.
fn part(text: &str) -> Result<Vec<u8>, Unreadable> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| Unreadable)
}

/// The tenant in an encoded `tid`; `None` where it is not encoded.
fn tenant(text: &str) -> Option<String> {
    let decoded = String::from_utf8(TENANT.decode(text).ok()?).ok()?;
    let (_, tenant) = decoded.rsplit_once(':')?;
    (!tenant.is_empty() && decoded.bytes().all(|byte| byte.is_ascii_graphic())).then(|| tenant.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(value: &Value) -> Claims {
        Claims::parse(value.to_string().as_bytes()).unwrap()
    }

    fn at(claims: &Claims, path: &str) -> Option<Value> {
        claims.at(&Path::parse(path).unwrap()).map(Cow::into_owned)
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_not_read() {
        for twice in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"{"x":{"a":1,"a":2}}"#, r#"{"x":[{"a":1,"a":2}]}"#] {
            assert_eq!(Claims::parse(twice.as_bytes()).err(), Some(Unreadable), "{twice}");
        }
        for wrong in ["", "[]", "1", "null", "{", r#"{"a":1e400}"#, "{}x", &format!("{{\"a\":{}}}", "[".repeat(100_000))] {
            assert_eq!(Claims::parse(wrong.as_bytes()).err(), Some(Unreadable));
        }
        assert!(Claims::parse(br#"{"x":{"a":1},"a":1}"#).is_ok());
    }

    #[test]
    fn paths_lead_into_objects_and_nowhere_else() {
        let claims = claims(&json!({ "realm": { "roles": ["a"] }, "https://acme.example/org": { "id": 7 }, "list": [{ "id": 1 }] }));
        assert_eq!(at(&claims, "realm.roles"), Some(json!(["a"])));
        assert_eq!(at(&claims, "'https://acme.example/org'.id"), Some(json!(7)));
        for nowhere in ["realm.roles.a", "list.id", "list.0", "realm.x", "x"] {
            assert_eq!(at(&claims, nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn the_tenant_is_decoded() {
        let encoded = base64::engine::general_purpose::STANDARD.encode("urn:ilmn:iap:tenant:acme");
        assert_eq!(at(&claims(&json!({ "tid": encoded.trim_end_matches('=') })), "tid"), Some(json!("acme")));
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        for plain in ["acme", "YWNtZQ==", "a:b", &encode("no tenant:"), &encode("a:b\n"), &encode("a:b c")] {
            assert_eq!(at(&claims(&json!({ "tid": plain })), "tid"), Some(json!(plain)));
        }
        let elsewhere = claims(&json!({ "sub": encode("a:b"), "tid": { "x": encode("a:b") } }));
        assert_eq!((at(&elsewhere, "sub"), at(&elsewhere, "tid.x")), (Some(json!("YTpi")), Some(json!("YTpi"))));
    }

    #[test]
    fn scopes_come_in_three_forms() {
        let wanted = ["A".to_owned(), "B".to_owned()];
        for scope in [json!("B,A"), json!("A B C"), json!("A, B"), json!(["B", "A"])] {
            assert_eq!(claims(&json!({ "scope": scope })).has_scopes(&wanted), Ok(()), "{scope}");
        }
        for scope in [json!("A"), json!(["A"]), json!(["A", "C"]), json!("A,BB"), json!({ "A": 1 }), json!(1), json!(null), json!("a,b")] {
            assert!(claims(&json!({ "scope": scope, "scp": "A B" })).has_scopes(&wanted).is_err(), "{scope}");
        }
        assert_eq!(claims(&json!({ "scp": "B" })).has_scopes(&wanted), Err("A"));
        assert!(claims(&json!({ "scope": "A,,B" })).has_scopes(&[String::new()]).is_err(), "an empty scope is nobody's");
    }
}
