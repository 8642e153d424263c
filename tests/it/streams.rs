//! Streams: WebSockets, server-sent events, and what becomes of them when their token is over.

use std::time::Duration;

use crate::support::bearerd::Bearerd;
use crate::support::client::{Client, get};
use crate::support::events::Gate;
use crate::support::frames::{END_HEADERS, END_STREAM, GOOD, beginning};
use crate::support::http::{SWITCHED, UPGRADE};
use crate::support::http2::{Connection, Upstream, request};
use crate::support::stage::{Stage, surroundings};
use crate::support::token_service::{ScriptedTokenService, subject};
use crate::support::upstream::Reply;

#[tokio::test]
async fn a_websocket_carries_bytes_both_ways_and_only_one_bearer() {
    let stage = Stage::with_routes("  - { upstream: app }").await;
    stage.upstream.reply_next(Reply::Echo(SWITCHED.into()));
    let mut client = stage.client().await;
    // Also CVE-2026-105299: the caller nominates what we inject.
    client.send(UPGRADE.replace("Connection: Upgrade", "Connection: Upgrade, Authorization, X-Request-Id")).await;
    assert_eq!(client.head().await.word(1), "101");
    for message in ["hello", "again"] {
        client.send(message).await;
        assert_eq!(client.bytes(message.len()).await, message.as_bytes());
    }
    let received = stage.last();
    assert_eq!(received.subject(), subject("k"));
    assert_eq!((received.head.header("upgrade"), received.head.all("x-api-key").len()), (Some("websocket"), 0));
    assert_eq!(received.head.all("x-request-id").len(), 1);
}

/// Nor does a nomination stand in for one, or take one away from what bearerd looks at.
#[tokio::test]
async fn a_websocket_needs_a_credential_too() {
    let stage = Stage::with_routes("  - { upstream: app }").await;
    let without = UPGRADE.replace("X-API-Key: k\r\n", "");
    for (request, status, word) in [
        (without.clone(), 401, "missing_credential"),
        (without.replace("Connection: Upgrade", "Connection: Upgrade, X-API-Key, Authorization"), 401, "missing_credential"),
        (UPGRADE.replace("X-API-Key: k\r\n", "X-API-Key: k\r\nX-API-Key: k\r\nConnection: X-API-Key\r\n"), 400, "invalid_credential"),
    ] {
        // What stands behind it is no message to the upstream, nor a request that needs no key.
        let mut client = stage.client().await;
        client.send(format!("{request}GET /secret HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")).await;
        let refused = client.receive().await;
        assert_eq!((refused.status, refused.problem().as_str()), (status, word), "{request}");
        if let Some(next) = client.try_receive().await {
            assert_eq!(next.problem(), "missing_credential", "{request}");
        }
        client.closed().await;
    }
    assert!(stage.upstream.started().is_empty());
}

/// Whatever the upstream says to the upgrade, the next one whose turn it is on its connection is a request that was let through.
#[tokio::test]
async fn cve_2026_2833_cve_2026_73548_bytes_ahead_of_a_switch_that_does_not_come_stay_off_the_upstream() {
    for status in [200, 204, 304, 400, 403, 404, 426, 500] {
        let stage = Stage::with_routes("  - { upstream: app }").await;
        stage.upstream.reply_next(Reply::status(status));
        let mut client = stage.client().await;
        client.send(format!("{UPGRADE}GET /secret HTTP/1.1\r\nHost: app.test\r\n\r\n")).await;
        assert_eq!(client.receive().await.status, status);
        // Judged for itself, where the connection goes on.
        if let Some(next) = client.try_receive().await {
            assert_eq!(next.problem(), "missing_credential", "{status}");
        }
        for _ in 0..3 {
            assert_eq!(get(stage.bearerd.address(), "/next", &[("X-API-Key", "k")]).await.status, 200, "{status}");
        }
        let targets: Vec<String> = stage.upstream.started().iter().map(|head| head.word(1).to_owned()).collect();
        assert_eq!(targets, ["/chat", "/next", "/next", "/next"], "{status}");
    }
}

#[tokio::test]
async fn what_a_caller_sends_ahead_of_its_switch_is_the_first_of_the_stream() {
    let stage = Stage::with_routes("  - { upstream: app }").await;
    stage.upstream.reply_next(Reply::Echo(SWITCHED.into()));
    let mut client = stage.client().await;
    client.send(format!("{UPGRADE}early")).await;
    assert_eq!(client.head().await.word(1), "101");
    client.send("late").await;
    assert_eq!(client.bytes(9).await, b"earlylate");
    assert_eq!(stage.upstream.started().len(), 1);
}

/// CVE-2026-2833: what a caller sends behind its request is no part of an upgraded stream that the upstream does not agree to, nor does it reach the
/// upstream unjudged.
#[tokio::test]
async fn cve_2026_2833_bytes_ahead_of_the_switch_are_no_second_request() {
    let stage = Stage::with_routes("  - { match: { path: /chat }, upstream: app, auth: none }\n  - { upstream: app }").await;
    stage.upstream.reply_next(Reply::status(200));
    let mut client = stage.client().await;
    client.send(format!("{UPGRADE}GET /secret HTTP/1.1\r\nHost: app.test\r\n\r\n")).await;
    assert_eq!(client.receive().await.status, 200);
    assert_eq!(client.receive().await.problem(), "missing_credential", "it is judged for itself");
    let targets: Vec<String> = stage.upstream.requests().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(targets, ["/chat"]);
}

/// Each event arrives when it is sent, over HTTP/1.1 and over HTTP/2.
#[tokio::test]
async fn events_arrive_as_they_are_sent() {
    let (service, upstream) = surroundings().await;
    let bearerd = listening(&service, &format!("servers: [\"{}\"]", upstream.address()), "");
    for place in 0..2 {
        let gate = Gate::closed();
        upstream.reply_next(Reply::Gated { first: b"data: 1\n\n".to_vec(), gate: gate.clone(), second: b"data: 2\n\n".to_vec() });
        if place == 0 {
            let mut client = Client::connect(bearerd.address()).await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: k\r\n\r\n").await;
            client.head().await;
            let mut seen = Vec::new();
            while !seen.ends_with(b"data: 1\n\n") {
                seen.extend(client.bytes(1).await);
            }
            gate.open();
            while !seen.ends_with(b"data: 2\n\n") {
                seen.extend(client.bytes(1).await);
            }
        } else {
            let mut caller = Connection::connect(bearerd.addresses().callers[1]).await;
            let (answer, _) = caller.begin(request("GET", "/", &[("x-api-key", "k")]), true).await.unwrap();
            let mut body = answer.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "data: 1\n\n");
            gate.open();
            assert_eq!(body.data().await.unwrap().unwrap(), "data: 2\n\n");
        }
    }
}

fn listening(service: &ScriptedTokenService, upstream: &str, route: &str) -> Bearerd {
    Bearerd::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0 }}, {{ address: 127.0.0.1:0, h2c: true }}]\n\
         token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nupstreams: {{ app: {{ {upstream} }} }}\nlogging: {{ access: false }}\n\
         routes: [{{ name: api, upstream: app{route} }}]\n",
        service.url()
    ))
}

/// A stream that has begun, on HTTP/1.1.
async fn begun(stage: &Stage) -> Client {
    stage.upstream.reply_next(Reply::Gated { first: b"begun".to_vec(), gate: Gate::closed(), second: b"never".to_vec() });
    let mut client = stage.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: k\r\n\r\n").await;
    client.head().await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"begun") {
        seen.extend(client.bytes(1).await);
    }
    client
}

#[tokio::test]
async fn a_stream_is_cut_off_when_its_token_expires_and_only_where_the_route_says_so() {
    let stage = Stage::with_routes("  - { upstream: app, on_expiry: close }").await;
    stage.service.set_lifetime(Duration::from_secs(600));
    let mut client = begun(&stage).await;
    // A renewed token does not lengthen the stream: the upstream was given the first one.
    stage.bearerd.clock.step(601_000);
    assert_eq!(client.rest().await, b"");
    stage.bearerd.until(r#"bearerd_streams_ended_total{reason="expired"}"#, 1.0).await;
    stage.bearerd.until("bearerd_requests_in_flight", 0.0).await;
    assert_eq!(stage.bearerd.value(r#"bearerd_requests_total{code="200",method="GET",route="route-1"}"#).await, 1.0);
    stage.service.set_lifetime(Duration::from_secs(6000));
    assert_eq!(get(stage.bearerd.address(), "/", &[("X-API-Key", "k")]).await.status, 200, "the next request is served");

    let kept = Stage::with_routes("  - { upstream: app }").await;
    kept.service.set_lifetime(Duration::from_secs(600));
    let gate = Gate::closed();
    kept.upstream.reply_next(Reply::Gated { first: b"begun".to_vec(), gate: gate.clone(), second: b"more".to_vec() });
    let mut client = kept.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: k\r\n\r\n").await;
    client.head().await;
    kept.bearerd.clock.step(601_000);
    kept.service.set_lifetime(Duration::from_secs(6000));
    // Another request finds its token expired: time has moved for all.
    assert_eq!(get(kept.bearerd.address(), "/", &[("X-API-Key", "k")]).await.status, 200);
    gate.open();
    let mut seen = Vec::new();
    while !seen.ends_with(b"more") {
        seen.extend(client.bytes(1).await);
    }
}

#[tokio::test]
async fn a_stream_is_cut_off_when_its_token_is_revoked() {
    let stage = Stage::with_routes("  - { upstream: app, on_expiry: close }").await;
    let mut client = begun(&stage).await;
    let admin = stage.bearerd.addresses().admin;
    let purge = "POST /api/purge HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Bearerd-Admin: 1\r\nContent-Type: application/json\r\nContent-Length: 28\r\n\r\n{\"all\": true,\"revoke\": true}";
    assert_eq!(Client::connect(admin).await.exchange(purge).await.status / 100, 2);
    client.rest().await;
    stage.bearerd.until(r#"bearerd_streams_ended_total{reason="revoked"}"#, 1.0).await;
}

#[tokio::test]
async fn a_websocket_is_cut_off_too() {
    let stage = Stage::with_routes("  - { upstream: app, on_expiry: close }").await;
    stage.service.set_lifetime(Duration::from_secs(600));
    stage.upstream.reply_next(Reply::Echo(SWITCHED.into()));
    let mut client = stage.client().await;
    client.send(UPGRADE).await;
    assert_eq!(client.head().await.word(1), "101");
    client.send("x").await;
    assert_eq!(client.bytes(1).await, b"x");
    stage.bearerd.clock.step(601_000);
    assert_eq!(client.rest().await, b"");
    stage.bearerd.until("bearerd_requests_in_flight", 0.0).await;
    assert_eq!(stage.bearerd.value(r#"bearerd_requests_total{code="101",method="GET",route="route-1"}"#).await, 1.0);
}

/// On HTTP/2 the one stream is reset; the connection says GOAWAY, and its other streams are answered.
#[tokio::test]
async fn on_http2_the_stream_ends_and_the_connection_goes_away() {
    let (service, upstream) = (ScriptedTokenService::start().await, Upstream::start(None).await);
    service.set_lifetime(Duration::from_secs(600));
    let bearerd = listening(&service, &format!("servers: [\"{}\"], protocol: h2c", upstream.address()), ", on_expiry: close");
    let mut caller = Connection::connect(bearerd.addresses().callers[1]).await;
    let (answer, _) = caller.begin(request("GET", "/wait", &[("x-api-key", "old")]), true).await.unwrap();
    let mut doomed = answer.await.unwrap().into_body();
    assert_eq!(doomed.data().await.unwrap().unwrap(), "begun");
    // A second one, with a token that lives on.
    service.set_lifetime(Duration::from_secs(6000));
    let (answer, _) = caller.begin(request("GET", "/wait", &[("x-api-key", "young")]), true).await.unwrap();
    let mut other = answer.await.unwrap().into_body();
    assert_eq!(other.data().await.unwrap().unwrap(), "begun");
    bearerd.clock.step(601_000);
    let ended = loop {
        match doomed.data().await {
            Some(Ok(_)) => {}
            ended => break ended,
        }
    };
    assert!(ended.is_some_and(|ended| ended.is_err_and(|error| error.is_reset())), "a reset");
    upstream.gate.open();
    assert!(other.data().await.is_none_or(|data| data.is_ok()));
    assert!(other.trailers().await.unwrap().is_some(), "whole, with its trailers");
    drop((doomed, other));
    assert!(caller.ended().await.is_ok(), "the connection goes away");
}

/// A caller that keeps its connection open after GOAWAY, with no request left on it, is not waited for as one is that may ask for more.
#[tokio::test]
async fn on_http2_a_connection_that_went_away_is_closed_though_its_caller_keeps_it_open() {
    let (service, upstream) = surroundings().await;
    service.set_lifetime(Duration::from_secs(600));
    let bearerd = Bearerd::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0, h2c: true, limits: {{ idle_timeout: 1h }} }}]\n\
         token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nupstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         logging: {{ access: false }}\nroutes: [{{ upstream: app, on_expiry: close }}]\n",
        service.url(),
        upstream.address()
    ));
    upstream.reply_next(Reply::Gated { first: b"begun".to_vec(), gate: Gate::closed(), second: b"never".to_vec() });
    // By hand: a client of a library closes by itself.
    let mut client = Client::connect(bearerd.address()).await;
    client.send(beginning(END_HEADERS | END_STREAM, &GOOD)).await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"begun") {
        seen.extend(client.bytes(1).await);
    }
    bearerd.clock.step(601_000);
    // To the end of the connection.
    let rest = client.rest().await;
    assert!(rest.windows(4).any(|window| window == [7, 0, 0, 0]), "a GOAWAY: {rest:?}");
}
