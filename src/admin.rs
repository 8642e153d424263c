//! The listeners for machines and operators: metrics and probes.

pub mod reload;
mod tokens;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, http::HeaderMap};
use serde_json::json;

use crate::exchange::Exchange;
use crate::secret::Secret;
use crate::telemetry::metrics::Metrics;
use reload::Reloads;

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

/// The admin listener: the same paths and those that change state, for those who bring the token where one is set. Without one it is bound to loopback, and a page that a browser
/// was lured to (DNS rebinding) is told apart by its `Host`.
pub fn admin_listener(shown: Shown, reloads: Arc<Reloads>) -> Router {
    let tokens = tokens::router(Arc::clone(&shown.exchange));
    let reload = reload::router(Arc::clone(&reloads));
    metrics_listener(shown).merge(tokens).merge(reload).layer(middleware::from_fn_with_state(reloads, admit))
}

async fn admit(State(reloads): State<Arc<Reloads>>, request: Request, next: Next) -> Response {
    match &*reloads.token() {
        Some(token) if !brings(request.headers(), token) => (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Bearer realm=\"bearerd admin\"")],
            "the admin token is missing or wrong\n",
        )
            .into_response(),
        None if !names_loopback(request.headers()) => {
            (StatusCode::FORBIDDEN, "ask for this listener by its loopback address\n").into_response()
        }
        _ => next.run(request).await,
    }
}

fn brings(headers: &HeaderMap, token: &Secret) -> bool {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .is_some_and(|brought| Secret::from(brought) == *token)
}

fn names_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    host.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        || host.split(':').next() == Some("localhost")
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

/// No form of a web page can send it.
const GUARD: &str = "x-bearerd-admin";

/// A page that a browser was lured to can reach loopback, but it can neither send this header nor hide where it comes from.
fn refuse(headers: &HeaderMap) -> Option<Response> {
    let is_ours = |origin: &header::HeaderValue| {
        let host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
        host.is_some() && host == headers.get(header::HOST).and_then(|host| host.to_str().ok())
    };
    if headers.get(header::ORIGIN).is_some_and(|origin| !is_ours(origin)) {
        return Some(told(StatusCode::FORBIDDEN, "this comes from another site"));
    }
    let guarded = headers.get(GUARD).is_some_and(|value| value == "1");
    (!guarded).then(|| told(StatusCode::FORBIDDEN, "send the header `X-Bearerd-Admin: 1` with what changes state"))
}

fn told(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({ "detail": detail }))).into_response()
}
