//! What happens when an upstream says 401 to an injected token.

use crate::support::client::get;
use crate::support::stage::Stage;
use crate::support::token_service::{Behaviour, Operation};
use crate::support::upstream::Reply;

const KEY: [(&str, &str); 1] = [("x-api-key", "k")];
const ROUTE: &str = "  - { name: api, upstream: app, validate: { details: off } }";

fn tokens(stage: &Stage) -> Vec<String> {
    stage.upstream.requests().iter().map(|request| request.head.header("authorization").unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_request_is_sent_again_once_with_another_token() {
    let stage = Stage::with_routes(ROUTE).await;
    let address = stage.bearerd.address();
    assert_eq!(get(address, "/", &KEY).await.status, 200);
    stage.upstream.reply_next(Reply::status(401));
    let mut client = stage.client().await;
    let response = client.exchange("PUT /thing HTTP/1.1\r\nHost: h\r\nX-API-Key: k\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!(response.status, 200);
    let seen = stage.upstream.requests();
    assert_eq!(seen.len(), 3);
    assert!(seen[1..].iter().all(|request| request.method() == "PUT" && request.body.text() == "hello"));
    let tokens = tokens(&stage);
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(tokens[1], tokens[2]);
    assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: h\r\nX-API-Key: k\r\n\r\n").await.status, 200, "the connection goes on");
    assert_eq!(stage.last().head.header("authorization").unwrap(), tokens[2], "and the new token stays");
    assert_eq!(stage.bearerd.value(r#"bearerd_mints_total{reason="upstream_401",service="default"}"#).await, 1.0);
}

#[tokio::test]
async fn a_url_that_always_says_401_costs_one_mint_and_the_caller_gets_the_upstreams_401() {
    let stage = Stage::with_routes(ROUTE).await;
    let refusal = Reply::Fixed { status: 401, headers: vec![("WWW-Authenticate".into(), "Theirs".into())], body: b"theirs".to_vec() };
    stage.upstream.reply_always(refusal);
    for _ in 0..20 {
        let response = get(stage.bearerd.address(), "/", &KEY).await;
        assert_eq!((response.status, response.header("www-authenticate"), response.body.text().as_str()), (401, Some("Theirs"), "theirs"));
    }
    assert_eq!(stage.service.calls(Operation::Create), 2);
    assert_eq!(stage.upstream.requests().len(), 21, "sent again once");
    stage.bearerd.until(r#"bearerd_requests_total{code="401",method="GET",route="api"}"#, 20.0).await;
}

#[tokio::test]
async fn in_an_outage_the_401_passes_and_the_valid_token_stays() {
    let stage = Stage::with_routes(ROUTE).await;
    let address = stage.bearerd.address();
    assert_eq!(get(address, "/", &KEY).await.status, 200);
    stage.service.always(Operation::Create, Behaviour::status(503));
    stage.upstream.reply_next(Reply::status(401));
    assert_eq!(get(address, "/", &KEY).await.status, 401, "never a 502 in its place");
    assert_eq!(get(address, "/", &KEY).await.status, 200);
    let tokens = tokens(&stage);
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
}

#[tokio::test]
async fn what_cannot_be_sent_again_passes_and_the_next_request_has_another_token() {
    let stage = Stage::with_routes(ROUTE).await;
    let address = stage.bearerd.address();
    assert_eq!(get(address, "/", &KEY).await.status, 200);
    stage.upstream.reply_next(Reply::status(401));
    let post = "POST / HTTP/1.1\r\nHost: h\r\nX-API-Key: k\r\nContent-Length: 2\r\n\r\nhi";
    let mut client = stage.client().await;
    assert_eq!(client.exchange(post).await.status, 401, "POST is not idempotent");
    stage.service.wait_for_calls(Operation::Create, 2).await;
    stage.bearerd.until_at_least(r#"bearerd_cache_evictions_total{cause="replaced"}"#, 1.0).await;
    assert_eq!(client.exchange(post).await.status, 200);
    let tokens = tokens(&stage);
    assert_eq!((tokens[0] == tokens[1], tokens[1] == tokens[2]), (true, false));

    let stage = Stage::with_routes(ROUTE).await;
    stage.upstream.reply_next(Reply::status(401));
    let body = "x".repeat(200_000);
    let mut client = stage.client().await;
    let large = client.exchange(format!("PUT / HTTP/1.1\r\nHost: h\r\nX-API-Key: k\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    assert_eq!(large.status, 401, "its body is not kept");
}

#[tokio::test]
async fn a_403_and_routes_that_pass_401_mint_nothing() {
    let stage = Stage::with_routes("  - { match: { path: /pass }, upstream: app, on_upstream_401: pass }\n  - { upstream: app }").await;
    let address = stage.bearerd.address();
    stage.upstream.reply_next(Reply::status(401));
    assert_eq!(get(address, "/pass", &KEY).await.status, 401);
    stage.upstream.reply_next(Reply::status(403));
    assert_eq!(get(address, "/", &KEY).await.status, 403);
    assert_eq!(stage.service.calls(Operation::Create), 1);
}
