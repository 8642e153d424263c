//! A mixed load for as long as `BEARERD_SOAK_SECONDS` says, over renewals, reloads and failures of the token service: nobody gets a token of another,
//! nobody notices what can be hidden, and memory and descriptors stay as they are. A few seconds unless `make soak` asks for more.

mod load;
mod samples;
mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::bearerd::{series, until};
use crate::support::process::{Process, allow_descriptors};
use crate::support::token_service::{Behaviour, Operation, ScriptedTokenService};
use load::{Callers, Weather};
use samples::Samples;
use upstream::Echo;

/// Short enough for renewals to be under way all the time; and half of it, which is when they begin, is longer than a failure with all that hangs on it,
/// on a slow machine too.
const LIFETIME: Duration = Duration::from_secs(60);
/// Between two reloads.
const RELOAD: Duration = Duration::from_secs(3);
/// The token service fails for the first part of each such period.
const PERIOD: Duration = Duration::from_secs(20);
const FAILURE: Duration = Duration::from_secs(3);
/// From here on memory and descriptors are compared.
const LONG: Duration = Duration::from_secs(120);

/// How long, and with how many connections.
fn extent() -> (Duration, usize) {
    std::env::var("BEARERD_SOAK_SECONDS")
        .map_or((Duration::from_secs(4), 8), |text| (Duration::from_secs(text.parse().expect("a number in BEARERD_SOAK_SECONDS")), 48))
}

fn configuration(service: &ScriptedTokenService, upstream: SocketAddr, round: usize) -> String {
    // Routes, the upstream and the service itself change in turn.
    let (service_more, upstream_more, set) = match round % 3 {
        0 => ("", "", "a"),
        1 => (", breaker: { failures: 7 }", "", "b"),
        _ => ("", ", read: 50s", "c"),
    };
    format!(
        "listeners: [{{ address: 127.0.0.1:0 }}, {{ address: 127.0.0.1:0, h2c: true }}]
admin: {{ address: 127.0.0.1:0 }}
metrics: {{ address: 127.0.0.1:0 }}
token_services: {{ default: {{ kind: iap, url: \"{}\", timeout: 5s{service_more} }} }}
upstreams: {{ app: {{ servers: [\"{upstream}\"], timeouts: {{ connect: 30s{upstream_more} }} }} }}
cache: {{ max_tokens: 600, negative: {{ max_entries: 100 }} }}
logging: {{ access: false }}
routes: [{{ name: app, upstream: app, validate: {{ details: on_mint }}, headers: {{ set: {{ X-Round: {set} }} }} }}]
",
        service.url()
    )
}

/// Also CVE-2023-28858 and CVE-2023-28859, at length.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_mixed_load_with_failures_and_reloads_every_answer_has_the_token_of_its_key_and_nothing_grows() {
    let (long, connections) = extent();
    allow_descriptors(4096);
    let service = ScriptedTokenService::start().await;
    service.set_lifetime(LIFETIME);
    service.deny_keys_that_begin_with("bad-");
    let upstream = Echo::start().await;
    let process = Process::run(&configuration(&service, upstream.address(), 0));
    let addresses = process.addresses().await;
    let weather = Arc::new(Weather::default());
    let callers = Callers::start((addresses.callers[0], addresses.callers[1]), connections, &weather).await;

    let (began, mut samples, over) = (Instant::now(), Samples::default(), AtomicBool::new(false));
    let controlled = async {
        let reloads = reload_again_and_again(&process, &service, upstream.address(), &over);
        let failures = fail_now_and_then(&service, &weather, &over);
        tokio::join!(reloads, failures)
    };
    let watched = async {
        let mut pace = tokio::time::interval(Duration::from_secs(1));
        while began.elapsed() < long {
            pace.tick().await;
            samples.add(process.memory(), process.descriptors());
        }
        over.store(true, Ordering::SeqCst);
    };
    let ((reloads, failures), ()) = tokio::join!(controlled, watched);
    let tally = callers.leave().await;

    until(addresses.metrics, "bearerd_requests_in_flight", |value| value == 0.0).await;
    until(addresses.metrics, "bearerd_connections", |value| value == 0.0).await;
    let series = series(addresses.metrics).await;
    let count = |name: &str| series.get(name).copied().unwrap_or(0.0);
    let renewals = count(r#"bearerd_token_renewals_total{outcome="ok"}"#);
    println!("{tally}");
    println!("{:.0} requests/s for {} s", tally.requests() as f64 / began.elapsed().as_secs_f64(), began.elapsed().as_secs());
    println!(
        "{renewals} renewals, {} mints, {reloads} reloads, {failures} failures of the token service",
        service.calls(Operation::Create)
    );
    println!("seen by the upstream: {} requests, {} with the token of another", upstream.requests(), upstream.wrong());
    println!("{samples}");
    assert_eq!((tally.wrong(), upstream.wrong()), (0, 0), "tokens of another");
    assert_eq!(tally.unexplained(), [""; 0], "answers that nothing explains");
    assert!(reloads > 0 && failures > 0 && tally.requests() > 0);
    assert!(count(r#"bearerd_config_reloads_total{outcome="success"}"#) > 0.0);
    assert_eq!(count(r#"bearerd_config_reloads_total{outcome="failure"}"#), 0.0);
    if long >= LONG {
        assert!(renewals > 0.0);
        samples.are_flat();
    }
    process.signal(Signal::TERM);
    let ended = process.ended().await;
    assert_eq!(ended.code(), 0, "{:?}", ended.stderr);
    assert!(!ended.stderr.iter().any(|line| line.contains("panicked")), "{:?}", ended.stderr);
}

/// How often it was done.
async fn reload_again_and_again(process: &Process, service: &ScriptedTokenService, upstream: SocketAddr, over: &AtomicBool) -> usize {
    let mut pace = tokio::time::interval(RELOAD.min(extent().0 / 4));
    let mut round = 0;
    while !over.load(Ordering::SeqCst) {
        pace.tick().await;
        round += 1;
        let next = process.directory().join("next");
        std::fs::write(&next, configuration(service, upstream, round)).unwrap();
        std::fs::rename(next, process.directory().join("bearerd.yaml")).unwrap();
        process.signal(Signal::HUP);
    }
    round
}

/// How often it failed.
async fn fail_now_and_then(service: &ScriptedTokenService, weather: &Weather, over: &AtomicBool) -> usize {
    let (period, failure) = (PERIOD.min(extent().0 / 2), FAILURE.min(extent().0 / 8));
    let kinds = [
        Behaviour::status(500),
        Behaviour::Hang,
        Behaviour::Status(429, "{}".into(), vec![("Retry-After".into(), "1".into())]),
        Behaviour::Reset,
        Behaviour::Garbage,
        Behaviour::Drip,
    ];
    let mut round = 0;
    while !over.load(Ordering::SeqCst) {
        // Fair weather first: tokens are at hand when it turns.
        tokio::time::sleep(period - failure).await;
        weather.turns_bad();
        for operation in [Operation::Create, Operation::Details] {
            service.always(operation, kinds[round % kinds.len()].clone());
        }
        tokio::time::sleep(failure).await;
        for operation in [Operation::Create, Operation::Details] {
            service.always(operation, Behaviour::Works);
        }
        weather.turns_fair();
        round += 1;
    }
    round
}
