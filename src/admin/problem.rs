//! What the admin listener answers when it does not do what was asked: a problem (RFC 9457), as callers of the proxy get them.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A problem with this status that tells `detail`, which holds no secret.
pub(super) fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    let headers = [(header::CONTENT_TYPE, "application/problem+json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

/// For paths that are not there.
pub(super) async fn not_found() -> Response {
    problem(StatusCode::NOT_FOUND, "there is nothing here; `GET /api/openapi.json` tells what there is")
}

/// For methods that a path does not have; `Allow` names those that it has.
pub(super) async fn not_allowed() -> Response {
    problem(StatusCode::METHOD_NOT_ALLOWED, "this path does not have this method")
}
