//! The admin API as operators and their tools see it.

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::admin::{GUARD, ask};
use crate::support::bearerd::Bearerd;
use crate::support::client::{Client, Response, get};
use crate::support::process::Process;
use crate::support::stage::{Stage, configuration, surroundings};
use crate::support::token_service::{Behaviour, Operation, subject};

const ROUTES: &str =
    "  - { name: one, match: { path_prefix: /one }, upstream: app, token: { cid: one } }\n  - { name: two, upstream: app }";

async fn read(stage: &Stage, path: &str) -> Value {
    let answer = ask(stage.bearerd.addresses().admin, &format!("GET {path}"), "", &Value::Null).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.body.text());
    answer.body.json()
}

fn is_problem(answer: &Response, status: u16) {
    assert_eq!((answer.status, answer.header("content-type")), (status, Some("application/problem+json")), "{}", answer.body.text());
    let body = answer.body.json();
    assert_eq!(body["status"], status);
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
}

#[tokio::test]
async fn tokens_are_searched_sorted_and_counted() {
    let stage = Stage::with_routes(ROUTES).await;
    for (path, key) in [("/one", "a"), ("/", "a"), ("/", "b"), ("/", "b"), ("/", "b")] {
        assert_eq!(get(stage.bearerd.address(), path, &[("x-api-key", key)]).await.status, 200);
    }
    let all = read(&stage, "/api/tokens").await;
    assert_eq!(all.as_array().unwrap().len(), 3);
    let most = read(&stage, "/api/tokens?sort=uses&descending=true&limit=1").await;
    assert_eq!((&most[0]["subject"], &most[0]["uses"]), (&json!(subject("b")), &json!(2)), "the mint, then two hits");
    let (minted, renews, expires) = (most[0]["minted"].as_i64(), most[0]["renews"].as_i64(), most[0]["expires"].as_i64());
    assert!(minted < renews && renews < expires, "{most}");
    let ones = read(&stage, "/api/tokens?q=ONE").await;
    assert_eq!((ones.as_array().unwrap().len(), &ones[0]["route"]), (1, &json!("one")));
    assert_eq!(read(&stage, "/api/tokens?sort=route&offset=2").await[0]["route"], "two");
    for wrong in ["sort=colour", "limit=-1", "page=1"] {
        is_problem(&ask(stage.bearerd.addresses().admin, &format!("GET /api/tokens?{wrong}"), "", &Value::Null).await, 400);
    }
}

#[tokio::test]
async fn the_overview_tells_what_was_served_and_why_it_was_not() {
    let stage = Stage::with_routes(ROUTES).await;
    for key in ["a", "a"] {
        assert_eq!(get(stage.bearerd.address(), "/", &[("x-api-key", key)]).await.status, 200);
    }
    stage.service.next(Operation::Create, Behaviour::status(401));
    assert_eq!(get(stage.bearerd.address(), "/x?api_key=canary", &[("x-api-key", "bad")]).await.status, 401);
    stage.bearerd.until(r#"bearerd_requests_total{code="401",method="GET",route="two"}"#, 1.0).await;
    let overview = read(&stage, "/api/overview").await;
    let two = &overview["summary"]["routes"]["two"];
    assert_eq!(
        (&two["answers"]["2xx"], &two["decisions"]["denied"], &two["reasons"]["denied"]),
        (&json!(2), &json!(1), &json!(1)),
        "{two}"
    );
    assert_eq!((&overview["summary"]["cache"]["hit"], &overview["summary"]["cache"]["entries"]), (&json!(1), &json!(1)));
    let service = &overview["summary"]["token_services"]["default"];
    assert_eq!((&service["breaker_open"], &service["calls"]["create"]), (&json!(false), &json!({ "ok": 1, "denied": 1 })));
    let refusal = &overview["refusals"][0];
    assert_eq!(
        (&refusal["route"], &refusal["reason"], &refusal["path"], &refusal["status"]),
        (&json!("two"), &json!("denied"), &json!("/x"), &json!(401))
    );
    assert!(refusal["advice"].as_str().unwrap().contains("token service does not know this key"));
    assert!(!overview.to_string().contains("canary"));
}

#[tokio::test]
async fn the_overview_comes_again_by_itself() {
    let stage = Stage::with_routes(ROUTES).await;
    let mut listener = Client::connect(stage.bearerd.addresses().admin).await;
    listener.send("GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
    let head = listener.head().await;
    assert_eq!((head.word(1), head.header("content-type")), ("200", Some("text/event-stream")));
    assert_eq!(get(stage.bearerd.address(), "/", &[("x-api-key", "a")]).await.status, 200);
    let mut seen = String::new();
    while !seen.contains(r#""entries":1"#) {
        seen.push_str(&String::from_utf8_lossy(&listener.bytes(1).await));
    }
    assert!(seen.contains("event: overview\ndata: {"), "{seen}");
}

#[tokio::test]
async fn what_is_refused_is_refused_as_a_problem() {
    let stage = Stage::with_routes(ROUTES).await;
    let admin = stage.bearerd.addresses().admin;
    is_problem(&ask(admin, "GET /api/nothing", "", &Value::Null).await, 404);
    is_problem(&ask(admin, "DELETE /api/tokens/none", GUARD, &Value::Null).await, 404);
    is_problem(&ask(admin, "POST /api/purge", "", &json!({ "all": true })).await, 403);
    is_problem(&ask(admin, "POST /api/purge", GUARD, &json!({ "all": "yes" })).await, 400);
    is_problem(&ask(admin, "PUT /api/log-level", GUARD, &json!({ "level": "loud" })).await, 400);
    let other = ask(admin, "PUT /api/purge", GUARD, &Value::Null).await;
    is_problem(&other, 405);
    assert_eq!(other.header("allow"), Some("POST"));
    let mut elsewhere = Client::connect(admin).await;
    is_problem(&elsewhere.exchange("GET /api/tokens HTTP/1.1\r\nHost: evil.example\r\n\r\n").await, 403);
}

async fn with_token() -> (Bearerd, tempfile::TempDir) {
    let folder = tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "admin-canary\n").unwrap();
    let (service, upstream) = surroundings().await;
    let section = format!("admin: {{ address: \"127.0.0.1:0\", token_file: {} }}", folder.path().join("token").display());
    (Bearerd::start(&configuration(&service, &upstream, &section, ROUTES)), folder)
}

#[tokio::test]
async fn a_browser_logs_in_once_and_out_again() {
    let (bearerd, _folder) = with_token().await;
    let admin = bearerd.addresses().admin;
    // The bare page, so that somebody can log in; nothing else.
    for path in ["/", "/page.js", "/page.css"] {
        assert_eq!(ask(admin, &format!("GET {path}"), "", &Value::Null).await.status, 200, "{path}");
    }
    for path in ["/api/tokens", "/api/config", "/api/overview", "/api/events", "/api/openapi.json", "/metrics"] {
        assert_eq!(ask(admin, &format!("GET {path}"), "", &Value::Null).await.status, 401, "{path}");
    }
    let wrong = ask(admin, "POST /api/login", GUARD, &json!({ "token": "admin-canarx" })).await;
    is_problem(&wrong, 401);
    assert_eq!(wrong.header("www-authenticate"), Some("Bearer realm=\"bearerd admin\""));
    is_problem(&ask(admin, "POST /api/login", "", &json!({ "token": "admin-canary" })).await, 403);
    let malformed = ask(admin, "POST /api/login", GUARD, &json!({ "token": ["admin-canary"] })).await;
    is_problem(&malformed, 400);
    assert!(!malformed.body.text().contains("canary"));
    let login = ask(admin, "POST /api/login", GUARD, &json!({ "token": "admin-canary" })).await;
    assert_eq!(login.status, 204);
    let cookie = login.header("set-cookie").unwrap();
    assert!(cookie.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"), "{cookie}");
    let session = format!("Cookie: other=1; {}\r\n", cookie.split(';').next().unwrap());
    assert!(!session.contains("canary"));
    assert_eq!(ask(admin, "GET /api/tokens", &session, &Value::Null).await.status, 200);
    // The cookie alone changes nothing.
    is_problem(&ask(admin, "POST /api/purge", &session, &json!({ "all": true })).await, 403);
    assert_eq!(ask(admin, "POST /api/purge", &format!("{session}{GUARD}"), &json!({ "all": true })).await.status, 200);
    assert_eq!(ask(admin, "POST /api/logout", &format!("{session}{GUARD}"), &Value::Null).await.status, 204);
    assert_eq!(ask(admin, "GET /api/tokens", &session, &Value::Null).await.status, 401);
}

#[tokio::test]
async fn a_browsers_session_ends_by_itself() {
    let (bearerd, _folder) = with_token().await;
    let admin = bearerd.addresses().admin;
    let login = ask(admin, "POST /api/login", GUARD, &json!({ "token": "admin-canary" })).await;
    let session = format!("Cookie: {}\r\n", login.header("set-cookie").unwrap().split(';').next().unwrap());
    assert_eq!(ask(admin, "GET /api/routes", &session, &Value::Null).await.status, 200);
    bearerd.clock.step(12 * 3600 * 1000);
    assert_eq!(ask(admin, "GET /api/routes", &session, &Value::Null).await.status, 401);
}

#[tokio::test]
async fn the_configuration_is_shown_with_origins_and_without_secrets() {
    let (service, upstream) = surroundings().await;
    let routes = "  - { upstream: app, headers: { set: { X-Fixed: \"${CANARY}\" } } }";
    let directory = tempdir().unwrap();
    let text = crate::support::process::on_free_ports(&configuration(&service, &upstream, "", routes));
    std::fs::write(directory.path().join("bearerd.yaml"), text).unwrap();
    let process = Process::start_with(&["run"], &[("CANARY", "sesame"), ("BEARERD__SHUTDOWN__DELAY", "0s")], directory);
    let admin = process.addresses().await.admin;
    let shown = ask(admin, "GET /api/config", "", &Value::Null).await.body.json();
    let (values, origins) = (&shown["configuration"]["values"], &shown["configuration"]["origins"]);
    assert_eq!((&shown["last_reload"], &values["shutdown"]["delay"]), (&Value::Null, &json!("0s")));
    assert_eq!(origins["shutdown.delay"], "BEARERD__SHUTDOWN__DELAY");
    assert_eq!(values["routes"][0]["headers"]["set"]["X-Fixed"], "${CANARY}");
    assert!(!shown.to_string().contains("sesame"));
    assert_eq!(ask(admin, "POST /api/quit", GUARD, &Value::Null).await.status, 202);
    let ended = process.ended().await;
    assert_eq!(ended.code(), 0, "as SIGTERM: {:?}", ended.stderr);
}
