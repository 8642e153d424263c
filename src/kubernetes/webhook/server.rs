//! The webhook over HTTPS: Kubernetes calls no other.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::net::TcpListener;

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

/// `POST /inject` for reviews, `GET /healthz` for the kubelet.
pub fn router(defaults: Defaults) -> Router {
    Router::new().route("/inject", post(inject)).route("/healthz", get(|| async { "ok\n" })).with_state(Arc::new(defaults))
}

/// Serves until `shutdown` is done, and then for at most 5 s the requests that are in flight. Certificates are those of the files as they are then.
pub async fn serve(router: Router, listener: TcpListener, tls: Arc<Listening>, shutdown: impl Future<Output = ()>) {
    http_server::serve_tls(router, listener, tls, MAX_CONNECTIONS, shutdown).await;
}

async fn inject(State(defaults): State<Arc<Defaults>>, body: Body) -> Response {
    let collected = tokio::time::timeout(BODY_TIME, Limited::new(body, BODY_BYTES).collect()).await;
    let body = match collected {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return (StatusCode::PAYLOAD_TOO_LARGE, "a review has at most 3 MiB\n").into_response();
        }
        Ok(Err(_)) => return (StatusCode::BAD_REQUEST, "the body broke off\n").into_response(),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 10 s\n").into_response(),
    };
    match review(&body, &defaults) {
        Ok(answer) => ([(header::CONTENT_TYPE, "application/json")], answer).into_response(),
        Err(error) => {
            tracing::warn!(%error, "a request that is no review");
            (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response()
        }
    }
}
