//! JWTs that the token service vouches for, alone or beside a signature; revoked ones.

use serde_json::json;

use crate::support::client::{Response, get};
use crate::support::jwt::{Signer, in_seconds, key_set};
use crate::support::stage::Stage;
use crate::support::token_service::{Behaviour, Operation};

const ALONE: &str = "  - { upstream: app, credentials: [jwt] }";

async fn ask(stage: &Stage, token: &str) -> Response {
    get(stage.bearerd.address(), "/", &[("Authorization", &format!("Bearer {token}"))]).await
}

#[tokio::test]
async fn one_question_for_all_who_bring_the_same() {
    let stage = Stage::with_routes(ALONE).await;
    let token = Signer::new("any").token(&json!({ "sub": "alice" }));
    let answers = all_at_once(&stage, &token, 20).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(stage.service.calls(Operation::Details), 1);
    assert_eq!(stage.service.calls(Operation::Create), 0, "nothing is minted for it");
    assert_eq!(stage.last().head.all("authorization"), [format!("Bearer {token}")]);
}

async fn all_at_once(stage: &Stage, token: &str, count: usize) -> Vec<Response> {
    let address = stage.bearerd.address();
    let bearer = format!("Bearer {token}");
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..count {
        let bearer = bearer.clone();
        asking.spawn(async move { get(address, "/", &[("Authorization", &bearer)]).await });
    }
    asking.join_all().await
}

#[tokio::test]
async fn one_that_the_token_service_does_not_know_is_refused_and_remembered() {
    let stage = Stage::with_routes(ALONE).await;
    stage.service.always(Operation::Details, Behaviour::status(401));
    let token = Signer::new("any").token(&json!({}));
    for _ in 0..3 {
        let refused = ask(&stage, &token).await;
        assert_eq!((refused.status, refused.problem().as_str()), (401, "invalid_token"));
    }
    assert_eq!(stage.service.calls(Operation::Details), 1);
    assert_eq!(stage.upstream.requests().len(), 0);
}

/// Rule 3: an outage says nothing about the caller, and is not remembered.
#[tokio::test]
async fn an_outage_is_503_and_over_when_it_is_over() {
    let stage = Stage::with_routes(ALONE).await;
    let token = Signer::new("any").token(&json!({}));
    for outage in [Behaviour::status(500), Behaviour::Garbage, Behaviour::Reset, Behaviour::status(429)] {
        stage.service.next(Operation::Details, outage);
        let failed = ask(&stage, &token).await;
        assert_eq!((failed.status, failed.problem().as_str()), (503, "token_service_unavailable"));
        assert!(failed.header("retry-after").is_some());
    }
}

#[tokio::test]
async fn expired_and_wrong_typed_ones_are_not_even_asked_about() {
    let stage = Stage::with_routes(ALONE).await;
    let signer = Signer::new("any");
    for claims in [
        json!({ "exp": in_seconds(-1) }),
        json!({ "exp": "soon" }),
        json!({ "sub": 1 }),
        json!({ "aud": { "a": 1 } }),
        json!({ "nbf": in_seconds(3600) }),
    ] {
        assert_eq!(ask(&stage, &signer.token(&claims)).await.problem(), "invalid_token", "{claims}");
    }
    assert_eq!(stage.service.calls(Operation::Details), 0);
}

/// A signer whose key is in a file, which goes with the folder, and what `validate` says to take its tokens.
fn by_signature() -> (Signer, tempfile::TempDir, String) {
    let (signer, folder) = (Signer::new("k1"), tempfile::tempdir().unwrap());
    let file = folder.path().join("keys.json");
    std::fs::write(&file, key_set(&[&signer])).unwrap();
    (signer, folder, format!("jwt: {{ jwks_file: \"{}\", algorithms: [ES256] }}", file.display()))
}

/// With a signature, details are asked only where that is written.
#[tokio::test]
async fn beside_a_signature_details_are_asked_as_written() {
    let (signer, _folder, jwt) = by_signature();
    for (details, asked) in [("", 0), ("details: off, ", 0), ("details: on_mint, ", 1), ("details: 120s, ", 1)] {
        let stage = Stage::with_routes(&format!("  - {{ upstream: app, validate: {{ {details}{jwt} }} }}")).await;
        let token = signer.token(&json!({}));
        assert_eq!(ask(&stage, &token).await.status, 200);
        assert_eq!(ask(&stage, &token).await.status, 200);
        assert_eq!(stage.service.calls(Operation::Details), asked, "{details}");
        let forged = Signer::new("k1").token(&json!({}));
        assert_eq!(ask(&stage, &forged).await.problem(), "invalid_token");
        assert_eq!(stage.service.calls(Operation::Details), asked, "what has no good signature is not asked about");
    }
}

/// A JWT that was revoked through bearerd is dead here at once, though its signature is good and its verdict cached.
#[tokio::test]
async fn a_revoked_one_is_refused_at_once() {
    let (signer, _folder, jwt) = by_signature();
    let stage = Stage::with_routes(&format!("  - {{ token_api: default }}\n  - {{ upstream: app, validate: {{ {jwt} }} }}")).await;
    let (token, other) = (signer.token(&json!({ "sub": "a" })), signer.token(&json!({ "sub": "b" })));
    assert_eq!((ask(&stage, &token).await.status, ask(&stage, &other).await.status), (200, 200));
    let body = json!({ "access_token": token }).to_string();
    let request = format!(
        "DELETE /v1/tokens HTTP/1.1\r\nHost: app.test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(stage.client().await.exchange(request).await.status, 204);
    let refused = ask(&stage, &token).await;
    assert_eq!((refused.status, refused.problem().as_str()), (401, "invalid_token"));
    assert_eq!(ask(&stage, &other).await.status, 200, "others live on");
}
