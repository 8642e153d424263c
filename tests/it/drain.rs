//! The end: what is in flight finishes, nothing is lost on the way, and nothing holds the end up for longer than configured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bearerd::app::Stop;
use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::support::bearerd::Bearerd;
use crate::support::client::{Client, get};
use crate::support::events::Gate;
use crate::support::http::{SWITCHED, UPGRADE};
use crate::support::process::{Process, on_free_ports};
use crate::support::stage::surroundings;
use crate::support::token_service::{Behaviour, Operation, ScriptedTokenService, claims, subject};
use crate::support::upstream::{Received, RecordingUpstream, Reply};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: app.test\r\nX-API-Key: k\r\n\r\n";

fn configuration(service: &ScriptedTokenService, upstream: &RecordingUpstream, shutdown: &str) -> String {
    format!(
        "token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}
upstreams: {{ app: {{ servers: [\"{}\"] }} }}
routes: [{{ name: api, upstream: app, validate: {{ details: off }} }}]
shutdown: {{ {shutdown} }}
logging: {{ access: false }}
",
        service.url(),
        upstream.address()
    )
}

fn bearerd(service: &ScriptedTokenService, upstream: &RecordingUpstream, shutdown: &str) -> Bearerd {
    Bearerd::start(&configuration(service, upstream, shutdown))
}

/// Asks until it is no longer ready.
async fn unready(metrics: SocketAddr) {
    while get(metrics, "/readyz", &[]).await.status != 503 {}
}

/// How the callers of [`keep_calling`] fared.
#[derive(Default)]
struct Tally {
    served: AtomicUsize,
    told_to_close: AtomicUsize,
    lost: AtomicUsize,
}

/// Calls on one connection after another, each until it is told to close, as long as there is anybody to connect to and `leave` is not set.
async fn keep_calling(address: SocketAddr, leave: Arc<AtomicBool>, tally: Arc<Tally>) {
    while !leave.load(Ordering::SeqCst) {
        let Ok(mut client) = Client::try_connect(address).await else { return };
        loop {
            if client.try_send(REQUEST).await.is_err() {
                tally.lost.fetch_add(1, Ordering::SeqCst);
                break;
            }
            let Some(response) = client.try_receive().await else {
                tally.lost.fetch_add(1, Ordering::SeqCst);
                break;
            };
            assert_eq!(response.status, 200);
            tally.served.fetch_add(1, Ordering::SeqCst);
            if response.head.closes() {
                tally.told_to_close.fetch_add(1, Ordering::SeqCst);
                break;
            }
        }
    }
}

#[tokio::test]
async fn under_load_no_request_is_lost() {
    const CALLERS: usize = 40;
    let (service, upstream) = surroundings().await;
    let bearerd = bearerd(&service, &upstream, "delay: 1s, drain_timeout: 30s");
    let (leave, tally) = (Arc::<AtomicBool>::default(), Arc::<Tally>::default());
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(keep_calling(bearerd.address(), Arc::clone(&leave), Arc::clone(&tally)));
    }
    bearerd.until_at_least(r#"bearerd_requests_total{code="200",method="GET",route="api"}"#, 20.0 * CALLERS as f64).await;
    assert_eq!(tally.told_to_close.load(Ordering::SeqCst), 0);
    bearerd.stop(Stop::Drain);
    unready(bearerd.addresses().metrics).await;
    let told = tally.told_to_close.load(Ordering::SeqCst);
    // Every caller is told at least once, connects anew, and is served: bearerd goes on accepting for a while.
    while tally.told_to_close.load(Ordering::SeqCst) < told + 2 * CALLERS {
        tokio::task::yield_now().await;
    }
    // By then it has left the list of those who are ready.
    leave.store(true, Ordering::SeqCst);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    bearerd.ended().await;
    assert_eq!(tally.lost.load(Ordering::SeqCst), 0, "of {} requests", tally.served.load(Ordering::SeqCst));
}

#[tokio::test]
async fn what_is_in_flight_finishes() {
    let (service, upstream) = surroundings().await;
    let idle_for_long = "listeners: [{ address: 127.0.0.1:0, limits: { idle_timeout: 10m } }]";
    let bearerd = Bearerd::start(&format!("{idle_for_long}\n{}", configuration(&service, &upstream, "delay: 0s, drain_timeout: 10m")));
    let (answering, minting) = (Gate::closed(), Gate::closed());
    // Half an answer is on its way, and another request waits for its token.
    upstream.reply_next(Reply::Gated { first: b"one".to_vec(), gate: answering.clone(), second: b"two".to_vec() });
    let mut streaming = Client::connect(bearerd.address()).await;
    streaming.send(REQUEST).await;
    streaming.head().await;
    assert_eq!(streaming.bytes(3).await, b"one");
    service.next(Operation::Create, Behaviour::Gated(minting.clone()));
    let mut waiting = Client::connect(bearerd.address()).await;
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: other\r\n\r\n").await;
    service.wait_for_calls(Operation::Create, 2).await;
    let mut idle = Client::connect(bearerd.address()).await;
    bearerd.until("bearerd_connections", 3.0).await;

    bearerd.stop(Stop::Drain);
    let address = bearerd.address();
    // The listener and what is idle are closed while both are still served.
    while Client::try_connect(address).await.is_ok() {}
    assert!(idle.rest().await.is_empty());
    assert_eq!(bearerd.probe("/readyz").await, 503);
    minting.open();
    let response = waiting.receive().await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    // This answer began before the end was known: its connection is idle now, and closed as such.
    answering.open();
    assert_eq!(streaming.bytes(3).await, b"two");
    bearerd.ended().await;
    assert!(streaming.rest().await.is_empty() && waiting.rest().await.is_empty());
}

#[tokio::test]
async fn a_draining_process_is_unready_at_once_and_goes_on_serving_for_the_delay() {
    let (service, upstream) = surroundings().await;
    let bearerd = bearerd(&service, &upstream, "delay: 10m, drain_timeout: 60s");
    while bearerd.probe("/readyz").await != 200 {}
    bearerd.stop(Stop::Drain);
    unready(bearerd.addresses().metrics).await;
    let response = get(bearerd.address(), "/", &[("x-api-key", "k")]).await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    // What bearerd answers by itself says so too.
    let response = get(bearerd.address(), "/", &[]).await;
    assert_eq!((response.status, response.header("connection")), (401, Some("close")));
    assert_eq!((bearerd.probe("/livez").await, bearerd.probe("/startupz").await), (200, 200));
    bearerd.stop(Stop::Now);
    bearerd.ended().await;
}

#[tokio::test]
async fn a_request_that_hangs_is_cut_off_after_the_drain_timeout() {
    let (service, upstream) = surroundings().await;
    let bearerd = bearerd(&service, &upstream, "delay: 0s, drain_timeout: 100ms");
    upstream.reply_always(Reply::Hang);
    let mut client = Client::connect(bearerd.address()).await;
    client.send(REQUEST).await;
    upstream.wait_for_started(1).await;
    bearerd.stop(Stop::Drain);
    bearerd.ended().await;
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_end_up() {
    let (service, upstream) = surroundings().await;
    let bearerd = bearerd(&service, &upstream, "delay: 0s, drain_timeout: 10m");
    let mut silent = Client::connect(bearerd.address()).await;
    let mut kept = Client::connect(bearerd.address()).await;
    kept.send(REQUEST).await;
    assert!(!kept.receive().await.head.closes());
    bearerd.until("bearerd_connections", 2.0).await;
    bearerd.stop(Stop::Drain);
    bearerd.ended().await;
    assert!(silent.rest().await.is_empty() && kept.rest().await.is_empty());
}

#[tokio::test]
async fn the_end_at_once_waits_for_nothing() {
    let (service, upstream) = surroundings().await;
    let bearerd = bearerd(&service, &upstream, "delay: 10m, drain_timeout: 10m");
    upstream.reply_always(Reply::Hang);
    let mut client = Client::connect(bearerd.address()).await;
    client.send(REQUEST).await;
    upstream.wait_for_started(1).await;
    bearerd.stop(Stop::Now);
    bearerd.ended().await;
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn either_signal_ends_the_process_with_code_0() {
    let (service, upstream) = surroundings().await;
    for signal in [Signal::TERM, Signal::INT] {
        let process = Process::run(&configuration(&service, &upstream, "delay: 0s"));
        let addresses = process.addresses().await;
        assert_eq!(get(addresses.callers[0], "/", &[("x-api-key", "k")]).await.status, 200);
        process.signal(signal);
        let ended = process.ended().await;
        assert_eq!(ended.code(), 0, "{:?}", ended.stderr);
        assert!(ended.stderr.iter().any(|line| line.contains("drained")), "{:?}", ended.stderr);
        assert_eq!(ended.stdout, [""; 0]);
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let (service, upstream) = surroundings().await;
    let process = Process::run(&configuration(&service, &upstream, "delay: 0s, drain_timeout: 10m"));
    let addresses = process.addresses().await;
    upstream.reply_always(Reply::Hang);
    let mut client = Client::connect(addresses.callers[0]).await;
    client.send(REQUEST).await;
    upstream.wait_for_started(1).await;
    process.signal(Signal::TERM);
    unready(addresses.metrics).await;
    process.signal(Signal::INT);
    assert_eq!(process.ended().await.code(), 0);
    assert!(client.rest().await.is_empty());
}

/// A renewal that nobody waits for holds nothing up, whether its answer comes or not.
#[tokio::test]
async fn a_renewal_under_way_neither_delays_the_end_nor_costs_a_request_its_token() {
    for is_answered in [true, false] {
        let (service, upstream) = surroundings().await;
        service.set_lifetime(Duration::from_secs(10));
        let text = configuration(&service, &upstream, "delay: 0s, drain_timeout: 10m").replacen(" } }", ", timeout: 10m } }", 1);
        let process = Process::run(&text);
        let address = process.addresses().await.callers[0];
        let mut client = Client::connect(address).await;
        assert_eq!(client.exchange(REQUEST).await.status, 200);
        let (renewal, mint, answers) = (Gate::closed(), Gate::closed(), Gate::closed());
        service.next(Operation::Create, Behaviour::Gated(renewal.clone()));
        // In use, so it is renewed in its time.
        assert_eq!(client.exchange(REQUEST).await.status, 200);
        service.wait_for_calls(Operation::Create, 2).await;
        // One has its token, and its answer is on its way; the other waits for a token of its own.
        let before = upstream.requests().len();
        upstream.reply_next(Reply::Gated { first: b"one".to_vec(), gate: answers.clone(), second: b"two".to_vec() });
        client.send(REQUEST).await;
        client.head().await;
        assert_eq!(client.bytes(3).await, b"one");
        service.next(Operation::Create, Behaviour::Gated(mint.clone()));
        let mut waiting = Client::connect(address).await;
        waiting.send(REQUEST.replace("Key: k", "Key: other")).await;
        service.wait_for_calls(Operation::Create, 3).await;

        process.signal(Signal::TERM);
        while Client::try_connect(address).await.is_ok() {}
        if is_answered {
            renewal.open();
        }
        mint.open();
        let response = waiting.receive().await;
        assert_eq!((response.status, response.header("connection")), (200, Some("close")));
        answers.open();
        assert_eq!(client.bytes(3).await, b"two");
        assert!(client.rest().await.is_empty() && waiting.rest().await.is_empty());
        let ended = process.ended().await;
        assert_eq!(ended.code(), 0, "{:?}", ended.stderr);
        assert!(ended.stderr.iter().any(|line| line.contains("drained")), "{:?}", ended.stderr);
        let received = upstream.requests().split_off(before);
        let subjects: Vec<String> = received.iter().map(Received::subject).collect();
        assert_eq!(subjects, [subject("k"), subject("other")]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let token = received[1].head.header("authorization").unwrap();
        assert!(claims(&token["Bearer ".len()..])["exp"].as_u64() > Some(now));
        assert_eq!(service.calls(Operation::Create), 3, "nothing is renewed for nobody");
    }
}

/// It is in flight as any request: it goes on until one of its sides ends it, or for `drain_timeout`.
#[tokio::test]
async fn an_open_websocket_goes_on_until_its_caller_leaves_or_the_drain_timeout_is_over() {
    for (drain_timeout, leaves) in [("10m", true), ("1s", false)] {
        let (service, upstream) = surroundings().await;
        let process = Process::run(&configuration(&service, &upstream, &format!("delay: 0s, drain_timeout: {drain_timeout}")));
        let address = process.addresses().await.callers[0];
        upstream.reply_next(Reply::Echo(SWITCHED.into()));
        let mut client = Client::connect(address).await;
        client.send(UPGRADE).await;
        assert_eq!(client.head().await.word(1), "101");
        client.send("hello").await;
        assert_eq!(client.bytes(5).await, b"hello");
        process.signal(Signal::TERM);
        while Client::try_connect(address).await.is_ok() {}
        if leaves {
            client.send("still").await;
            assert_eq!(client.bytes(5).await, b"still");
            drop(client);
        } else {
            assert!(client.rest().await.is_empty());
        }
        let ended = process.ended().await;
        assert_eq!(ended.code(), 0, "{:?}", ended.stderr);
        assert_eq!(upstream.requests()[0].subject(), subject("k"));
    }
}

#[tokio::test]
async fn an_address_in_use_is_a_failure_that_names_it_and_its_key() {
    let (service, upstream) = surroundings().await;
    let taken = upstream.address();
    for (key, section) in [
        ("listeners[1].address", format!("listeners: [{{ address: 127.0.0.1:0 }}, {{ address: \"{taken}\" }}]")),
        ("admin.address", format!("admin: {{ address: \"{taken}\" }}")),
        ("metrics.address", format!("metrics: {{ address: \"{taken}\" }}")),
    ] {
        let process = Process::run(&format!("{section}\n{}", configuration(&service, &upstream, "delay: 0s")));
        let ended = process.ended().await;
        let message = ended.stderr.join("\n");
        assert_eq!(ended.code(), 1, "{message}");
        assert!(message.contains(&format!("cannot listen on {taken} ({key})")), "{message}");
        assert!(message.contains("another process listens there"), "{message}");
    }
}

#[tokio::test]
async fn a_bad_configuration_ends_with_code_78() {
    let process = Process::run("routes: [{ upstream: app }]\n");
    let ended = process.ended().await;
    let message = ended.stderr.join("\n");
    assert_eq!(ended.code(), 78, "{message}");
    assert!(message.contains("bearerd.yaml:"), "{message}");

    // One that only shows when its files are opened.
    let configuration = on_free_ports(
        "token_services: { default: { kind: embedded, keys_file: none.yaml, signing_key_file: key.pem } }
upstreams: { app: { servers: [\"127.0.0.1:1\"] } }
routes: [{ upstream: app }]
",
    );
    let ended = Process::run(&configuration).ended().await;
    let message = ended.stderr.join("\n");
    assert_eq!(ended.code(), 78, "{message}");
    assert!(message.contains("none.yaml"), "{message}");
}
