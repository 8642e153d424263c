//! Upstreams of several servers: whose turn it is, and what becomes of those that fail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::bearerd::Bearerd;
use crate::support::client::{Client, get};
use crate::support::stage::surroundings;
use crate::support::token_service::ScriptedTokenService;
use crate::support::upstream::{RecordingUpstream, Reply};

/// Three servers behind one upstream with these settings.
async fn three(settings: &str) -> (Bearerd, Vec<RecordingUpstream>, ScriptedTokenService) {
    let (service, first) = surroundings().await;
    let servers = vec![first, RecordingUpstream::start().await, RecordingUpstream::start().await];
    let addresses: Vec<String> = servers.iter().map(|server| format!("\"{}\"", server.address())).collect();
    let bearerd = Bearerd::start(&format!(
        "token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nupstreams: {{ app: {{ servers: [{}], {settings} }} }}\n\
         logging: {{ access: false }}\nroutes: [{{ name: open, match: {{ path_prefix: /open }}, upstream: app, auth: none }}, {{ name: api, upstream: app }}]\n",
        service.url(),
        addresses.join(", ")
    ));
    (bearerd, servers, service)
}

fn counts(servers: &[RecordingUpstream]) -> Vec<usize> {
    servers.iter().map(|server| server.requests().len()).collect()
}

#[tokio::test]
async fn each_has_its_turn_or_keeps_its_credentials() {
    let (bearerd, servers, _service) = three("balance: round_robin").await;
    let mut client = Client::connect(bearerd.address()).await;
    for _ in 0..9 {
        assert_eq!(client.get("/open", &[]).await.status, 200);
    }
    assert_eq!(counts(&servers), [3, 3, 3]);

    let (bearerd, servers, _service) = three("balance: random").await;
    let mut client = Client::connect(bearerd.address()).await;
    for _ in 0..60 {
        assert_eq!(client.get("/open", &[]).await.status, 200);
    }
    assert!(counts(&servers).iter().all(|count| *count > 0), "{:?}", counts(&servers));

    let (bearerd, servers, _service) = three("balance: consistent").await;
    for _ in 0..3 {
        for key in 0..20 {
            assert_eq!(get(bearerd.address(), "/", &[("X-API-Key", &format!("key-{key}"))]).await.status, 200);
        }
    }
    let mut homes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (place, server) in servers.iter().enumerate() {
        for request in server.requests() {
            homes.entry(request.subject()).or_default().push(place);
        }
    }
    assert_eq!(homes.len(), 20);
    assert!(homes.values().all(|places| places.len() == 3 && places.windows(2).all(|two| two[0] == two[1])), "{homes:?}");
    assert!(counts(&servers).iter().all(|count| *count > 0));
}

/// One dies, one hangs, one answers garbage, and comes back: nobody who may be asked twice notices.
#[tokio::test]
async fn no_idempotent_request_fails_while_one_of_three_dies_hangs_and_comes_back() {
    let (bearerd, mut servers, _service) =
        three("timeouts: { connect: 300ms, read: 300ms }, ejection: { failures: 2, for: 500ms }, health_check: { path: /healthz, interval: 50ms, timeout: 200ms }").await;
    let done = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|number| {
            let (done, address) = (Arc::clone(&done), bearerd.address());
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                let mut asked = 0;
                while !done.load(Ordering::Relaxed) {
                    let answer = client.get("/", &[("X-API-Key", &format!("key-{number}"))]).await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    let unhealthy = async |bad: bool| {
        bearerd.until(r#"bearerd_upstream_servers_good{upstream="app"}"#, if bad { 2.0 } else { 3.0 }).await;
    };
    unhealthy(false).await;
    servers[1].stop().await;
    unhealthy(true).await;
    servers[1].restart().await;
    unhealthy(false).await;
    servers[1].reply_always(Reply::Hang);
    unhealthy(true).await;
    servers[1].reply_always(Reply::status(200));
    unhealthy(false).await;
    servers[1].reply_always(Reply::Raw(b"no HTTP\r\n\r\n".to_vec()));
    unhealthy(true).await;
    servers[1].reply_always(Reply::status(200));
    unhealthy(false).await;
    let before = servers[1].requests().iter().filter(|request| request.target() == "/").count();
    servers[1].wait_for_requests(before + 3).await;
    done.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
}

/// What was sent and may have been done is not sent again.
#[tokio::test]
async fn a_post_that_reached_a_server_is_not_sent_to_another() {
    let (bearerd, servers, _service) = three("ejection: { failures: 0 }").await;
    servers.iter().for_each(|server| server.reply_always(Reply::Reset));
    let mut client = Client::connect(bearerd.address()).await;
    let answer = client.exchange("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
    assert_eq!(answer.problem(), "upstream_reset");
    assert_eq!(counts(&servers).iter().sum::<usize>(), 1);
    // And a GET is tried on each, not without end.
    assert_eq!(get(bearerd.address(), "/open", &[]).await.problem(), "upstream_reset");
    assert_eq!(counts(&servers).iter().sum::<usize>(), 1 + 3);
}

/// A server that takes no connection fails over whatever the method, and is left alone after some failures.
#[tokio::test]
async fn a_server_that_takes_no_connection_is_passed_over() {
    let (bearerd, mut servers, _service) = three("ejection: { failures: 2, for: 1h }").await;
    servers[0].stop().await;
    let mut client = Client::connect(bearerd.address()).await;
    for _ in 0..12 {
        assert_eq!(client.exchange("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await.status, 200);
    }
    assert_eq!(counts(&servers)[1] + counts(&servers)[2], 12);
    bearerd.until(r#"bearerd_upstream_servers_good{upstream="app"}"#, 2.0).await;
    // It is back, and still left alone.
    servers[0].restart().await;
    for _ in 0..6 {
        assert_eq!(client.get("/open", &[]).await.status, 200);
    }
    assert_eq!(counts(&servers)[0], 0);
    // Where all fail, all are asked again.
    servers[1].stop().await;
    servers[2].stop().await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(client.get("/open", &[]).await.status);
    }
    assert_eq!(statuses.last(), Some(&200), "{statuses:?}");
}

/// No server is left alone for a caller's fault.
#[tokio::test]
async fn a_body_that_does_not_come_says_nothing_about_the_server() {
    let (bearerd, servers, _service) = three("timeouts: { read: 300ms }, ejection: { failures: 1, for: 1h }").await;
    for _ in 0..6 {
        let mut client = Client::connect(bearerd.address()).await;
        let answer = client.exchange("PUT /open HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhell").await;
        assert_eq!((answer.status, answer.problem().as_str()), (504, "upstream_timeout"));
    }
    for _ in 0..6 {
        assert_eq!(get(bearerd.address(), "/open", &[]).await.status, 200);
    }
    assert_eq!(counts(&servers), [2, 2, 2], "each has its turn as before");
}

/// Else the caller's next request is sent into a connection that is closing, and one that may not be repeated is lost.
#[tokio::test]
async fn a_caller_is_told_that_its_connection_ends_with_a_failure() {
    let (bearerd, servers, _service) = three("timeouts: { read: 300ms }, ejection: { failures: 0 }").await;
    for reply in [Reply::Reset, Reply::Hang, Reply::Raw(b"no HTTP\r\n\r\n".to_vec())] {
        servers.iter().for_each(|server| server.reply_always(reply.clone()));
        let mut client = Client::connect(bearerd.address()).await;
        let answer = client.get("/open", &[]).await;
        assert!(answer.problem().starts_with("upstream_") && answer.head.closes(), "{answer:?}");
        client.closed().await;
    }
}
