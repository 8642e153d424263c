//! Many at once: one mint per key whoever waits, hangs up or is turned away; and nobody gets another's token.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::support::bearerd::{Bearerd, series, until};
use crate::support::client::{Client, get};
use crate::support::events::Gate;
use crate::support::process::{Process, allow_descriptors};
use crate::support::stage::surroundings;
use crate::support::token_service::{Behaviour, Operation, ScriptedTokenService, claims, subject};
use crate::support::upstream::{Received, RecordingUpstream, Reply};

const WAITERS: &str = "bearerd_coalesced_waiters";
const IN_FLIGHT: &str = "bearerd_requests_in_flight";

/// Between the two, with these bounds on mints.
fn bearerd(service: &ScriptedTokenService, upstream: &RecordingUpstream, mint: &str) -> Bearerd {
    Bearerd::start(&configuration(service, upstream, mint))
}

fn configuration(service: &ScriptedTokenService, upstream: &RecordingUpstream, mint: &str) -> String {
    format!(
        "token_services: {{ default: {{ kind: iap, url: \"{}\", timeout: 60s, mint: {{ rate: 100000, {mint} }} }} }}
upstreams: {{ app: {{ servers: [\"{}\"], timeouts: {{ connect: 60s }} }} }}
routes:
  - {{ name: answered, match: {{ path: /answered }}, respond: {{ status: 204 }}, validate: {{ details: off }} }}
  - {{ name: api, upstream: app, validate: {{ details: off }} }}
logging: {{ access: false }}
",
        service.url(),
        upstream.address()
    )
}

fn bearer_subject(received: &Received) -> String {
    let lines = received.head.all("authorization");
    assert_eq!(lines.len(), 1, "{:?}", received.head);
    claims(lines[0].strip_prefix("Bearer ").unwrap())["sub"].as_str().unwrap().to_owned()
}

/// In a process of its own, for the descriptors: 10,000 connections have 20,000 ends. Most are answered by bearerd itself for the same reason.
#[tokio::test]
async fn ten_thousand_cold_requests_on_one_key_are_one_mint() {
    const ALL: usize = 10_000;
    const FORWARDED: usize = 500;
    allow_descriptors(ALL as u64 + 4 * FORWARDED as u64);
    let (service, upstream) = surroundings().await;
    let gate = Gate::closed();
    service.next(Operation::Create, Behaviour::Gated(gate.clone()));
    let limits = "listeners: [{ address: 127.0.0.1:0, limits: { connections: 0 } }]\n";
    let process = Process::run(&format!("{limits}{}", configuration(&service, &upstream, "wait: 60s")));
    let addresses = process.addresses().await;

    let mut callers = JoinSet::new();
    for place in 0..ALL {
        let (address, path) = (addresses.callers[0], if place < FORWARDED { "/" } else { "/answered" });
        callers.spawn(async move { (path, get(address, path, &[("x-api-key", "the-key")]).await.status) });
    }
    until(addresses.metrics, WAITERS, |waiters| waiters == ALL as f64 - 1.0).await;
    assert_eq!(service.calls(Operation::Create), 1);
    gate.open();

    let mut answers = BTreeMap::new();
    while let Some(answer) = callers.join_next().await {
        *answers.entry(answer.unwrap()).or_insert(0) += 1;
    }
    assert_eq!(answers, BTreeMap::from([(("/", 200), FORWARDED), (("/answered", 204), ALL - FORWARDED)]));
    assert_eq!(service.calls(Operation::Create), 1);
    assert_eq!(upstream.requests().len(), FORWARDED);
    let expected = subject("the-key");
    assert!(upstream.requests().iter().all(|request| bearer_subject(request) == expected));
    until(addresses.metrics, IN_FLIGHT, |requests| requests == 0.0).await;
    let series = series(addresses.metrics).await;
    assert_eq!(series[r#"bearerd_mints_total{reason="miss",service="default"}"#], 1.0);
    assert_eq!(series[r#"bearerd_auth_duration_seconds_count{source="wait"}"#], ALL as f64 - 1.0);
    assert_eq!(series[WAITERS], 0.0);
}

/// How a caller treats its request.
#[derive(Clone, Copy, PartialEq)]
enum Patience {
    /// Reads the whole answer.
    Stays,
    /// Hangs up as soon as the request is sent.
    LeavesBefore,
    /// Hangs up with half of the answer unread.
    LeavesMidway,
}

/// How often each key is asked for, and how many requests one of the callers who hang up is one of; `BEARERD_SOAK_ABORTS` says how many hang up.
fn rounds_and_share(keys: usize) -> (usize, usize) {
    std::env::var("BEARERD_SOAK_ABORTS").map_or((3, 10), |text| {
        let aborts: usize = text.parse().expect("a number in BEARERD_SOAK_ABORTS");
        ((2 * aborts).div_ceil(keys), 2)
    })
}

/// CVE-2023-28858, CVE-2023-28859: who hangs up leaves no answer behind for another.
#[tokio::test]
async fn a_thousand_keys_get_each_its_own_token_while_a_tenth_of_the_callers_hang_up() {
    const KEYS: usize = 1000;
    const CONNECTIONS: usize = 100;
    let (rounds, share) = rounds_and_share(KEYS);
    allow_descriptors(4096);
    let (service, upstream) = surroundings().await;
    upstream.reply_always(Reply::Mirror(40_000));
    let bearerd = bearerd(&service, &upstream, "wait: 60s");

    let mut callers = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let address = bearerd.address();
        callers.spawn(async move {
            let mut client = Client::connect(address).await;
            for step in 0..KEYS / CONNECTIONS * rounds {
                // Round after round over all keys, with neighbours at work on the same ones.
                let key = (connection * 7 + step * CONNECTIONS / 3) % KEYS;
                let patience = match (connection + step) % (2 * share) {
                    0 => Patience::LeavesBefore,
                    place if place == share => Patience::LeavesMidway,
                    _ => Patience::Stays,
                };
                if !call(&mut client, &format!("key-{key}"), patience).await {
                    client = Client::connect(address).await;
                }
            }
        });
    }
    for key in 0..KEYS {
        // Every key has a caller who stays.
        let address = bearerd.address();
        callers.spawn(async move {
            let name = format!("key-{key}");
            assert!(call(&mut Client::connect(address).await, &name, Patience::Stays).await);
        });
        if callers.len() > 2 * CONNECTIONS {
            callers.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }

    bearerd.until(IN_FLIGHT, 0.0).await;
    let mut minted: Vec<String> = service.recorded().iter().map(|call| call.credential().to_owned()).collect();
    minted.sort();
    let before = minted.len();
    minted.dedup();
    assert_eq!((before, minted.len()), (KEYS, KEYS), "one mint for each key, whoever hung up");
    for received in upstream.requests() {
        assert_eq!(bearer_subject(&received), subject(received.head.header("x-expected").unwrap()));
    }
}

/// Sends a request and treats it so. Whether the connection can be used again.
async fn call(client: &mut Client, key: &str, patience: Patience) -> bool {
    client.send(format!("GET / HTTP/1.1\r\nHost: app.test\r\nX-API-Key: {key}\r\nX-Expected: {key}\r\n\r\n")).await;
    match patience {
        Patience::LeavesBefore => false,
        Patience::LeavesMidway => {
            assert_eq!(client.head().await.word(1), "200");
            client.bytes(20_000).await;
            false
        }
        Patience::Stays => {
            let response = client.receive().await;
            let body = response.body.text();
            assert_eq!(response.status, 200, "{body}");
            assert!(body.contains(&format!("X-Expected: {key}\n")), "the answer to another's request");
            true
        }
    }
}

#[tokio::test]
async fn a_caller_who_hangs_up_neither_ends_the_mint_nor_causes_another() {
    let (service, upstream) = surroundings().await;
    let bearerd = bearerd(&service, &upstream, "wait: 60s");

    // Somebody else waits for the same.
    let gate = Gate::closed();
    service.next(Operation::Create, Behaviour::Gated(gate.clone()));
    let mut leaves = Client::connect(bearerd.address()).await;
    leaves.send("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: shared\r\n\r\n").await;
    service.wait_for_calls(Operation::Create, 1).await;
    let mut stays = Client::connect(bearerd.address()).await;
    stays.send("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: shared\r\n\r\n").await;
    bearerd.until(WAITERS, 1.0).await;
    drop(leaves);
    gate.open();
    assert_eq!(stays.receive().await.status, 200);
    assert_eq!(service.calls(Operation::Create), 1);

    // Nobody else does: the token is there for the next.
    let gate = Gate::closed();
    service.next(Operation::Create, Behaviour::Gated(gate.clone()));
    let mut leaves = Client::connect(bearerd.address()).await;
    leaves.send("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: alone\r\n\r\n").await;
    service.wait_for_calls(Operation::Create, 2).await;
    drop(leaves);
    gate.open();
    bearerd.until("bearerd_cache_entries", 2.0).await;
    assert_eq!(get(bearerd.address(), "/", &[("x-api-key", "alone")]).await.status, 200);
    assert_eq!(service.calls(Operation::Create), 2);
}

#[tokio::test]
async fn a_mint_that_takes_longer_than_a_request_may_wait_is_there_for_the_next() {
    let (service, upstream) = surroundings().await;
    let bearerd = bearerd(&service, &upstream, "wait: 50ms");
    let gate = Gate::closed();
    service.next(Operation::Create, Behaviour::Gated(gate.clone()));
    for _ in 0..2 {
        let response = get(bearerd.address(), "/", &[("x-api-key", "k")]).await;
        assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
        assert_eq!(response.body.json()["type"], "urn:bearerd:problem:mint_budget");
    }
    gate.open();
    bearerd.until("bearerd_cache_entries", 1.0).await;
    assert_eq!(get(bearerd.address(), "/", &[("x-api-key", "k")]).await.status, 200);
    assert_eq!(service.calls(Operation::Create), 1, "the second request joined the mint that the first began");
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn past_the_mint_queue_callers_are_turned_away_and_nothing_is_held_against_them() {
    let (service, upstream) = surroundings().await;
    let bearerd = Arc::new(bearerd(&service, &upstream, "concurrency: 1, queue: 1, wait: 60s"));
    let gate = Gate::closed();
    service.next(Operation::Create, Behaviour::Gated(gate.clone()));
    let mut callers = JoinSet::new();
    let mut ask = |key: &'static str| {
        let address = bearerd.address();
        callers.spawn(async move { (key, get(address, "/", &[("x-api-key", key)]).await) });
    };
    ask("one");
    service.wait_for_calls(Operation::Create, 1).await;
    // One of them takes the place in the queue, whichever comes first.
    ask("two");
    ask("three");
    let (turned_away, response) = callers.join_next().await.unwrap().unwrap();
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert_eq!(response.body.json()["type"], "urn:bearerd:problem:mint_budget");
    gate.open();
    while let Some(caller) = callers.join_next().await {
        assert_eq!(caller.unwrap().1.status, 200);
    }
    assert_eq!(get(bearerd.address(), "/", &[("x-api-key", turned_away)]).await.status, 200);
    assert_eq!(bearerd.value(r#"bearerd_auth_decisions_total{reason="mint_budget",result="error",route="api"}"#).await, 1.0);
}

#[tokio::test]
async fn the_service_is_never_asked_for_more_at_once_than_configured() {
    // A quarter of it is kept for renewals, of which there are none.
    const CONFIGURED: usize = 4;
    const AT_ONCE: usize = 3;
    const KEYS: usize = 40;
    let (service, upstream) = surroundings().await;
    let bearerd = bearerd(&service, &upstream, &format!("concurrency: {CONFIGURED}, wait: 60s"));
    let gates: Vec<Gate> = (0..KEYS).map(|_| Gate::closed()).collect();
    gates.iter().for_each(|gate| service.next(Operation::Create, Behaviour::Gated(gate.clone())));
    let mut callers = JoinSet::new();
    for key in 0..KEYS {
        let address = bearerd.address();
        callers.spawn(async move { get(address, "/", &[("x-api-key", &format!("key-{key}"))]).await.status });
    }
    bearerd.until(IN_FLIGHT, KEYS as f64).await;
    for (answered, gate) in gates.iter().enumerate() {
        service.wait_for_calls(Operation::Create, KEYS.min(answered + AT_ONCE)).await;
        assert_eq!(service.calls(Operation::Create), KEYS.min(answered + AT_ONCE));
        gate.open();
    }
    while let Some(status) = callers.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
}
