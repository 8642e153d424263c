//! The token API, whoever answers it: a `token_api` route, or the embedded token service.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::canary::{CANARY, escaped, secret};
use super::scene::{Scene, status};

/// The endpoints, and where they are.
#[derive(Clone, Copy)]
pub struct Api(pub SocketAddr);

const CREATE: &str = "POST /v1/tokens";
const REVOKE: &str = "DELETE /v1/tokens";
const REFRESH: &str = "POST /v1/tokens:refresh";
const JSON: &str = "Content-Type: application/json\r\n";

impl Api {
    /// Sends a request, and gives its status. A token that is given to whom it is for is no secret that got out.
    pub async fn call(self, scene: &mut Scene, line: &str, headers: &str, body: &str) -> u16 {
        let length = body.len();
        let request = format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        let status = status(&scene.send_to(self.0, request).await);
        if status == 201 {
            let (_, answer) = scene.answers.last_mut().unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let body: Value = serde_json::from_str(body).unwrap();
            scene.tokens.push(body["access_token"].as_str().unwrap().to_owned());
            *answer = head.to_owned();
        }
        status
    }

    /// A token for this credential, `query` with its `?`.
    pub async fn create(self, scene: &mut Scene, query: &str, header: &str) -> u16 {
        self.call(scene, &format!("{CREATE}{query}"), header, "").await
    }

    pub async fn details(self, scene: &mut Scene, token: &str) -> u16 {
        self.call(scene, "GET /v1/tokens/details", &format!("Authorization: Bearer {token}\r\n"), "").await
    }

    pub async fn refresh(self, scene: &mut Scene, token: &str) -> u16 {
        self.call(scene, REFRESH, JSON, &json!({ "access_token": token }).to_string()).await
    }

    pub async fn revoke(self, scene: &mut Scene, token: &str) -> u16 {
        self.call(scene, REVOKE, JSON, &json!({ "access_token": token }).to_string()).await
    }

    /// Requests that are wrong in one way each; whatever they are answered, it is recorded.
    pub async fn malformed(self, scene: &mut Scene) {
        let key = secret("malformed");
        let bodies = [
            format!("{{{key}"),
            format!("\"{key}\""),
            json!([key]).to_string(),
            json!({ "access_token": [key] }).to_string(),
            json!({ "access_token": format!("{key} {key}") }).to_string(),
            json!({ "access_token": format!("{key}\u{e9}") }).to_string(),
            json!({ "access_token": "", "token": key }).to_string(),
            format!("{{\"access_token\":\"{key}\",\"access_token\":\"{key}\"}}"),
            format!("{key}{}", "x".repeat(70_000)),
        ];
        for line in [REVOKE, REFRESH, CREATE, "PUT /v1/tokens", "POST /v1/tokens/details"] {
            for body in &bodies {
                self.call(scene, line, JSON, body).await;
            }
            self.call(scene, line, "Content-Type: text/plain\r\n", &key).await;
        }
        let queries = [
            format!("?api_key={0}&api_key={0}", escaped(&key)),
            format!("?api_key={CANARY}%zz"),
            format!("?api_key={CANARY}%20{CANARY}"),
            format!("?api_key={CANARY}%2C{CANARY}"),
            format!("?api_key={CANARY}&returnSessionToken={CANARY}"),
            format!("?api_key={CANARY}&cid={CANARY}&cid={CANARY}"),
            format!("?{CANARY}={CANARY}"),
        ];
        for query in queries {
            self.create(scene, &query, "").await;
            self.create(scene, &query, &format!("X-API-Key: {key}\r\n")).await;
        }
        let lines = [
            format!("X-API-Key: {key}\r\nX-API-Key: {key}"),
            format!("X-API-Key: {key}\r\nAuthorization: Basic {}", STANDARD.encode(&key)),
            format!("X-API-Key: {key},{key}"),
            format!("X-API-Key: {key} {key}"),
            format!("Authorization: Basic !{key}!"),
            format!("Authorization: Basic {}", STANDARD.encode([key.as_bytes(), b"\xff\xfe"].concat())),
            format!("Authorization: Digest {key}"),
            format!("Authorization: Bearer {key} {key}"),
            format!("Authorization: Bearer a.{}.{CANARY}", STANDARD.encode(&key)),
            format!("Authorization: {key},{key}"),
        ];
        for line in lines {
            for asked in [CREATE, REVOKE, REFRESH, "GET /v1/tokens/details"] {
                self.call(scene, asked, &format!("{line}\r\n"), "").await;
            }
        }
    }
}

/// Every place for a credential of this API, as a query and a header line.
pub fn places(key: &str) -> [(String, String); 5] {
    [
        (String::new(), format!("X-API-Key: {key}\r\n")),
        (String::new(), format!("Authorization: {key}\r\n")),
        (String::new(), format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("alice:{key}")))),
        (String::new(), format!("Authorization: Basic {}\r\n", STANDARD.encode(key))),
        (format!("?api_key={}", escaped(key)), String::new()),
    ]
}
