//! The listeners for machines and operators: metrics, probes, the admin API and its page.

pub mod control;
pub mod guard;
pub mod overview;
mod page;
mod problem;
mod tokens;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::exchange::Exchange;
use crate::telemetry::metrics::Metrics;
use control::Control;
use guard::Guard;
use overview::Watched;

/// The exposition format that Prometheus reads.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether this process is ready for requests: bound, and not on its way out.
#[derive(Default)]
pub struct Readiness {
    started: AtomicBool,
    draining: AtomicBool,
    /// What must have come to pass first.
    conditions: Mutex<Vec<Condition>>,
}

/// `true` once it holds.
type Condition = Box<dyn Fn() -> bool + Send>;

impl Readiness {
    /// The configuration is loaded and every listener bound.
    pub fn started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// New requests should go elsewhere.
    pub fn draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Not ready before this holds; from then on it is not looked at any more.
    pub fn wait_for(&self, condition: impl Fn() -> bool + Send + 'static) {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(condition));
    }

    fn has_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    fn is_ready(&self) -> bool {
        let mut conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.retain(|holds| !holds());
        self.has_started() && conditions.is_empty() && !self.draining.load(Ordering::Acquire)
    }
}

/// What the listeners show.
#[derive(Clone)]
pub struct Shown {
    /// The families.
    pub metrics: Arc<Metrics>,
    /// For gauges that are read at a scrape.
    pub exchange: Arc<Exchange>,
    /// For the probes.
    pub readiness: Arc<Readiness>,
}

/// `/metrics`, `/livez`, `/readyz` and `/startupz`, nothing else.
pub fn metrics_listener(shown: Shown) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/startupz", get(startup))
        .with_state(shown)
}

/// The admin listener: the same paths, the admin API and its page, for those whom `guard` admits.
pub fn admin_listener(shown: Shown, guard: Arc<Guard>, control: Arc<Control>, watched: Arc<Watched>) -> Router {
    let tokens = tokens::router(Arc::clone(&shown.exchange));
    metrics_listener(shown)
        .merge(tokens)
        .merge(control::router(control))
        .merge(overview::router(watched))
        .merge(guard::router(Arc::clone(&guard)))
        .merge(page::router())
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::not_allowed)
        .layer(middleware::from_fn_with_state(guard, guard::admit))
}

async fn metrics(State(shown): State<Shown>) -> Response {
    shown.exchange.refresh_gauges();
    match shown.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, EXPOSITION)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(shown): State<Shown>) -> Response {
    probe(shown.readiness.is_ready(), "ready\n", "not ready: starting, draining, or without the first token of a mounted key\n")
}

async fn startup(State(shown): State<Shown>) -> Response {
    probe(shown.readiness.has_started(), "started\n", "starting\n")
}

fn probe(good: bool, yes: &'static str, no: &'static str) -> Response {
    if good { yes.into_response() } else { (StatusCode::SERVICE_UNAVAILABLE, no).into_response() }
}
