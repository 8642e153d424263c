//! The demo's app: answers every request with what it received.

use std::collections::BTreeMap;
use std::future;

use axum::Json;
use axum::Router;
use axum::extract::Request;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::http_server;

/// Connections at one time: bearerd's own, and a person's who looks past it.
const CONNECTIONS: usize = 256;

#[derive(Serialize)]
struct Received {
    method: String,
    target: String,
    /// By name; a header that came more than once has all its values.
    headers: BTreeMap<String, Vec<String>>,
}

/// Serves until its task ends.
pub(super) async fn serve(listener: TcpListener) {
    let app = Router::new().fallback(|request: Request| async move { Json(received(&request)) });
    http_server::serve(app, listener, CONNECTIONS, future::pending()).await;
}

fn received(request: &Request) -> Received {
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in request.headers() {
        headers.entry(name.to_string()).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    Received { method: request.method().to_string(), target: request.uri().to_string(), headers }
}
