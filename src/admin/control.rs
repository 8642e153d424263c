//! The process as operators steer it: the configuration that serves and its reloads, the level of the log, the end.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

use super::problem::problem;
use crate::clock::Clock;
use crate::config::operation::Level;
use crate::config::{Diagnostic, Resolved};
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
pub struct Last {
    at: i64,
    #[serde(flatten)]
    outcome: Outcome,
}

/// What operators see of the configuration that serves, and the way to ask for another one or for the end.
pub struct Control {
    ask: mpsc::Sender<oneshot::Sender<Outcome>>,
    last: Mutex<Option<Last>>,
    served: ArcSwap<Served>,
    levels: Option<Levels>,
    quit: watch::Sender<bool>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// A configuration, as it serves.
#[derive(Clone, Debug, Serialize)]
pub struct Served {
    /// Its routes in order.
    pub routes: Vec<RouteShown>,
    /// Its values and where they come from, without secrets.
    pub configuration: Resolved,
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

impl Control {
    /// Reloads are asked for through `ask`. `levels` is the level of the log, where it can be set.
    pub fn new(
        ask: mpsc::Sender<oneshot::Sender<Outcome>>,
        served: Served,
        levels: Option<Levels>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        metrics.loaded(clock.now().as_secs());
        let (last, quit) = (Mutex::default(), watch::Sender::new(false));
        Self { ask, last, served: ArcSwap::from_pointee(served), levels, quit, clock, metrics }
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

    /// This serves from now on.
    pub fn show(&self, served: Served) {
        self.served.store(Arc::new(served));
    }

    /// `true` once an operator wants the process to end.
    pub fn quit(&self) -> watch::Receiver<bool> {
        self.quit.subscribe()
    }

    pub(super) fn last_reload(&self) -> Option<Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn served(&self) -> Arc<Served> {
        self.served.load_full()
    }
}

/// `POST /api/reload`, `GET /api/config`, `GET /api/routes`, `PUT /api/log-level` and `POST /api/quit`.
pub(super) fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/api/reload", post(reload))
        .route("/api/config", get(configuration))
        .route("/api/routes", get(routes))
        .route("/api/log-level", put(log_level))
        .route("/api/quit", post(quit))
        .with_state(control)
}

async fn reload(State(control): State<Arc<Control>>) -> Response {
    let (asker, answer) = oneshot::channel();
    let asked = control.ask.send(asker).await;
    let Some(outcome) = (if asked.is_ok() { answer.await.ok() } else { None }) else {
        return problem(StatusCode::CONFLICT, "this process was not started from a configuration file");
    };
    let status = if matches!(outcome, Outcome::Reloaded { .. }) { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    (status, Json(outcome)).into_response()
}

async fn configuration(State(control): State<Arc<Control>>) -> Response {
    Json(json!({ "last_reload": control.last_reload(), "configuration": control.served().configuration })).into_response()
}

async fn routes(State(control): State<Arc<Control>>) -> Response {
    Json(&control.served().routes).into_response()
}

/// The level that is wanted until the next reload or start.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    level: Level,
}

async fn log_level(State(control): State<Arc<Control>>, body: Bytes) -> Response {
    let Wanted { level } = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &format!("the body is no level, as {{\"level\": \"debug\"}}: {error}")),
    };
    let Some(levels) = &control.levels else {
        return problem(StatusCode::CONFLICT, "the log of this process has no level to be set");
    };
    levels.set(level.of_log());
    tracing::warn!(?level, "an operator set the level of the log");
    StatusCode::NO_CONTENT.into_response()
}

/// As SIGTERM: for Jobs, whose containers must all end.
async fn quit(State(control): State<Arc<Control>>) -> StatusCode {
    if !control.quit.send_replace(true) {
        tracing::warn!("an operator asked for the end of this process");
    }
    StatusCode::ACCEPTED
}
