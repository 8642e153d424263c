//! Many callers who are slow, idle or too many: the others are served.

use std::net::Ipv4Addr;

use crate::support::bearerd::until;
use crate::support::client::Client;
use crate::support::process::{Process, allow_descriptors_up_to};
use crate::support::stage::{Stage, configuration, surroundings};
use crate::support::upstream::Reply;

const ROUTES: &str = "  - { upstream: app }";
const GET: &str = "GET / HTTP/1.1\r\nHost: app.test\r\nX-API-Key: k\r\n\r\n";

fn limited(limits: &str) -> String {
    format!("listeners: [{{ address: 127.0.0.1:0, limits: {{ {limits} }} }}]")
}

/// Half of them have been served before. As many as the system lets this process have, where that is fewer.
#[tokio::test]
async fn ten_thousand_idle_connections_cost_little_and_keep_nobody_from_being_served() {
    const IDLE: u64 = 10_000;
    const OTHERS: u64 = 1000;
    // What one may take: its task, its buffers, its place in the list.
    const EACH: u64 = 64 * 1024;
    let idle = allow_descriptors_up_to(IDLE + OTHERS) - OTHERS;
    let (service, upstream) = surroundings().await;
    let limits = limited("connections: 0, header_timeout: 10m, idle_timeout: 10m");
    let process = Process::run(&configuration(&service, &upstream, &limits, ROUTES));
    let addresses = process.addresses().await;
    let mut caller = Client::connect(addresses.callers[0]).await;
    assert_eq!(caller.exchange(GET).await.status, 200);
    let before = process.peak_memory();
    let mut open = Vec::new();
    for number in 0..idle {
        let mut client = Client::connect(addresses.callers[0]).await;
        if number % 2 == 0 {
            assert_eq!(client.exchange(GET).await.status, 200);
        }
        open.push(client);
    }
    until(addresses.metrics, "bearerd_connections", |connections| connections == (idle + 1) as f64).await;
    for _ in 0..100 {
        assert_eq!(caller.exchange(GET).await.status, 200);
        assert_eq!(Client::connect(addresses.callers[0]).await.exchange(GET).await.status, 200);
    }
    let each = (process.peak_memory() - before) / idle;
    println!("{idle} idle connections, {each} bytes each");
    assert!(each < EACH, "{each} bytes for each of {idle}");
    drop(open);
    until(addresses.metrics, "bearerd_connections", |connections| connections <= 2.0).await;
}

#[tokio::test]
async fn a_flood_of_connections_from_one_address_takes_no_more_than_its_share() {
    const SHARE: usize = 20;
    const FLOOD: usize = 3000;
    let stage = Stage::configured(&limited(&format!("connections: 100, connections_per_peer: {SHARE}")), ROUTES).await;
    let mut caller = stage.client().await;
    let mut kept = Vec::new();
    for number in 0..FLOOD {
        kept.push(Client::connect_from(Ipv4Addr::new(127, 0, 0, 2), stage.bearerd.address()).await);
        if kept.len() > 200 {
            // As long as it keeps its seats, nobody of this address gets another.
            kept.truncate(SHARE);
        }
        if number % 100 == 0 {
            assert_eq!(caller.exchange(GET).await.status, 200);
            assert_eq!(stage.client().await.exchange(GET).await.status, 200);
        }
    }
    let refused = r#"bearerd_connections_refused_total{limit="connections_per_peer"}"#;
    stage.bearerd.until(refused, (FLOOD - SHARE) as f64).await;
    assert_eq!(stage.bearerd.value(r#"bearerd_connections_refused_total{limit="connections"}"#).await, 0.0);
}

/// Slowloris in each of its forms: each caller begins, and does nothing more.
#[tokio::test]
async fn callers_who_stop_in_headers_bodies_and_answers_are_gone_after_their_time_and_others_served_meanwhile() {
    const EACH: usize = 200;
    let stage = Stage::configured(&limited("header_timeout: 2s, idle_timeout: 2s"), ROUTES).await;
    let mut slow = Vec::new();
    for number in 0..EACH / 4 {
        let mut client = stage.client().await;
        stage.upstream.reply_next(Reply::Stream(1 << 30));
        client.send(GET).await;
        stage.upstream.wait_for_requests(number + 1).await;
        slow.push(client);
    }
    for _ in 0..EACH {
        for begun in [
            "GET / HTTP/1.1\r\nHost: app.test\r\nX-",
            "POST / HTTP/1.1\r\nHost: app.test\r\nX-API-Key: k\r\nContent-Length: 5\r\n\r\nhell",
            "POST / HTTP/1.1\r\nHost: app.test\r\nX-API-Key: k\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "POST /none HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhell",
        ] {
            let mut client = stage.client().await;
            client.send(begun).await;
            slow.push(client);
        }
    }
    let mut caller = stage.client().await;
    let mut served = 0;
    while stage.bearerd.value("bearerd_connections").await > 1.0 {
        assert_eq!(caller.exchange(GET).await.status, 200);
        served += 1;
    }
    assert!(served > 0);
    assert_eq!(stage.bearerd.value("bearerd_requests_in_flight").await, 0.0);
    drop(slow);
}
