//! The configuration that serves, as operators see and change it: reloads, routes, the level of the log.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::{refuse, told};
use crate::clock::Clock;
use crate::config::Diagnostic;
use crate::config::operation::Level;
use crate::secret::Secret;
use crate::telemetry::logs::Levels;
use crate::telemetry::metrics::Metrics;

/// What became of a reload.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The new configuration serves.
    Reloaded {
        /// Keys whose change takes effect only at the next start.
        needs_restart: Vec<String>,
    },
    /// The one before goes on.
    Refused {
        /// Why, for people.
        error: String,
        /// The mistakes one by one, where the file has some.
        diagnostics: Vec<Diagnostic>,
    },
}

/// The last reload, with its time in seconds since 1970.
#[derive(Clone, Debug, Serialize)]
struct Last {
    at: i64,
    #[serde(flatten)]
    outcome: Outcome,
}

/// The way to ask for a reload, and what became of the last one.
pub struct Reloads {
    ask: mpsc::Sender<oneshot::Sender<Outcome>>,
    last: Mutex<Option<Last>>,
    /// What operators bring, where a token is set.
    token: ArcSwap<Option<Secret>>,
    routes: ArcSwap<Vec<RouteShown>>,
    levels: Option<Levels>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// A route, for operators.
#[derive(Clone, Debug, Serialize)]
pub struct RouteShown {
    /// Its name.
    pub name: String,
    /// The hosts that it takes; all where there are none.
    pub hosts: Vec<String>,
    /// The paths that it takes, as they are configured.
    pub path: String,
    /// The methods that it takes; all where there are none.
    pub methods: Vec<String>,
    /// What serves it.
    pub served_by: String,
    /// Whether a credential is needed.
    pub protected: bool,
    /// Whether refusals are carried out.
    pub enforced: bool,
}

impl Reloads {
    /// None yet; they are asked for through `ask`. `levels` is the level of the log, where it can be set.
    pub fn new(
        ask: mpsc::Sender<oneshot::Sender<Outcome>>,
        token: Option<Secret>,
        levels: Option<Levels>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        metrics.loaded(clock.now().as_secs());
        Self { ask, last: Mutex::default(), token: ArcSwap::from_pointee(token), routes: ArcSwap::default(), levels, clock, metrics }
    }

    /// Keeps it for operators, and counts it.
    pub fn note(&self, outcome: &Outcome) {
        let at = self.clock.now().as_secs();
        match outcome {
            Outcome::Reloaded { .. } => self.metrics.reloaded(at),
            Outcome::Refused { .. } => self.metrics.reload_refused(),
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Last { at, outcome: outcome.clone() });
    }

    /// From now on operators bring this token.
    pub fn change_token(&self, token: Option<Secret>) {
        self.token.store(Arc::new(token));
    }

    /// These are served from now on.
    pub fn show_routes(&self, routes: Vec<RouteShown>) {
        self.routes.store(Arc::new(routes));
    }

    pub(super) fn token(&self) -> Arc<Option<Secret>> {
        self.token.load_full()
    }
}

/// `POST /api/reload`, `GET /api/config`, `GET /api/routes` and `PUT /api/log-level`.
pub(super) fn router(reloads: Arc<Reloads>) -> Router {
    Router::new()
        .route("/api/reload", post(reload))
        .route("/api/config", get(last))
        .route("/api/routes", get(routes))
        .route("/api/log-level", put(log_level))
        .with_state(reloads)
}

async fn reload(State(reloads): State<Arc<Reloads>>, headers: HeaderMap) -> Response {
    if let Some(refusal) = refuse(&headers) {
        return refusal;
    }
    let (asker, answer) = oneshot::channel();
    let asked = reloads.ask.send(asker).await;
    let Some(outcome) = (if asked.is_ok() { answer.await.ok() } else { None }) else {
        return told(StatusCode::CONFLICT, "this process was not started from a configuration file");
    };
    let status = if matches!(outcome, Outcome::Reloaded { .. }) { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    (status, Json(outcome)).into_response()
}

async fn last(State(reloads): State<Arc<Reloads>>) -> Response {
    let last = reloads.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Json(json!({ "last_reload": last })).into_response()
}

async fn routes(State(reloads): State<Arc<Reloads>>) -> Response {
    Json(&**reloads.routes.load()).into_response()
}

/// The level that is wanted until the next reload or start.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    level: Level,
}

async fn log_level(State(reloads): State<Arc<Reloads>>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refusal) = refuse(&headers) {
        return refusal;
    }
    let Wanted { level } = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => return told(StatusCode::BAD_REQUEST, &format!("the body is no level, as {{\"level\": \"debug\"}}: {error}")),
    };
    let Some(levels) = &reloads.levels else {
        return told(StatusCode::CONFLICT, "the log of this process has no level to be set");
    };
    levels.set(level.of_log());
    tracing::warn!(?level, "an operator set the level of the log");
    StatusCode::NO_CONTENT.into_response()
}
