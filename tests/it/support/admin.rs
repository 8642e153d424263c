//! An operator at the admin listener.

use std::net::SocketAddr;

use serde_json::Value;

use super::client::{Client, Response};

/// What changes state must bring.
pub const GUARD: &str = "X-Bearerd-Admin: 1\r\n";

/// Sends one request: `line` is method and target, `headers` whole lines, `body` JSON or nothing.
pub async fn ask(admin: SocketAddr, line: &str, headers: &str, body: &Value) -> Response {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut client = Client::connect(admin).await;
    client.exchange(format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())).await
}
