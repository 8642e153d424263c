//! Routes that stand in for the token service.

use std::time::Duration;

use serde_json::Value;

use crate::support::bearerd::Bearerd;
use crate::support::client::{Client, Response, get};
use crate::support::stage::{Stage, configuration, surroundings};
use crate::support::token_service::{Behaviour, Operation, ScriptedTokenService, claims, subject};

const ROUTES: &str = "  - { name: tokens, token_api: default }\n  - { name: app, upstream: app, validate: { details: off } }";

async fn create(bearerd: &Bearerd, query: &str, header: &str) -> Response {
    let mut client = Client::connect(bearerd.address()).await;
    client.exchange(format!("POST /v1/tokens{query} HTTP/1.1\r\nHost: h\r\n{header}\r\nContent-Length: 0\r\n\r\n")).await
}

async fn with_body(bearerd: &Bearerd, line: &str, token: &str) -> Response {
    let body = serde_json::json!({ "access_token": token }).to_string();
    let mut client = Client::connect(bearerd.address()).await;
    client
        .exchange(format!("{line} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
        .await
}

async fn details(bearerd: &Bearerd, token: &str) -> Response {
    get(bearerd.address(), "/v1/tokens/details", &[("authorization", &format!("Bearer {token}"))]).await
}

fn token(response: &Response) -> String {
    assert_eq!((response.status, response.header("cache-control")), (201, Some("no-store")), "{response:?}");
    let body = response.body.json();
    assert_eq!(body["token_type"], "Bearer");
    body["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn fifty_calls_are_one_and_each_set_of_parameters_and_credential_its_own() {
    let stage = Stage::with_routes(ROUTES).await;
    let first = token(&create(&stage.bearerd, "?scopes=A%2CB&returnSessionToken=False", "X-API-Key: k").await);
    for _ in 0..49 {
        assert_eq!(token(&create(&stage.bearerd, "?scopes=A%2CB", "X-API-Key: k").await), first);
    }
    assert_eq!(stage.service.calls(Operation::Create), 1);
    assert_eq!((&claims(&first)["scope"], &claims(&first)["sub"]), (&Value::from("A,B"), &Value::from(subject("k"))));
    for (query, header) in [
        ("?scopes=A", "X-API-Key: k"),
        ("?scopes=A%2CB", "X-API-Key: l"),
        ("", "Authorization: Basic azpw"),
        ("", "Authorization: k"),
        ("", "Authorization: Bearer pst_1"),
    ] {
        assert_ne!(token(&create(&stage.bearerd, query, header).await), first, "{query} {header}");
    }
    assert_eq!(stage.service.calls(Operation::Create), 6);
    assert_eq!(stage.upstream.requests().len(), 0);
    stage.bearerd.until(r#"bearerd_auth_decisions_total{reason="",result="allowed",route="tokens"}"#, 55.0).await;
}

#[tokio::test]
async fn errors_are_the_apis_own() {
    let stage = Stage::with_routes(ROUTES).await;
    for (theirs, ours) in [(401, 401), (403, 403), (400, 400), (500, 503)] {
        stage.service.next(Operation::Create, Behaviour::status(theirs));
        let response = create(&stage.bearerd, "", &format!("X-API-Key: k{theirs}")).await;
        let body = response.body.json();
        assert_eq!((response.status, response.header("content-type")), (ours, Some("application/json")));
        assert!(body["code"].is_string() && body["message"].is_string() && body["details"].is_array(), "{body}");
        assert_eq!(response.header("retry-after").is_some(), ours == 503);
    }
    for (query, header, status) in
        [("", "X-None: x", 401), ("?cid=1&cid=2", "X-API-Key: k", 400), ("", "X-API-Key: k\r\nAuthorization: Bearer x", 400)]
    {
        assert_eq!(create(&stage.bearerd, query, header).await.status, status, "{query} {header}");
    }
    let wrong = get(stage.bearerd.address(), "/v1/tokens", &[("x-api-key", "k")]).await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST, DELETE")));
    assert_eq!(get(stage.bearerd.address(), "/v1/tokens/other", &[("x-api-key", "k")]).await.status, 200, "other paths are other routes'");
    let mut client = stage.client().await;
    let huge =
        client.exchange("DELETE /v1/tokens HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n".to_owned() + &"x".repeat(100_000)).await;
    assert_eq!(huge.status, 413);
}

/// CVE-2026-73552: what passes in one place of a request passes in none.
#[tokio::test]
async fn cve_2026_73552_a_key_that_is_not_visible_ascii_never_gets_to_the_token_service() {
    let stage = Stage::with_routes(ROUTES).await;
    for (query, header) in [
        ("?api_key=k%C3%A9", "X-None: x"),
        ("?api_key=k%20", "X-None: x"),
        ("?api_key=k%2Cl", "X-None: x"),
        ("", "X-API-Key: k l"),
        ("", "X-API-Key: k,l"),
        ("", "Authorization: k,l"),
        ("", "Authorization: Bearer k,l"),
    ] {
        assert_eq!(create(&stage.bearerd, query, header).await.status, 400, "{query} {header}");
    }
    assert_eq!(stage.service.calls(Operation::Create), 0);
    token(&create(&stage.bearerd, "?api_key=k%21", "X-None: x").await);
}

#[tokio::test]
async fn details_are_asked_once_a_minute_and_a_dead_token_is_dead() {
    let stage = Stage::with_routes(ROUTES).await;
    let minted = token(&create(&stage.bearerd, "", "X-API-Key: k").await);
    let asked = stage.service.calls(Operation::Details);
    for _ in 0..5 {
        let response = details(&stage.bearerd, &minted).await;
        assert_eq!((response.status, &response.body.json()["uid"]), (200, &Value::from("u-1")));
    }
    assert_eq!(details(&stage.bearerd, "a.foreign.token").await.status, 200);
    assert_eq!(stage.service.calls(Operation::Details) - asked, 2);
    stage.service.next(Operation::Details, Behaviour::status(401));
    let dead = details(&stage.bearerd, "dead").await;
    assert_eq!((dead.status, dead.body.text().as_str()), (401, ""));
    assert_eq!(get(stage.bearerd.address(), "/v1/tokens/details", &[]).await.status, 401);
}

#[tokio::test]
async fn a_revoked_token_is_dead_at_once_and_the_service_is_told_even_after_an_outage() {
    let stage = Stage::with_routes(ROUTES).await;
    let minted = token(&create(&stage.bearerd, "", "X-API-Key: k").await);
    assert_eq!(details(&stage.bearerd, &minted).await.status, 200);
    stage.service.next(Operation::Revoke, Behaviour::status(503));
    assert_eq!(with_body(&stage.bearerd, "DELETE /v1/tokens", &minted).await.status, 204);
    assert_eq!(details(&stage.bearerd, &minted).await.status, 401, "though the service would still say 200");
    assert_eq!(with_body(&stage.bearerd, "DELETE /v1/tokens", &minted).await.status, 204, "it is dead, as is wanted");
    assert_ne!(token(&create(&stage.bearerd, "", "X-API-Key: k").await), minted);
    stage.bearerd.until(r#"bearerd_revocations_total{outcome="ok"}"#, 1.0).await;
    assert_eq!(stage.service.calls(Operation::Revoke), 2, "tried again");
    assert_eq!(stage.bearerd.value("bearerd_revocations_pending").await, 0.0);
    let told = stage.service.recorded().into_iter().rfind(|call| call.operation == Operation::Revoke).unwrap();
    assert_eq!(told.body.json()["access_token"], minted);
}

#[tokio::test]
async fn a_strangers_token_is_passed_on_and_never_queued() {
    let stage = Stage::with_routes(ROUTES).await;
    stage.service.next(Operation::Revoke, Behaviour::status(503));
    assert_eq!(with_body(&stage.bearerd, "DELETE /v1/tokens", "theirs").await.status, 503);
    stage.service.next(Operation::Revoke, Behaviour::status(401));
    assert_eq!(with_body(&stage.bearerd, "DELETE /v1/tokens", "theirs").await.status, 401);
    assert_eq!(details(&stage.bearerd, "theirs").await.status, 200, "no tombstone without the service's word");
    assert_eq!(with_body(&stage.bearerd, "DELETE /v1/tokens", "theirs").await.status, 204);
    assert_eq!(details(&stage.bearerd, "theirs").await.status, 401);
    assert_eq!((stage.service.calls(Operation::Revoke), stage.bearerd.value("bearerd_revocations_pending").await), (3, 0.0));
}

#[tokio::test]
async fn where_tombstones_are_full_a_revocation_is_refused_and_the_token_lives() {
    let stage = Stage::configured("cache: { tombstones: { max_entries: 1 } }", ROUTES).await;
    let (one, other) = (token(&create(&stage.bearerd, "", "X-API-Key: a").await), token(&create(&stage.bearerd, "", "X-API-Key: b").await));
    assert_eq!(with_body(&stage.bearerd, "DELETE /v1/tokens", &one).await.status, 204);
    let refused = with_body(&stage.bearerd, "DELETE /v1/tokens", &other).await;
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));
    assert_eq!(details(&stage.bearerd, &other).await.status, 200);
}

#[tokio::test]
async fn a_token_of_one_service_is_a_strangers_at_another() {
    let (service, upstream) = surroundings().await;
    let other = ScriptedTokenService::start().await;
    let bearerd = Bearerd::start(&format!(
        "token_services: {{ default: {{ kind: iap, url: \"{}\" }}, lab: {{ kind: iap, url: \"{}\" }} }}\n\
         upstreams: {{ app: {{ servers: [\"{}\"] }} }}\nroutes:\n  - {{ token_api: default }}\n\
         \x20 - {{ upstream: app, token: {{ service: lab }} }}\n",
        service.url(),
        other.url(),
        upstream.address()
    ));
    assert_eq!(get(bearerd.address(), "/", &[("x-api-key", "k")]).await.status, 200);
    let lab = upstream.requests()[0].head.header("authorization").unwrap()["Bearer ".len()..].to_owned();
    service.next(Operation::Revoke, Behaviour::status(401));
    assert_eq!(with_body(&bearerd, "DELETE /v1/tokens", &lab).await.status, 401, "passed on to the one that was asked");
    assert_eq!(get(bearerd.address(), "/", &[("x-api-key", "k")]).await.status, 200);
    assert_eq!((other.calls(Operation::Create), other.calls(Operation::Revoke)), (1, 0), "it lives");
}

#[tokio::test]
async fn released_is_not_revoked() {
    let stage = Stage::with_routes("  - { token_api: { service: default, on_revoke: release } }").await;
    let minted = token(&create(&stage.bearerd, "", "X-API-Key: shared").await);
    assert_eq!(with_body(&stage.bearerd, "DELETE /v1/tokens", &minted).await.status, 204);
    assert_eq!(token(&create(&stage.bearerd, "", "X-API-Key: shared").await), minted, "others go on with it");
    assert_eq!(stage.service.calls(Operation::Revoke), 0);
    assert_eq!(with_body(&stage.bearerd, "DELETE /v1/tokens", "theirs").await.status, 204);
    assert_eq!(stage.service.calls(Operation::Revoke), 1, "one that was not minted here has nobody to share it");
}

/// Without the service's word, and with it: bearerd has minted the first session itself.
#[tokio::test]
async fn a_revoked_session_takes_with_it_what_was_minted_from_it() {
    let stage = Stage::with_routes(ROUTES).await;
    for session in [token(&create(&stage.bearerd, "?returnSessionToken=true", "X-API-Key: k").await), "pst_1".to_owned()] {
        let (bearer, before) = (format!("Bearer {session}"), stage.service.calls(Operation::Create));
        let call = async || get(stage.bearerd.address(), "/", &[("authorization", &bearer)]).await.status;
        assert_eq!((call().await, call().await, stage.service.calls(Operation::Create) - before), (200, 200, 1));
        assert_eq!(with_body(&stage.bearerd, "DELETE /v1/tokens", &session).await.status, 204);
        assert_eq!(stage.bearerd.value("bearerd_cache_entries").await, 0.0, "nothing is kept, and renewed, for {session}");
        assert_eq!((call().await, stage.service.calls(Operation::Create) - before), (401, 1));
    }
}

#[tokio::test]
async fn a_token_with_too_little_left_is_minted_anew_unless_the_service_is_gone() {
    let (mut service, upstream) = surroundings().await;
    let routes = "  - { token_api: { service: default, min_remaining: 100% } }";
    let bearerd = Bearerd::start(&configuration(&service, &upstream, "", routes));
    let first = token(&create(&bearerd, "", "X-API-Key: k").await);
    let second = token(&create(&bearerd, "", "X-API-Key: k").await);
    assert_eq!(service.calls(Operation::Create), 2);
    assert_ne!(first, second, "some of its life is over");
    service.stop().await;
    assert_eq!(token(&create(&bearerd, "", "X-API-Key: k").await), second, "better than none");
}

#[tokio::test]
async fn one_credential_has_tokens_for_32_sets_of_parameters() {
    let stage = Stage::with_routes(ROUTES).await;
    for set in 0..40 {
        create(&stage.bearerd, &format!("?cid=c{set}"), "X-API-Key: k").await;
    }
    create(&stage.bearerd, "?cid=c39", "X-API-Key: k").await;
    assert_eq!(stage.service.calls(Operation::Create), 40);
    assert_eq!(stage.bearerd.value("bearerd_cache_entries").await, 32.0);
    create(&stage.bearerd, "?cid=c0", "X-API-Key: k").await;
    assert_eq!(stage.service.calls(Operation::Create), 41, "the oldest had to go");
}

#[tokio::test]
async fn a_refresh_is_passed_on_and_renews_what_came_of_the_session() {
    let stage = Stage::with_routes(ROUTES).await;
    let session = [("authorization", "Bearer pst_1")];
    assert_eq!(get(stage.bearerd.address(), "/", &session).await.status, 200);
    let before = stage.last().head.header("authorization").unwrap().to_owned();
    stage.service.next(Operation::Refresh, Behaviour::Token("pst_2".to_owned()));
    assert_eq!(token(&with_body(&stage.bearerd, "POST /v1/tokens:refresh", "pst_1").await), "pst_2");
    stage.bearerd.until(r#"bearerd_token_renewals_total{outcome="ok"}"#, 1.0).await;
    assert_eq!(get(stage.bearerd.address(), "/", &session).await.status, 200);
    assert_ne!(stage.last().head.header("authorization").unwrap(), before);
    let calls = stage.service.recorded();
    let minted: Vec<_> = calls.iter().filter(|call| call.operation == Operation::Create).map(|call| call.credential().to_owned()).collect();
    assert_eq!(minted, ["Bearer pst_1", "Bearer pst_2"]);
    stage.service.next(Operation::Refresh, Behaviour::status(401));
    assert_eq!(with_body(&stage.bearerd, "POST /v1/tokens:refresh", "pst_9").await.status, 401);
}

#[tokio::test]
async fn five_second_tokens_are_renewed_behind_a_steady_load() {
    let stage = Stage::with_routes("  - { name: app, upstream: app }").await;
    stage.service.set_lifetime(Duration::from_secs(5));
    let mut client = stage.client().await;
    let mut served = 0;
    while stage.service.calls(Operation::Create) < 4 {
        assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: h\r\nX-API-Key: k\r\n\r\n").await.status, 200);
        served += 1;
    }
    let series = stage.bearerd.series().await;
    assert_eq!(series[r#"bearerd_cache_requests_total{result="hit"}"#], f64::from(served - 1), "after the first nobody waited");
    assert!(series[r#"bearerd_token_remaining_seconds{route="app"}"#] > 0.0);
}
