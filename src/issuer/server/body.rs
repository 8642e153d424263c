//! Request bodies: read whole before anything else, within bounds.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;

use super::answer;

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
