//! A token service on a free port, with a clock that the test steps, and a client for it.

use std::net::SocketAddr;
use std::sync::Arc;

use bearerd::clock::Clock;
use bearerd::issuer::api_key::ApiKey;
use bearerd::issuer::grants::Grants;
use bearerd::issuer::signing_key::SigningKey;
use bearerd::issuer::{Issuer, Settings, server};
use bearerd::secret::Secret;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Alice's key: everything that [`grants`] has.
pub const ALICE: &str = "key-of-alice";
/// Bob's key: ends [`BOB_LIVES`] after the start, and has a workgroup.
pub const BOB: &str = "key-of-bob";
pub const BOB_LIVES_MILLIS: i64 = 1_800_000;
pub const LIFETIME_MILLIS: i64 = 3_600_000;
pub const SESSION_MILLIS: i64 = 12 * LIFETIME_MILLIS;

pub fn grants() -> Grants {
    let list = |items: [&str; 2]| items.map(str::to_owned).to_vec();
    let mem = [("cid:1".to_owned(), json!({ "role": "admin" })), ("cid:2".to_owned(), json!({}))];
    Grants { scopes: list(["GDS.READ", "GDS.WRITE"]), acl: list(["x", "y"]), mem: mem.into_iter().collect() }
}

pub fn issuer(clock: &Clock) -> Arc<Issuer> {
    let mut alice = ApiKey::new("alice", &Secret::from(ALICE), grants());
    alice.subject = "user-alice".to_owned();
    alice.tenant = "acme".to_owned();
    let mut bob = ApiKey::new("bob", &Secret::from(BOB), Grants::default());
    bob.workgroup = Some("wg-bob".to_owned());
    bob.expires = Some(clock.now().plus(std::time::Duration::from_millis(BOB_LIVES_MILLIS.unsigned_abs())));
    Issuer::new(Settings::default(), vec![alice, bob], SigningKey::generate().unwrap(), clock.clone()).unwrap()
}

pub struct Served {
    pub address: SocketAddr,
    pub clock: Clock,
    client: Client<HttpConnector, Full<Bytes>>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Served {
    pub async fn start() -> Self {
        let clock = Clock::steppable();
        Self::start_with(issuer(&clock), clock).await
    }

    pub async fn start_with(issuer: Arc<Issuer>, clock: Clock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(server::serve(server::router(issuer), listener, async move {
            let _ = stopped.await;
        }));
        Self { address, clock, client: Client::builder(TokioExecutor::new()).build_http(), stop, server }
    }

    /// Ends it; returns when its loop has ended.
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.server.await.unwrap();
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let reply = self.client.request(request.body(Full::from(body.to_owned())).unwrap()).await.unwrap();
        let (parts, body) = reply.into_parts();
        Reply { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    /// `POST /v1/tokens`, as Python's SDK sends it.
    pub async fn create(&self, query: &str, credential: (&str, &str)) -> Reply {
        let headers = [credential, ("Content-Type", "application/json"), ("Accept", "application/json")];
        self.send("POST", &format!("/v1/tokens{query}"), &headers, "").await
    }

    /// A token of alice's.
    pub async fn token(&self, query: &str) -> String {
        self.create(query, ("X-API-Key", ALICE)).await.token()
    }

    pub async fn details(&self, token: &str) -> Reply {
        self.send("GET", "/v1/tokens/details", &[("Authorization", &format!("Bearer {token}"))], "").await
    }

    pub async fn refresh(&self, token: &str) -> Reply {
        let body = json!({ "access_token": token }).to_string();
        self.send("POST", "/v1/tokens:refresh", &[("Content-Type", "application/json")], &body).await
    }

    pub async fn revoke(&self, token: &str) -> Reply {
        let body = json!({ "access_token": token }).to_string();
        self.send("DELETE", "/v1/tokens", &[("Content-Type", "application/json")], &body).await
    }
}

impl Reply {
    pub fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The token of a 201, which no cache may keep.
    pub fn token(&self) -> String {
        assert_eq!(self.status, 201, "{:?}", self.body);
        assert_eq!(self.headers["cache-control"], "no-store");
        let body = self.json();
        assert_eq!(body["token_type"], "Bearer");
        body["access_token"].as_str().unwrap().to_owned()
    }

    /// The message of an error in the API's form.
    pub fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{:?}", self.body);
        let body = self.json();
        assert_eq!(body.as_object().unwrap().len(), 3, "{body}");
        assert_eq!(body["details"], json!([]));
        assert!(body["code"].is_string());
        body["message"].as_str().unwrap().to_owned()
    }
}
