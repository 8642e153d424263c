//! Long runs of the real binary: renewals under load, and one end after another. `make soak` makes the second longer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::support::bearerd::{series, until};
use crate::support::client::{Client, get};
use crate::support::process::Process;
use crate::support::stage::{configuration, surroundings};
use crate::support::token_service::{Behaviour, Operation};

/// How often a process is ended under load.
fn ends() -> usize {
    std::env::var("BEARERD_SOAK_ENDS").map_or(5, |text| text.parse().expect("a number in BEARERD_SOAK_ENDS"))
}

#[tokio::test]
async fn a_minute_of_load_over_many_renewals_loses_and_delays_nobody() {
    const KEYS: usize = 20;
    const RENEWALS: usize = 20;
    let (service, upstream) = surroundings().await;
    service.set_lifetime(Duration::from_secs(5));
    let process = Process::run(&configuration(&service, &upstream, "", "  - { name: app, upstream: app, validate: { details: 2s } }"));
    let addresses = process.addresses().await;
    let callers: JoinSet<usize> =
        (0..KEYS).map(|number| call_until(addresses.callers[0], number, service_done(&service, KEYS * RENEWALS))).collect();
    let served: usize = callers.join_all().await.into_iter().sum();
    until(addresses.metrics, r#"bearerd_requests_total{code="200",method="GET",route="app"}"#, |value| value == served as f64).await;
    let series = series(addresses.metrics).await;
    let count = |name: &str| series.get(name).copied().unwrap_or(0.0);
    assert_eq!(count(r#"bearerd_cache_requests_total{result="hit"}"#), (served - KEYS) as f64, "all but each key's first");
    assert_eq!(
        count(r#"bearerd_cache_requests_total{result="expired"}"#) + count(r#"bearerd_auth_duration_seconds_count{source="wait"}"#),
        0.0
    );
    assert!(count(r#"bearerd_token_renewals_total{outcome="ok"}"#) >= (KEYS * (RENEWALS - 1)) as f64);
    process.signal(Signal::TERM);
    assert!(process.ended().await.status.success());
}

/// Whether so many tokens were minted.
fn service_done(service: &crate::support::token_service::ScriptedTokenService, wanted: usize) -> impl Fn() -> bool + Send + 'static {
    let calls = service.counter();
    move || calls(Operation::Create) >= wanted
}

/// Calls with one key on one connection; every answer is a 200.
async fn call_until(address: SocketAddr, number: usize, done: impl Fn() -> bool + Send + 'static) -> usize {
    let request = format!("GET / HTTP/1.1\r\nHost: h\r\nX-API-Key: key-{number}\r\n\r\n");
    let mut client = Client::connect(address).await;
    let mut served = 0;
    // Some load, not all that the machine can do: other tests run too.
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    while !done() {
        pace.tick().await;
        assert_eq!(client.exchange(&request).await.status, 200);
        served += 1;
    }
    served
}

#[tokio::test]
async fn a_flood_of_bad_keys_costs_no_more_than_its_budget_and_slows_no_cached_key() {
    const FLOODERS: usize = 32;
    const EACH: usize = 100;
    const ROUNDS: usize = 4;
    const RATE: usize = 100;
    // Far less than an entry for each key; without a limit on the time it is 0 in the end, once each thread has had its share of everything.
    const GROWTH: u64 = 3 << 20;
    let (service, upstream) = surroundings().await;
    let text = format!(
        "token_services: {{ default: {{ kind: iap, url: \"{}\", mint: {{ concurrency: 8, rate: {RATE}, queue: 16, wait: 500ms }} }} }}\n\
         upstreams: {{ app: {{ servers: [\"{}\"] }} }}\ncache: {{ max_tokens: 100, negative: {{ max_entries: 100 }} }}\n\
         logging: {{ access: false }}\nroutes:\n  - {{ name: app, upstream: app, validate: {{ details: off }} }}\n",
        service.url(),
        upstream.address()
    );
    // Without huge pages, which would show memory by the 2 MiB.
    let process = Process::run_under(&["env", "MIMALLOC_ALLOW_THP=0"], &text);
    let addresses = process.addresses().await;
    let mut good = Client::connect(addresses.callers[0]).await;
    let request = "GET / HTTP/1.1\r\nHost: h\r\nX-API-Key: good\r\n\r\n";
    assert_eq!(good.exchange(request).await.status, 200);
    service.always(Operation::Create, Behaviour::status(401));
    let began = Instant::now();
    let (mut served, mut outcomes, mut peaks) = (1, [0, 0], Vec::new());
    for round in 0..ROUNDS {
        let mut flood: JoinSet<[usize; 2]> =
            (0..FLOODERS).map(|flooder| bad_keys(addresses.callers[0], format!("{round}-{flooder}"), EACH)).collect();
        while !flood.is_empty() {
            assert_eq!(good.exchange(request).await.status, 200);
            served += 1;
            while let Some(told) = flood.try_join_next() {
                let told = told.unwrap();
                outcomes = [outcomes[0] + told[0], outcomes[1] + told[1]];
            }
        }
        peaks.push(process.peak_memory());
    }
    let calls = service.calls(Operation::Create) - 1;
    let most = RATE / 10 + RATE * (began.elapsed().as_secs() as usize + 1);
    assert!(calls <= most, "{calls} calls, where {most} are in the budget");
    assert_eq!(outcomes.iter().sum::<usize>(), FLOODERS * EACH * ROUNDS, "a definite no, or told to come again");
    assert!(outcomes[1] > 0, "more than the budget holds: {outcomes:?}");
    let series = series(addresses.metrics).await;
    assert_eq!(series[r#"bearerd_cache_requests_total{result="hit"}"#], f64::from(served - 1));
    // The first round brings what the connections and the bounded memory of refusals take; other keys, as many again and again, bring no more.
    let grown = peaks[ROUNDS - 1] - peaks[0];
    println!("{outcomes:?} in {:?}, peaks of {peaks:?} bytes", began.elapsed());
    assert!(grown < GROWTH, "{grown} bytes more for {} keys", FLOODERS * EACH * (ROUNDS - 1));
}

/// Calls with one bad key after another; how many were denied, and how many turned away for the budget.
async fn bad_keys(address: SocketAddr, flooder: String, count: usize) -> [usize; 2] {
    let mut client = Client::connect(address).await;
    let mut outcomes = [0, 0];
    for number in 0..count {
        let response = client.exchange(format!("GET / HTTP/1.1\r\nHost: h\r\nX-API-Key: bad-{flooder}-{number}\r\n\r\n")).await;
        match (response.status, response.problem().as_str()) {
            (401, "denied") => outcomes[0] += 1,
            (503, "mint_budget") => outcomes[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    outcomes
}

/// What befell the callers of a process that ended.
#[derive(Default)]
struct Tally {
    served: AtomicUsize,
    lost: AtomicUsize,
}

/// Calls, and connects anew where it was told to close, until `leave` is set, as a load balancer does that has seen the process unready. A request
/// counts as lost where it was sent on a connection that had not said `close`.
async fn keep_calling(address: SocketAddr, leave: Arc<AtomicBool>, tally: Arc<Tally>) {
    while !leave.load(Ordering::SeqCst) {
        let mut client = Client::connect(address).await;
        loop {
            let sent = client.try_send("GET / HTTP/1.1\r\nHost: h\r\nX-API-Key: k\r\n\r\n").await;
            let answer = if sent.is_ok() { client.try_receive().await } else { None };
            let Some(answer) = answer else {
                tally.lost.fetch_add(1, Ordering::SeqCst);
                break;
            };
            assert_eq!(answer.status, 200);
            tally.served.fetch_add(1, Ordering::SeqCst);
            if answer.head.closes() {
                break;
            }
        }
    }
}

#[tokio::test]
async fn one_end_after_another_under_load_loses_no_request() {
    const CALLERS: usize = 20;
    let (service, upstream) = surroundings().await;
    let text = configuration(&service, &upstream, "shutdown: { delay: 500ms, drain_timeout: 20s }", "  - { name: app, upstream: app }");
    for round in 0..ends() {
        let process = Process::run(&text);
        let addresses = process.addresses().await;
        let (leave, tally) = (Arc::<AtomicBool>::default(), Arc::<Tally>::default());
        let callers: JoinSet<()> =
            (0..CALLERS).map(|_| keep_calling(addresses.callers[0], Arc::clone(&leave), Arc::clone(&tally))).collect();
        // Each time at another moment.
        let requests = (CALLERS * (1 + fastrand::usize(..10))) as f64;
        until(addresses.metrics, r#"bearerd_requests_total{code="200",method="GET",route="app"}"#, |value| value >= requests).await;
        process.signal(Signal::TERM);
        while get(addresses.metrics, "/readyz", &[]).await.status != 503 {}
        leave.store(true, Ordering::SeqCst);
        assert!(process.ended().await.status.success(), "round {round}");
        callers.join_all().await;
        let (served, lost) = (tally.served.load(Ordering::SeqCst), tally.lost.load(Ordering::SeqCst));
        assert_eq!(lost, 0, "round {round}: of {served}");
    }
}
