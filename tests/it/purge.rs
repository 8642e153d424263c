//! Purging and revoking through the admin listener.

use serde_json::{Value, json};

use crate::support::admin;
use crate::support::client::{Response, get};
use crate::support::stage::Stage;
use crate::support::token_service::{Operation, subject};

const ROUTES: &str =
    "  - { name: one, match: { path_prefix: /one }, upstream: app, token: { cid: one } }\n  - { name: two, upstream: app }";

async fn stage() -> Stage {
    let stage = Stage::with_routes(ROUTES).await;
    for (path, key) in [("/one", "a"), ("/one", "b"), ("/", "a"), ("/", "c")] {
        assert_eq!(get(stage.bearerd.address(), path, &[("x-api-key", key)]).await.status, 200);
    }
    stage
}

async fn send(stage: &Stage, line: &str, headers: &str, body: &Value) -> Response {
    admin::ask(stage.bearerd.addresses().admin, line, headers, body).await
}

async fn purge(stage: &Stage, order: Value) -> (u16, Value) {
    let response = send(stage, "POST /api/purge", "X-Bearerd-Admin: 1\r\n", &order).await;
    (response.status, response.body.json())
}

#[tokio::test]
async fn entries_are_shown_without_their_secrets_and_purged_as_wanted() {
    let stage = stage().await;
    let shown = send(&stage, "GET /api/tokens", "", &Value::Null).await.body;
    assert!(!shown.text().contains("eyJ") && !shown.text().contains("Bearer"));
    let list = shown.json();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 4);
    let id = list.iter().find(|entry| entry["route"] == "two" && entry["subject"] == subject("c")).unwrap()["id"].clone();
    assert_eq!(purge(&stage, json!({ "id": id })).await, (200, json!({ "purged": 1, "revoked": 0 })));
    assert_eq!(purge(&stage, json!({ "subject": subject("a") })).await, (200, json!({ "purged": 2, "revoked": 0 })));
    assert_eq!(purge(&stage, json!({ "route": "one", "revoke": true })).await, (200, json!({ "purged": 1, "revoked": 1 })));
    assert_eq!(purge(&stage, json!({ "all": true })).await, (200, json!({ "purged": 0, "revoked": 0 })));
    stage.bearerd.until(r#"bearerd_revocations_total{outcome="ok"}"#, 1.0).await;
    assert_eq!(stage.service.calls(Operation::Revoke), 1);
    assert_eq!(get(stage.bearerd.address(), "/", &[("x-api-key", "c")]).await.status, 200);
    assert_eq!(stage.service.calls(Operation::Create), 5, "minted anew");
}

#[tokio::test]
async fn one_token_is_revoked_by_its_id() {
    let stage = stage().await;
    let list = send(&stage, "GET /api/tokens", "", &Value::Null).await.body.json();
    let line = format!("DELETE /api/tokens/{}", list[0]["id"].as_str().unwrap());
    assert_eq!(send(&stage, &line, "X-Bearerd-Admin: 1\r\n", &Value::Null).await.status, 202);
    assert_eq!(send(&stage, &line, "X-Bearerd-Admin: 1\r\n", &Value::Null).await.status, 404);
    stage.service.wait_for_calls(Operation::Revoke, 1).await;
}

#[tokio::test]
async fn no_page_of_another_site_can_purge() {
    let stage = stage().await;
    let order = json!({ "all": true, "revoke": true });
    for headers in
        ["", "X-Bearerd-Admin: 1\r\nOrigin: https://evil.example\r\n", "X-Bearerd-Admin: 1\r\nOrigin: null\r\n", "X-Bearerd-Admin: 0\r\n"]
    {
        assert_eq!(send(&stage, "POST /api/purge", headers, &order).await.status, 403, "{headers}");
    }
    for wrong in [json!({}), json!({ "all": true, "route": "one" }), json!({ "everything": 1 }), json!([])] {
        assert_eq!(purge(&stage, wrong.clone()).await.0, 400, "{wrong}");
    }
    assert_eq!(stage.bearerd.value("bearerd_cache_entries").await, 4.0);
    assert_eq!(get(stage.bearerd.addresses().metrics, "/api/tokens", &[]).await.status, 404, "not on the metrics listener");
}
