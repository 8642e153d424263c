//! The webhook over HTTPS: Kubernetes calls no other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};
use tokio::net::TcpListener;

use super::metrics::{Metrics, Outcome};
use super::review;
use crate::http_server;
use crate::kubernetes::Defaults;
use crate::tls::server::Listening;

/// The most that a review may have: an object of Kubernetes has at most half of it, and a review may hold two.
const BODY_BYTES: usize = 3 << 20;
/// How long it may take to arrive; Kubernetes itself waits 10 s unless it is told otherwise.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Connections at one time.
const MAX_CONNECTIONS: usize = 1024;
/// The same to the metrics: few call there.
const METRICS_CONNECTIONS: usize = 64;

/// What answers are made with.
struct Webhook {
    defaults: Defaults,
    metrics: Metrics,
}

/// `POST /inject` for reviews, `GET /healthz` for the kubelet.
pub fn router(defaults: Defaults, metrics: Metrics) -> Router {
    let webhook = Arc::new(Webhook { defaults, metrics });
    Router::new().route("/inject", post(inject)).route("/healthz", get(|| async { "ok\n" })).with_state(webhook)
}

/// `GET /metrics`, nothing else.
pub fn metrics_router(registry: Registry) -> Router {
    let shown = move || async move {
        match TextEncoder::new().encode_to_string(&registry.gather()) {
            Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        }
    };
    Router::new().route("/metrics", get(shown))
}

/// Serves until `shutdown` is done, and then for at most 5 s the requests that are in flight. Certificates are those of the files as they are then.
pub async fn serve(router: Router, listener: TcpListener, tls: Arc<Listening>, shutdown: impl Future<Output = ()>) {
    http_server::serve_tls(router, listener, tls, MAX_CONNECTIONS, shutdown).await;
}

/// Serves metrics, without TLS, for as long as its runtime does.
pub async fn serve_metrics(router: Router, listener: TcpListener) {
    http_server::serve(router, listener, METRICS_CONNECTIONS, std::future::pending()).await;
}

async fn inject(State(webhook): State<Arc<Webhook>>, body: Body) -> Response {
    let begun = Instant::now();
    let (outcome, response) = answer(&webhook.defaults, body).await;
    webhook.metrics.answered(outcome, begun.elapsed().as_secs_f64());
    response
}

async fn answer(defaults: &Defaults, body: Body) -> (Outcome, Response) {
    let failed = |status: StatusCode, told: String| (Outcome::Error, (status, told).into_response());
    let collected = tokio::time::timeout(BODY_TIME, Limited::new(body, BODY_BYTES).collect()).await;
    let body = match collected {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return failed(StatusCode::PAYLOAD_TOO_LARGE, "a review has at most 3 MiB\n".to_owned());
        }
        Ok(Err(_)) => return failed(StatusCode::BAD_REQUEST, "the body broke off\n".to_owned()),
        Err(_) => return failed(StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 10 s\n".to_owned()),
    };
    match review(&body, defaults) {
        Ok((answer, outcome)) => (outcome, ([(header::CONTENT_TYPE, "application/json")], answer).into_response()),
        Err(error) => {
            tracing::warn!(%error, "a request that is no review");
            failed(StatusCode::BAD_REQUEST, format!("{error}\n"))
        }
    }
}
