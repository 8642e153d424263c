//! The four endpoints of the token API over HTTP, and the key set.
//!
//! Statuses and bodies are those of the API's reference; errors are `{code, message, details}`. Whatever a client sends, it gets an
//! answer, and nothing that it sends is a reason for a 5xx.

mod answer;
mod body;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;

use self::answer::{Answer, token};
use super::Issuer;
use super::refusal::Refusal;
use crate::http_server;
use crate::secret::Secret;
use crate::token_service::request;

/// How long clients may keep the key set. Short: a key that was replaced is to be forgotten soon after its last token.
const KEY_SET_CACHE: HeaderValue = HeaderValue::from_static("public, max-age=60");

/// Connections at one time.
const MAX_CONNECTIONS: usize = 1024;

/// The same as [`router`], with the series of `registry` at `/metrics`: for a service that runs on its own.
pub fn router_with_metrics(issuer: Arc<Issuer>, registry: Registry) -> Router {
    let shown = get(|| async move {
        let text = TextEncoder::new().encode_to_string(&registry.gather());
        text.map_err(|_| answer::error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the metrics cannot be shown"))
    });
    router(issuer).route("/metrics", shown)
}

/// Serves a router of this module on `listener` until `shutdown` is done, and then for at most 5 s the requests that are in flight.
pub async fn serve(router: Router, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    http_server::serve(router, listener, MAX_CONNECTIONS, shutdown).await;
}

/// All endpoints of `issuer`. Every request is read up to 64 KiB within 10 s before its handler runs.
pub fn router(issuer: Arc<Issuer>) -> Router {
    Router::new()
        .route("/v1/tokens", post(create_token).delete(revoke_token))
        .route("/v1/tokens/details", get(get_token_details))
        .route("/v1/tokens:refresh", post(refresh_token))
        .route("/.well-known/jwks.json", get(key_set))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(|| async { answer::error(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            answer::error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path has other methods: see Allow")
        })
        .layer(middleware::from_fn(body::read_whole))
        .with_state(issuer)
}

async fn create_token(State(issuer): State<Arc<Issuer>>, uri: Uri, headers: HeaderMap) -> Answer {
    let query = request::query(uri.query().unwrap_or_default())?;
    let Some(credential) = request::credential(&headers, query.api_key)? else {
        return Ok(answer::no_credential());
    };
    let created = issuer.create_token_within_limit(&credential, &query.params).await?;
    Ok(token(&created))
}

/// A 401 has no body here: so does the reference.
async fn get_token_details(State(issuer): State<Arc<Issuer>>, headers: HeaderMap) -> Answer {
    let Some(presented) = request::bearer(&headers) else {
        return Ok(answer::challenge(StatusCode::UNAUTHORIZED.into_response(), answer::CHALLENGE));
    };
    match issuer.get_token_details(&presented) {
        Ok(details) => Ok(answer::private(Json(details))),
        Err(Refusal::Denied) => Ok(answer::challenge(StatusCode::UNAUTHORIZED.into_response(), answer::CHALLENGE_AGAIN)),
        Err(refusal) => Err(refusal),
    }
}

async fn refresh_token(State(issuer): State<Arc<Issuer>>, headers: HeaderMap, sent: Bytes) -> Answer {
    let Some(asked) = access_token(&headers, &sent)? else {
        return Ok(answer::unsupported_media_type());
    };
    let refreshed = issuer.refresh_token(&asked).await?;
    Ok(token(&refreshed))
}

async fn revoke_token(State(issuer): State<Arc<Issuer>>, headers: HeaderMap, sent: Bytes) -> Answer {
    let Some(asked) = access_token(&headers, &sent)? else {
        return Ok(answer::unsupported_media_type());
    };
    issuer.revoke_token(&asked).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn key_set(State(issuer): State<Arc<Issuer>>) -> Response {
    ([(header::CACHE_CONTROL, KEY_SET_CACHE)], Json(issuer.key_set())).into_response()
}

/// The token that a body names; `None` where the body is of a kind that nobody reads here.
fn access_token(headers: &HeaderMap, sent: &[u8]) -> Result<Option<Secret>, Refusal> {
    if !request::is_json(headers) {
        return Ok(None);
    }
    Ok(Some(request::access_token(sent)?))
}
