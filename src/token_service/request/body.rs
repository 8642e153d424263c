//! The bodies of `refresh_token` and `revoke_token`: JSON with one member.

use http::{HeaderMap, header};
use serde::Deserialize;

use super::Malformed;
use crate::secret::Secret;

/// Whether the body is of a kind that the reference takes: `application/json`, `text/json`, `application/json-patch+json`,
/// `application/*+json`. One without a Content-Type is taken for JSON.
pub fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.split_once('/') {
        Some(("application", subtype)) => subtype == "json" || subtype.ends_with("+json"),
        Some(("text", subtype)) => subtype == "json",
        _ => false,
    }
}

#[derive(Deserialize)]
struct AccessTokenRequest {
    access_token: String,
}

/// The `access_token` of a body.
///
/// # Errors
/// [`Malformed`] when it is not a JSON object with text of that name. What was sent is not shown again.
pub fn access_token(body: &[u8]) -> Result<Secret, Malformed> {
    let request: AccessTokenRequest =
        serde_json::from_slice(body).map_err(|_| Malformed("the body must be a JSON object with a text `access_token`".to_owned()))?;
    let token = Secret::from(request.access_token);
    if token.expose().is_empty() {
        return Err(Malformed("`access_token` is empty".to_owned()));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn takes(kind: &str) -> bool {
        is_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]))
    }

    #[test]
    fn all_kinds_of_json_are_taken() {
        for kind in
            ["application/json", "Application/JSON; charset=utf-8", "text/json", "application/json-patch+json", "application/a+json"]
        {
            assert!(takes(kind), "{kind}");
        }
        for kind in ["", "json", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "image/a+json"] {
            assert!(!takes(kind), "{kind}");
        }
        assert!(is_json(&HeaderMap::new()));
    }

    #[test]
    fn a_body_names_one_token() {
        assert_eq!(access_token(br#"{"access_token":"t","other":1}"#).unwrap(), Secret::from("t"));
        let deep = "[".repeat(10_000);
        let twice = r#"{"access_token":"t","access_token":"u"}"#;
        for body in
            ["", "{}", "null", "[]", "\"t\"", r#"{"access_token":""}"#, r#"{"access_token":null}"#, r#"{"access_token":1}"#, &deep, twice]
        {
            assert!(matches!(access_token(body.as_bytes()), Err(Malformed(_))), "{body:.40}");
        }
    }

    proptest! {
        #[test]
        fn no_body_breaks_the_reader(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = access_token(&body);
        }
    }
}
