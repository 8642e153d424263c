//! Request bodies: read whole before anything else, within bounds; then JSON with one member.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use serde::Deserialize;

use super::answer;
use crate::issuer::refusal::Refusal;
use crate::secret::Secret;

/// Bytes of a body that are looked at.
const LIMIT: usize = 64 * 1024;
/// Bytes of a body that are read in all: what is past [`LIMIT`] is thrown away, so that the client can read its 413 in peace.
const DISCARD_LIMIT: usize = 4 * 1024 * 1024;
/// Time for a whole body to arrive.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the body, also for handlers that want none: a connection with an unread body may break before its answer is read.
pub async fn read_whole(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if announces_too_much(&parts.headers) {
        return too_large();
    }
    match tokio::time::timeout(TIMEOUT, collect(body)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Ok(Err(Unread::TooLarge)) => too_large(),
        Ok(Err(Unread::Broken)) => answer::error(StatusCode::BAD_REQUEST, "invalid_request", "the body does not end as its headers say"),
        Err(_) => answer::error(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body took too long to arrive"),
    }
}

/// A client that waits for leave to send (RFC 9110 section 10.1.1) does not get it for a body that nobody would read.
fn announces_too_much(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let limit = if headers.contains_key(header::EXPECT) { LIMIT } else { DISCARD_LIMIT };
    length.is_some_and(|length| length > limit)
}

fn too_large() -> Response {
    answer::error(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "the body is longer than 64 KiB")
}

enum Unread {
    TooLarge,
    Broken,
}

async fn collect(mut body: Body) -> Result<Bytes, Unread> {
    let mut kept = Vec::new();
    let mut total = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        total += data.len();
        if total > DISCARD_LIMIT {
            break;
        }
        if total <= LIMIT {
            kept.extend_from_slice(&data);
        }
    }
    if total > LIMIT { Err(Unread::TooLarge) } else { Ok(kept.into()) }
}

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
/// [`Refusal::Invalid`] when it is not a JSON object with text of that name. What was sent is not shown again.
pub fn access_token(body: &[u8]) -> Result<Secret, Refusal> {
    let request: AccessTokenRequest = serde_json::from_slice(body)
        .map_err(|_| Refusal::Invalid("the body must be a JSON object with a text `access_token`".to_owned()))?;
    let token = Secret::from(request.access_token);
    if token.expose().is_empty() {
        return Err(Refusal::Invalid("`access_token` is empty".to_owned()));
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
            assert!(matches!(access_token(body.as_bytes()), Err(Refusal::Invalid(_))), "{body:.40}");
        }
    }

    proptest! {
        #[test]
        fn no_body_breaks_the_reader(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = access_token(&body);
        }
    }
}
