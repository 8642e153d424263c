//! What a caller may take: bytes and lines of a header section, time, connections.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::timeout;

use crate::support::client::Client;
use crate::support::stage::Stage;
use crate::support::upstream::Reply;

const ROUTES: &str = "  - { upstream: app }";
const GET: &str = "GET / HTTP/1.1\r\nHost: app.test\r\nX-API-Key: k\r\n\r\n";

async fn limited(limits: &str) -> Stage {
    Stage::configured(&format!("listeners: [{{ address: 127.0.0.1:0, limits: {{ {limits} }} }}]"), ROUTES).await
}

fn with(lines: &str) -> String {
    GET.replacen("\r\n\r\n", &format!("\r\n{lines}\r\n"), 1)
}

#[tokio::test]
async fn a_header_section_with_too_many_bytes_is_431_and_one_that_just_fits_passes() {
    let stage = limited("header_bytes: 1KiB").await;
    let padded = |length: usize| with(&format!("X-Pad: {}\r\n", "p".repeat(length - with("X-Pad: \r\n").len())));
    let mut client = stage.client().await;
    assert_eq!(client.exchange(padded(1024)).await.status, 200);
    let response = client.exchange(padded(1025)).await;
    assert_eq!((response.status, response.problem().as_str()), (431, "header_too_large"));
    assert!(!response.body.text().contains("ppp"), "sizes are told, never values");
    assert_eq!(client.exchange(GET).await.status, 200, "the connection is in order");
    assert_eq!(stage.upstream.requests().len(), 2);
}

/// What is over the limit is not even kept, and its answer arrives whole.
#[tokio::test]
async fn a_header_section_far_too_large_is_431_before_it_ends() {
    for (limits, length) in [("header_bytes: 1KiB", 200_000), ("", 200_000), ("", 3_000_000)] {
        let stage = limited(limits).await;
        for ends in [true, false] {
            let mut client = stage.client().await;
            let section = with(&format!("X-Pad: {}\r\n", "p".repeat(length)));
            let _ = client.try_send(if ends { &section } else { section.trim_end() }).await;
            let response = client.receive().await;
            assert_eq!((response.status, response.problem().as_str()), (431, "header_too_large"), "{limits} {length} {ends}");
            assert!(response.head.closes());
            client.closed().await;
        }
        assert!(stage.upstream.requests().is_empty());
    }
}

#[tokio::test]
async fn a_header_section_with_too_many_lines_is_431() {
    let stage = limited("headers: 10").await;
    let mut client = stage.client().await;
    assert_eq!(client.exchange(with(&"X-Line: 1\r\n".repeat(8))).await.status, 200);
    for count in [9, 200] {
        let response = client.exchange(with(&"X-Line: 1\r\n".repeat(count))).await;
        assert_eq!((response.status, response.problem().as_str()), (431, "header_too_large"), "{count}");
    }
    assert_eq!(client.exchange(GET).await.status, 200);
    assert_eq!(stage.upstream.requests().len(), 2);
}

#[tokio::test]
async fn a_header_section_that_does_not_end_is_408() {
    let stage = limited("header_timeout: 200ms").await;
    let (start, half) = ("GET", &GET[..GET.len() - 2]);
    for sent in [start, half] {
        for earlier in [false, true] {
            let mut client = stage.client().await;
            if earlier {
                assert_eq!(client.exchange(GET).await.status, 200);
            }
            client.send(sent).await;
            let response = client.receive().await;
            assert_eq!((response.status, response.problem().as_str()), (408, "header_timeout"));
            assert!(response.body.json()["request_id"].as_str().is_some_and(|id| id.len() == 32));
            assert!(response.head.closes());
            client.closed().await;
        }
    }
    stage.bearerd.until("bearerd_connections", 0.0).await;
}

/// Slowloris: the time is for the whole section, not for each of its bytes.
#[tokio::test]
async fn a_caller_that_drips_gains_no_time() {
    let stage = limited("header_timeout: 200ms").await;
    let mut client = stage.client().await;
    client.send("GET / HTTP/1.1\r\n").await;
    let response = loop {
        match timeout(Duration::from_millis(20), client.receive()).await {
            Ok(response) => break response,
            Err(_) => client.send("X: y\r\n").await,
        }
    };
    assert_eq!(response.problem(), "header_timeout");
}

#[tokio::test]
async fn a_caller_who_takes_nothing_of_an_answer_is_cut_off() {
    let stage = limited("idle_timeout: 1s").await;
    stage.upstream.reply_next(Reply::Stream(1 << 30));
    let mut client = stage.client().await;
    client.send(GET).await;
    stage.upstream.wait_for_requests(1).await;
    stage.bearerd.until("bearerd_connections", 0.0).await;
    assert_eq!(stage.bearerd.value("bearerd_requests_in_flight").await, 0.0);
}

/// Slow bodies: the upstream's connection is not held by a caller who sends nothing more.
#[tokio::test]
async fn a_caller_who_stops_within_a_body_is_cut_off() {
    let stage = limited("idle_timeout: 1s").await;
    for (lines, some) in [("Content-Length: 5\r\n", "hell"), ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n")] {
        let mut client = stage.client().await;
        client.send(with(lines).replacen("GET", "POST", 1) + some).await;
        let response = client.receive().await;
        assert_eq!((response.status, response.problem().as_str()), (400, "bad_request"), "{lines}");
        client.closed().await;
    }
    stage.bearerd.until("bearerd_connections", 0.0).await;
    assert!(stage.upstream.requests().is_empty(), "the upstream has seen no whole request");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let stage = limited("header_timeout: 1s, idle_timeout: 1s").await;
    let mut fresh = stage.client().await;
    let mut used = stage.client().await;
    assert_eq!(used.exchange(GET).await.status, 200);
    fresh.closed().await;
    used.closed().await;
    stage.bearerd.until("bearerd_connections", 0.0).await;
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_unserved_until_others_end() {
    let stage = limited("connections: 2").await;
    let (mut first, mut second) = (stage.client().await, stage.client().await);
    for client in [&mut first, &mut second] {
        assert_eq!(client.exchange(GET).await.status, 200);
    }
    stage.client().await.closed().await;
    let refused = r#"bearerd_connections_refused_total{limit="connections"}"#;
    assert_eq!((stage.bearerd.value(refused).await, stage.bearerd.value("bearerd_connections").await), (1.0, 2.0));
    assert_eq!(first.exchange(GET).await.status, 200, "the others are served as before");
    drop(first);
    stage.bearerd.until("bearerd_connections", 1.0).await;
    let mut third = stage.client().await;
    assert_eq!(third.exchange(GET).await.status, 200);
    stage.client().await.closed().await;
    assert_eq!(stage.bearerd.value(refused).await, 2.0);
}

#[tokio::test]
async fn one_address_cannot_take_the_connections_of_all() {
    let stage = limited("connections: 3, connections_per_peer: 1").await;
    let mut first = stage.client().await;
    assert_eq!(first.exchange(GET).await.status, 200);
    stage.client().await.closed().await;
    let mut neighbour = Client::connect_from(Ipv4Addr::new(127, 0, 0, 2), stage.bearerd.address()).await;
    assert_eq!(neighbour.exchange(GET).await.status, 200);
    assert_eq!(stage.bearerd.value(r#"bearerd_connections_refused_total{limit="connections_per_peer"}"#).await, 1.0);
    drop(first);
    stage.bearerd.until("bearerd_connections", 1.0).await;
    let mut again = stage.client().await;
    assert_eq!(again.exchange(GET).await.status, 200, "the place was freed");
    // CVE-2026-110726: the peer's address counts, not what it says of itself.
    let mut claiming = stage.client().await;
    let _ = claiming.try_send(with("X-Forwarded-For: 127.0.0.3\r\n")).await;
    assert!(claiming.rest().await.is_empty());
}
