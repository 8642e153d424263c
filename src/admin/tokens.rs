//! The admin API for tokens: see them, take them out of use, have them revoked.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::{refuse, told};

use crate::exchange::{Error, Exchange, Which};

/// `GET /api/tokens`, `DELETE /api/tokens/{id}` and `POST /api/purge`.
pub(super) fn router(exchange: Arc<Exchange>) -> Router {
    Router::new()
        .route("/api/tokens", get(list))
        .route("/api/tokens/{id}", delete(revoke))
        .route("/api/purge", post(purge))
        .with_state(exchange)
}

async fn list(State(exchange): State<Arc<Exchange>>) -> Response {
    Json(exchange.inventory()).into_response()
}

async fn revoke(State(exchange): State<Arc<Exchange>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    if let Some(refusal) = refuse(&headers) {
        return refusal;
    }
    match exchange.purge(&Which::Id(id), true).await {
        Ok(done) if done.purged == 0 => told(StatusCode::NOT_FOUND, "there is no entry with this id"),
        Ok(done) => (StatusCode::ACCEPTED, Json(done)).into_response(),
        Err(error) => unavailable(&error),
    }
}

/// What to purge: one of the first four.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    id: Option<String>,
    subject: Option<String>,
    route: Option<String>,
    #[serde(default)]
    all: bool,
    #[serde(default)]
    revoke: bool,
}

async fn purge(State(exchange): State<Arc<Exchange>>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refusal) = refuse(&headers) {
        return refusal;
    }
    let order: Order = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(error) => return told(StatusCode::BAD_REQUEST, &format!("the body is no order to purge: {error}")),
    };
    let which = match (order.id, order.subject, order.route, order.all) {
        (Some(id), None, None, false) => Which::Id(id),
        (None, Some(subject), None, false) => Which::Subject(subject),
        (None, None, Some(route), false) => Which::Route(route),
        (None, None, None, true) => Which::All,
        _ => return told(StatusCode::BAD_REQUEST, "say which: one of `id`, `subject`, `route` and `\"all\": true`"),
    };
    match exchange.purge(&which, order.revoke).await {
        Ok(done) => {
            tracing::warn!(purged = done.purged, revoked = done.revoked, "an operator purged tokens");
            Json(done).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

fn unavailable(error: &Error) -> Response {
    told(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
}
