//! The admin API for tokens: see them, take them out of use, have them revoked.

use std::cmp::Ordering;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::problem::problem;
use crate::exchange::{Error, Exchange, Shown, Which};

/// `GET /api/tokens`, `DELETE /api/tokens/{id}` and `POST /api/purge`.
pub(super) fn router(exchange: Arc<Exchange>) -> Router {
    Router::new()
        .route("/api/tokens", get(list))
        .route("/api/tokens/{id}", delete(revoke))
        .route("/api/purge", post(purge))
        .with_state(exchange)
}

/// Which tokens are wanted, and in which order.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    /// A part of the id, route, service or subject; case does not matter.
    q: String,
    sort: Sort,
    /// The last first.
    descending: bool,
    offset: u32,
    limit: u32,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { q: String::new(), sort: Sort::default(), descending: false, offset: 0, limit: 1000 }
    }
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sort {
    #[default]
    Expires,
    Minted,
    Route,
    Service,
    Subject,
    Uses,
}

impl Sort {
    fn compare(self, one: &Shown, other: &Shown) -> Ordering {
        let by = match self {
            Self::Expires => one.expires.cmp(&other.expires),
            Self::Minted => one.minted.cmp(&other.minted),
            Self::Route => one.route.cmp(&other.route),
            Self::Service => one.service.cmp(&other.service),
            Self::Subject => one.subject.cmp(&other.subject),
            Self::Uses => one.uses.cmp(&other.uses),
        };
        // So that pages do not overlap.
        by.then_with(|| one.id.cmp(&other.id))
    }
}

impl Wanted {
    fn finds(&self, entry: &Shown) -> bool {
        let wanted = self.q.to_lowercase();
        let texts = [&entry.id, &entry.route, &entry.service].into_iter().chain(&entry.subject);
        wanted.is_empty() || texts.into_iter().any(|text| text.to_lowercase().contains(&wanted))
    }
}

async fn list(State(exchange): State<Arc<Exchange>>, wanted: Result<Query<Wanted>, QueryRejection>) -> Response {
    let Query(wanted) = match wanted {
        Ok(wanted) => wanted,
        Err(rejection) => return problem(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    // All entries are walked: not on a thread that others wait for.
    let listed = tokio::task::spawn_blocking(move || {
        let mut found: Vec<_> = exchange.inventory().into_iter().filter(|entry| wanted.finds(entry)).collect();
        found.sort_unstable_by(|one, other| wanted.sort.compare(one, other));
        if wanted.descending {
            found.reverse();
        }
        found.into_iter().skip(wanted.offset as usize).take(wanted.limit as usize).collect::<Vec<_>>()
    });
    match listed.await {
        Ok(listed) => Json(listed).into_response(),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the tokens could not be listed"),
    }
}

async fn revoke(State(exchange): State<Arc<Exchange>>, Path(id): Path<String>) -> Response {
    match exchange.purge(&Which::Id(id), true).await {
        Ok(done) if done.purged == 0 => problem(StatusCode::NOT_FOUND, "there is no entry with this id"),
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

async fn purge(State(exchange): State<Arc<Exchange>>, body: Bytes) -> Response {
    let order: Order = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &format!("the body is no order to purge: {error}")),
    };
    let which = match (order.id, order.subject, order.route, order.all) {
        (Some(id), None, None, false) => Which::Id(id),
        (None, Some(subject), None, false) => Which::Subject(subject),
        (None, None, Some(route), false) => Which::Route(route),
        (None, None, None, true) => Which::All,
        _ => return problem(StatusCode::BAD_REQUEST, "say which: one of `id`, `subject`, `route` and `\"all\": true`"),
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
    problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
}
