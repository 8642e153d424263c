//! Reloads, as operators ask for them and are told of them.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::tokens::{refuse, told};
use crate::clock::Clock;
use crate::config::Diagnostic;
use crate::secret::Secret;
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
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Reloads {
    /// None yet; they are asked for through `ask`.
    pub fn new(ask: mpsc::Sender<oneshot::Sender<Outcome>>, token: Option<Secret>, clock: Clock, metrics: Arc<Metrics>) -> Self {
        metrics.loaded(clock.now().as_secs());
        Self { ask, last: Mutex::default(), token: ArcSwap::from_pointee(token), clock, metrics }
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

    pub(super) fn token(&self) -> Arc<Option<Secret>> {
        self.token.load_full()
    }
}

/// `POST /api/reload` and `GET /api/config`.
pub(super) fn router(reloads: Arc<Reloads>) -> Router {
    Router::new().route("/api/reload", post(reload)).route("/api/config", get(last)).with_state(reloads)
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
