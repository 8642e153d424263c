//! From a template and claims to the value of a header.

use std::borrow::Cow;

use http::HeaderValue;
use serde_json::Value;

use crate::claims::{Claims, Path};
use crate::template::{Part, Template};

/// A value as far as the token decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rendered {
    /// The whole of it.
    Value(HeaderValue),
    /// With gaps that each request fills.
    Open(Vec<Piece>),
}

/// A part of a value with gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// The peer's address.
    Peer,
    /// The request's id.
    RequestId,
    /// What the caller's certificate says there.
    Certificate(Path),
}

/// What each request fills gaps with.
pub struct Circumstances<'a> {
    /// The peer's address.
    pub peer: &'a HeaderValue,
    /// The request's id.
    pub request_id: &'a HeaderValue,
    /// What the caller's certificate says, where it has shown one.
    pub certificate: Option<&'a Claims>,
}

impl Rendered {
    /// The value for one request; `None` where it cannot be a header's.
    pub fn value(&self, circumstances: &Circumstances<'_>) -> Option<HeaderValue> {
        let pieces = match self {
            Self::Value(value) => return Some(value.clone()),
            Self::Open(pieces) => pieces,
        };
        let mut bytes = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                Piece::Peer => bytes.extend_from_slice(circumstances.peer.as_bytes()),
                Piece::RequestId => bytes.extend_from_slice(circumstances.request_id.as_bytes()),
                Piece::Certificate(path) => bytes.extend_from_slice(told(path, circumstances.certificate?).ok()??.as_bytes()),
            }
        }
        HeaderValue::from_bytes(&bytes).ok()
    }
}

/// This claim cannot be told in a header: readers would take it for something else.
#[derive(Debug)]
pub(super) struct Unfit(pub(super) Path);

/// Fills in the claims and the route's name. `None` where a claim is missing: the header is left out as a whole, rather than told half.
pub(super) fn render(template: &Template, route: &str, claims: &Claims) -> Result<Option<Rendered>, Unfit> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut text = String::new();
    for part in template.parts() {
        let gap = match part {
            Part::Text(fixed) => {
                text.push_str(fixed);
                continue;
            }
            Part::Route => {
                text.push_str(route);
                continue;
            }
            Part::Claim(path) => {
                let Some(told) = told(path, claims)? else { return Ok(None) };
                text.push_str(&told);
                continue;
            }
            Part::Peer => Piece::Peer,
            Part::RequestId => Piece::RequestId,
            Part::Certificate(path) => Piece::Certificate(path.clone()),
        };
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(gap);
    }
    if pieces.is_empty() {
        return Ok(HeaderValue::from_bytes(text.as_bytes()).ok().map(Rendered::Value));
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(Some(Rendered::Open(pieces)))
}

/// A claim as text: lists, and the names of `mem`, joined by commas.
fn told<'c>(path: &Path, claims: &'c Claims) -> Result<Option<Cow<'c, str>>, Unfit> {
    let unfit = || Unfit(path.clone());
    let text: Cow<'c, str> = match claims.at(path) {
        None | Some(Cow::Borrowed(Value::Null)) => return Ok(None),
        Some(Cow::Borrowed(Value::String(text))) => Cow::Borrowed(text),
        Some(value) => match &*value {
            Value::Array(items) => {
                let items: Option<Vec<String>> = items.iter().map(scalar).map(|item| item.filter(is_item)).collect();
                Cow::Owned(items.ok_or_else(unfit)?.join(","))
            }
            Value::Object(members) if path.is("mem") => {
                let names: Vec<String> = members.keys().cloned().collect();
                if !names.iter().all(is_item) {
                    return Err(unfit());
                }
                Cow::Owned(names.join(","))
            }
            Value::Object(_) => return Err(unfit()),
            other => Cow::Owned(scalar(other).unwrap_or_default()),
        },
    };
    match &*text {
        "" => Ok(None),
        // Readers trim: what begins or ends with a blank would arrive as somebody else's name.
        blank if blank.trim() != blank || blank.chars().any(char::is_control) => Err(unfit()),
        _ => Ok(Some(text)),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// One with a comma in it would be several to readers.
fn is_item(text: &String) -> bool {
    !text.is_empty() && !text.contains(',') && text.trim() == text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rendered(template: &str, claims: &Value) -> Result<Option<Rendered>, String> {
        let claims = Claims::parse(claims.to_string().as_bytes()).unwrap();
        render(&Template::parse(template).unwrap(), "api", &claims).map_err(|Unfit(path)| path.to_string())
    }

    fn value(text: &str) -> Result<Option<Rendered>, String> {
        Ok(Some(Rendered::Value(HeaderValue::from_bytes(text.as_bytes()).unwrap())))
    }

    #[test]
    fn claims_become_text_and_lists_are_joined() {
        let claims = json!({ "sub": "alice", "acl": ["a", "b", 3], "mem": { "cid:1": {}, "cid:2": {} }, "n": 7, "name": "Jürgen" });
        for (template, expected) in [
            ("{claims.sub}@{route}", "alice@api"),
            ("{claims.acl}", "a,b,3"),
            ("{claims.mem}", "cid:1,cid:2"),
            ("{claims.n}", "7"),
            ("{claims.name}", "Jürgen"),
        ] {
            assert_eq!(rendered(template, &claims), value(expected), "{template}");
        }
        assert_eq!(rendered("x{claims.none}", &claims), Ok(None));
    }

    #[test]
    fn what_readers_would_take_for_something_else_is_not_told() {
        for unfit in [
            json!("a\r\nX-Admin: 1"),
            json!("a\u{0}"),
            json!(" admin"),
            json!("admin\t"),
            json!(["a,admin"]),
            json!([["a"]]),
            json!({ "a": 1 }),
            json!([null]),
            json!([""]),
        ] {
            assert_eq!(rendered("{claims.x}", &json!({ "x": unfit })), Err("x".to_owned()), "{unfit}");
        }
        for missing in [json!(null), json!(""), json!([])] {
            assert_eq!(rendered("{claims.x}", &json!({ "x": missing })), Ok(None));
        }
    }

    #[test]
    fn gaps_are_filled_for_each_request() {
        let Ok(Some(open)) = rendered("{peer};{claims.sub};{request_id}", &json!({ "sub": "a" })) else { panic!("it has gaps") };
        let (peer, request_id) = (HeaderValue::from_static("10.0.0.1"), HeaderValue::from_static("r1"));
        let circumstances = Circumstances { peer: &peer, request_id: &request_id, certificate: None };
        assert_eq!(open.value(&circumstances).unwrap(), "10.0.0.1;a;r1");
        let Ok(Some(open)) = rendered("by {peer}, who is {claims.sub}", &json!({ "sub": "a" })) else { panic!("it has a gap") };
        assert_eq!(open.value(&circumstances).unwrap(), "by 10.0.0.1, who is a");
    }
}
