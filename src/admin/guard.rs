//! Who may ask the admin listener, and for what.
//!
//! Where a token is set, everything but the bare page needs it, or the session that it was exchanged for. Without one the listener is bound to loopback, and a
//! page that a browser was lured to (DNS rebinding) is told apart by its `Host`. What changes state needs a header that no form can send, and comes from no other site.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::problem::problem;
use crate::clock::{Clock, Timestamp};
use crate::secret::Secret;

/// No form of a web page can send it.
const GUARD: &str = "x-bearerd-admin";
/// The cookie of a session.
const COOKIE: &str = "bearerd_admin";
/// How long a browser stays logged in.
const SESSION: Duration = Duration::from_secs(12 * 3600);
/// Sessions at one time; a further one ends the oldest.
const SESSIONS: usize = 64;
/// What a browser needs before anybody has logged in: no data in it.
const OPEN: [&str; 5] = ["/", "/page.css", "/page.js", "/icon.svg", "/api/login"];

/// The token that operators bring, and the browsers that have brought it.
pub struct Guard {
    token: ArcSwap<Option<Secret>>,
    sessions: Mutex<Vec<(Secret, Timestamp)>>,
    clock: Clock,
}

impl Guard {
    /// Operators bring this token, where there is one.
    pub fn new(token: Option<Secret>, clock: Clock) -> Self {
        Self { token: ArcSwap::from_pointee(token), sessions: Mutex::default(), clock }
    }

    /// From now on operators bring this token. Whoever is logged in with another one no longer is.
    pub fn change_token(&self, token: Option<Secret>) {
        if *self.token.swap(Arc::new(token.clone())) != token {
            self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    fn admits(&self, token: &Secret, headers: &HeaderMap) -> bool {
        let brought = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        match brought {
            Some(brought) => Secret::from(brought) == *token,
            None => cookie(headers).is_some_and(|session| self.knows(&session)),
        }
    }

    fn knows(&self, session: &Secret) -> bool {
        let now = self.clock.now();
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|(_, ends)| *ends > now);
        // All are compared, so that the time tells nothing of which.
        sessions.iter().fold(false, |found, (known, _)| found | (known == session))
    }

    fn begin(&self, session: Secret) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= SESSIONS {
            sessions.remove(0);
        }
        sessions.push((session, self.clock.now().plus(SESSION)));
    }

    fn end(&self, session: &Secret) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).retain(|(known, _)| known != session);
    }
}

/// Lets a request through, or answers it.
pub(super) async fn admit(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    match &**guard.token.load() {
        Some(token) if !OPEN.contains(&request.uri().path()) && !guard.admits(token, headers) => {
            return unauthorized("the admin token is missing or wrong: send `Authorization: Bearer TOKEN`");
        }
        None if !names_loopback(headers) => {
            return problem(StatusCode::FORBIDDEN, "ask for this listener by its loopback address");
        }
        _ => {}
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        if headers.get(header::ORIGIN).is_some_and(|origin| !is_ours(origin, headers)) {
            return problem(StatusCode::FORBIDDEN, "this comes from another site");
        }
        if headers.get(GUARD).is_none_or(|value| value != "1") {
            return problem(StatusCode::FORBIDDEN, "send the header `X-Bearerd-Admin: 1` with what changes state");
        }
    }
    next.run(request).await
}

fn is_ours(origin: &header::HeaderValue, headers: &HeaderMap) -> bool {
    let host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    host.is_some() && host == headers.get(header::HOST).and_then(|host| host.to_str().ok())
}

fn names_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    host.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || host.split(':').next() == Some("localhost")
}

fn cookie(headers: &HeaderMap) -> Option<Secret> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).find_map(|pair| Some(Secret::from(pair.trim().strip_prefix(COOKIE)?.strip_prefix('=')?)))
}

/// `GET /api/login`, `POST /api/login` and `POST /api/logout`.
pub(super) fn router(guard: Arc<Guard>) -> Router {
    Router::new().route("/api/login", get(standing).post(login)).route("/api/logout", post(logout)).with_state(guard)
}

fn unauthorized(detail: &str) -> Response {
    ([(header::WWW_AUTHENTICATE, "Bearer realm=\"bearerd admin\"")], problem(StatusCode::UNAUTHORIZED, detail)).into_response()
}

/// Whether a token is needed here, and whether this browser is logged in.
async fn standing(State(guard): State<Arc<Guard>>, headers: HeaderMap) -> Response {
    let needed = guard.token.load().is_some();
    Json(json!({ "needed": needed, "logged_in": cookie(&headers).is_some_and(|session| guard.knows(&session)) })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    token: String,
}

async fn login(State(guard): State<Arc<Guard>>, body: Bytes) -> Response {
    // What serde says might quote the token.
    let Ok(Login { token }) = serde_json::from_slice(&body) else {
        return problem(StatusCode::BAD_REQUEST, "the body is no login, as {\"token\": \"...\"}");
    };
    match &**guard.token.load() {
        None => return StatusCode::NO_CONTENT.into_response(),
        Some(wanted) if Secret::from(token) != *wanted => return unauthorized("this is not the admin token"),
        Some(_) => {}
    }
    let Ok(session) = Secret::random() else {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "the system gives no randomness");
    };
    let cookie = set_cookie(session.expose(), SESSION);
    guard.begin(session);
    tracing::info!("an operator logged in to the admin page");
    ([(header::SET_COOKIE, cookie)], StatusCode::NO_CONTENT).into_response()
}

async fn logout(State(guard): State<Arc<Guard>>, headers: HeaderMap) -> Response {
    if let Some(session) = cookie(&headers) {
        guard.end(&session);
    }
    ([(header::SET_COOKIE, set_cookie("", Duration::ZERO))], StatusCode::NO_CONTENT).into_response()
}

/// Not `Secure`: without TLS on this listener the browser would not send it back.
fn set_cookie(value: &str, life: Duration) -> String {
    format!("{COOKIE}={value}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict", life.as_secs())
}
