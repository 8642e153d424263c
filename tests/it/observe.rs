//! What bearerd tells about itself: probes, metrics, the access log.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::bearerd::{Bearerd, until};
use crate::support::client::{Client, get};
use crate::support::process::Process;
use crate::support::stage::surroundings;
use crate::support::token_service::{Behaviour, Operation, ScriptedTokenService};
use crate::support::upstream::{RecordingUpstream, Reply};
use rustix::process::Signal;

const ROUTES: &str = "routes:
  - { name: public, match: { path_prefix: /public }, auth: none, upstream: app }
  - { name: fixed, match: { path: /fixed }, auth: none, respond: { status: 204 } }
  - { name: api, match: { path_prefix: /api }, upstream: app, credentials: [api_key, { api_key: { query: key } }] }
";

fn configuration(service: &ScriptedTokenService, upstream: &RecordingUpstream) -> String {
    format!(
        "token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nupstreams: {{ app: {{ servers: [\"{}\"] }} }}\nshutdown: {{ delay: 0s }}\n{ROUTES}",
        service.url(),
        upstream.address()
    )
}

#[tokio::test]
async fn the_metrics_listener_has_four_paths_and_nothing_else() {
    let (service, upstream) = surroundings().await;
    let bearerd = Bearerd::start(&configuration(&service, &upstream));
    while bearerd.probe("/readyz").await != 200 {}
    let metrics = bearerd.addresses().metrics;
    assert_eq!((bearerd.probe("/livez").await, bearerd.probe("/startupz").await), (200, 200));
    let exposition = get(metrics, "/metrics", &[]).await;
    assert_eq!((exposition.status, exposition.header("content-type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
    for path in ["/", "/api/tokens", "/api/quit", "/metrics/", "/livez/x", "/debug/pprof", "/../metrics"] {
        assert_eq!(bearerd.probe(path).await, 404, "{path}");
    }
    let mut client = Client::connect(metrics).await;
    client.send("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.receive().await.status, 405);
    // Callers do not reach them.
    assert_eq!(get(bearerd.address(), "/metrics", &[]).await.status, 404);
}

/// CVE-2022-24797, CVE-2020-11710.
#[tokio::test]
async fn admin_without_a_token_answers_only_to_loopback_names() {
    let (service, upstream) = surroundings().await;
    let bearerd = Bearerd::start(&configuration(&service, &upstream));
    let admin = bearerd.addresses().admin;
    let hosts = [
        (format!("127.0.0.1:{}", admin.port()), 200),
        ("127.0.0.1".to_owned(), 200),
        ("localhost:9901".to_owned(), 200),
        ("[::1]:9901".to_owned(), 200),
        ("evil.example".to_owned(), 403),
        ("localhost.evil.example".to_owned(), 403),
        ("evil.example:9901".to_owned(), 403),
        ("192.0.2.1:9901".to_owned(), 403),
        (String::new(), 403),
    ];
    for (host, status) in hosts {
        for path in ["/livez", "/metrics"] {
            let mut client = Client::connect(admin).await;
            client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            assert_eq!(client.receive().await.status, status, "`{host}` {path}");
        }
    }
}

/// CVE-2022-24797, CVE-2020-11710.
#[tokio::test]
async fn admin_with_a_token_answers_only_who_brings_it() {
    let (service, upstream) = surroundings().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "admin-secret\n").unwrap();
    let admin = format!("admin: {{ address: 127.0.0.1:0, token_file: {} }}\n", file.display());
    let bearerd = Bearerd::start(&format!("{admin}{}", configuration(&service, &upstream)));
    while bearerd.probe("/startupz").await != 200 {}
    let admin = bearerd.addresses().admin;
    for headers in
        [&[][..], &[("authorization", "Bearer admin-secre")], &[("authorization", "Basic admin-secret")], &[("authorization", "Bearer ")]]
    {
        let refused = get(admin, "/livez", headers).await;
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer realm=\"bearerd admin\"")));
        assert!(!refused.body.text().contains("admin-secret"));
    }
    // With the token, the name by which it is asked is of no account.
    for path in ["/livez", "/metrics", "/startupz"] {
        let answer = get(admin, path, &[("authorization", "Bearer admin-secret")]).await;
        assert_eq!(answer.status, 200, "{path}");
    }
}

/// The families that count, without those of time.
fn counted(series: BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let timed = |name: &String| name.contains("_seconds") && !name.contains("_seconds_count");
    series.into_iter().filter(|(name, _)| !timed(name)).collect()
}

#[tokio::test]
async fn a_known_sequence_leaves_exactly_these_series() {
    let (service, upstream) = surroundings().await;
    let bearerd = Bearerd::start(&configuration(&service, &upstream));
    let ask = async |path: &str, headers: &[(&str, &str)]| get(bearerd.address(), path, headers).await.status;
    assert_eq!(ask("/api", &[("x-api-key", "good")]).await, 200, "a miss");
    assert_eq!(ask("/api", &[("x-api-key", "good")]).await, 200, "a hit");
    assert_eq!(ask("/api?key=good", &[]).await, 200, "another hit");
    service.next(Operation::Create, Behaviour::status(401));
    assert_eq!(ask("/api", &[("x-api-key", "bad")]).await, 401, "denied");
    assert_eq!(ask("/api", &[("x-api-key", "bad")]).await, 401, "remembered");
    service.next(Operation::Create, Behaviour::status(500));
    assert_eq!(ask("/api", &[("x-api-key", "unlucky")]).await, 503, "an outage");
    assert_eq!(ask("/api", &[]).await, 401, "no credential");
    assert_eq!(ask("/nowhere", &[("x-api-key", "good")]).await, 404, "no route");
    assert_eq!(ask("/public", &[]).await, 200, "public");
    assert_eq!(ask("/fixed", &[]).await, 204, "public, answered by bearerd");
    upstream.reply_next(Reply::Raw(b"no HTTP\r\n\r\n".to_vec()));
    assert_eq!(ask("/api", &[("x-api-key", "good")]).await, 502, "the upstream broke off");
    // A token at the end of its life.
    bearerd.clock.step(3_600_000);
    service.set_lifetime(std::time::Duration::from_secs(3 * 3600));
    assert_eq!(ask("/api", &[("x-api-key", "good")]).await, 200, "expired");
    // The last request is counted when its answer has gone.
    bearerd.until("bearerd_requests_in_flight", 0.0).await;
    bearerd.until("bearerd_connections", 0.0).await;

    let found = counted(bearerd.series().await);
    let expected: BTreeMap<String, f64> = [
        (r#"bearerd_auth_decisions_total{reason="",result="allowed",route="api"}"#, 5.0),
        (r#"bearerd_auth_decisions_total{reason="",result="allowed",route=""}"#, 0.0),
        (r#"bearerd_auth_decisions_total{reason="",result="allowed",route="fixed"}"#, 0.0),
        (r#"bearerd_auth_decisions_total{reason="",result="allowed",route="public"}"#, 0.0),
        (r#"bearerd_auth_decisions_total{reason="",result="public",route="api"}"#, 0.0),
        (r#"bearerd_auth_decisions_total{reason="",result="public",route=""}"#, 0.0),
        (r#"bearerd_auth_decisions_total{reason="",result="public",route="fixed"}"#, 1.0),
        (r#"bearerd_auth_decisions_total{reason="",result="public",route="public"}"#, 1.0),
        (r#"bearerd_auth_decisions_total{reason="denied",result="denied",route="api"}"#, 2.0),
        (r#"bearerd_auth_decisions_total{reason="missing_credential",result="denied",route="api"}"#, 1.0),
        (r#"bearerd_auth_decisions_total{reason="no_route",result="denied",route=""}"#, 1.0),
        (r#"bearerd_auth_decisions_total{reason="token_service_unavailable",result="error",route="api"}"#, 1.0),
        (r#"bearerd_auth_duration_seconds_count{source="hit"}"#, 4.0),
        (r#"bearerd_auth_duration_seconds_count{source="jwt"}"#, 0.0),
        (r#"bearerd_auth_duration_seconds_count{source="mint"}"#, 4.0),
        (r#"bearerd_auth_duration_seconds_count{source="wait"}"#, 0.0),
        (r#"bearerd_breaker_open{service="default"}"#, 0.0),
        (r#"bearerd_build_info{revision="unknown",version="0.1.0"}"#, 1.0),
        ("bearerd_cache_entries", 1.0),
        (r#"bearerd_cache_evictions_total{cause="replaced"}"#, 1.0),
        (r#"bearerd_cache_requests_total{result="expired"}"#, 1.0),
        (r#"bearerd_cache_requests_total{result="hit"}"#, 3.0),
        (r#"bearerd_cache_requests_total{result="miss"}"#, 3.0),
        (r#"bearerd_cache_requests_total{result="negative"}"#, 1.0),
        ("bearerd_coalesced_waiters", 0.0),
        ("bearerd_connections", 0.0),
        ("bearerd_config_last_reload_successful", 1.0),
        (r#"bearerd_config_reloads_total{outcome="failure"}"#, 0.0),
        (r#"bearerd_config_reloads_total{outcome="success"}"#, 0.0),
        (r#"bearerd_mints_total{reason="miss",service="default"}"#, 4.0),
        (r#"bearerd_request_duration_seconds_count{route=""}"#, 1.0),
        (r#"bearerd_request_duration_seconds_count{route="api"}"#, 9.0),
        (r#"bearerd_request_duration_seconds_count{route="fixed"}"#, 1.0),
        (r#"bearerd_request_duration_seconds_count{route="public"}"#, 1.0),
        ("bearerd_revocations_pending", 0.0),
        ("bearerd_requests_in_flight", 0.0),
        (r#"bearerd_requests_total{code="200",method="GET",route="api"}"#, 4.0),
        (r#"bearerd_requests_total{code="200",method="GET",route="public"}"#, 1.0),
        (r#"bearerd_requests_total{code="204",method="GET",route="fixed"}"#, 1.0),
        (r#"bearerd_requests_total{code="401",method="GET",route="api"}"#, 3.0),
        (r#"bearerd_requests_total{code="404",method="GET",route=""}"#, 1.0),
        (r#"bearerd_requests_total{code="502",method="GET",route="api"}"#, 1.0),
        (r#"bearerd_requests_total{code="503",method="GET",route="api"}"#, 1.0),
        (r#"bearerd_token_service_request_duration_seconds_count{operation="create",service="default"}"#, 4.0),
        (r#"bearerd_token_service_request_duration_seconds_count{operation="details",service="default"}"#, 2.0),
        (r#"bearerd_token_service_requests_total{operation="create",outcome="denied",service="default"}"#, 1.0),
        (r#"bearerd_token_service_requests_total{operation="create",outcome="ok",service="default"}"#, 2.0),
        (r#"bearerd_token_service_requests_total{operation="create",outcome="unavailable",service="default"}"#, 1.0),
        (r#"bearerd_token_service_requests_total{operation="details",outcome="ok",service="default"}"#, 2.0),
        (r#"bearerd_upstream_errors_total{reason="upstream_reset",upstream="app"}"#, 1.0),
        (r#"bearerd_upstream_servers{upstream="app"}"#, 1.0),
        (r#"bearerd_upstream_servers_good{upstream="app"}"#, 1.0),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    let difference: Vec<_> = found
        .iter()
        .chain(&expected)
        .filter(|(name, value)| found.get(*name) != Some(value) || expected.get(*name) != Some(value))
        .collect();
    assert!(difference.is_empty(), "found, then expected: {difference:#?}");
}

/// The access log of a process that has ended.
fn access_lines(stderr: &[String]) -> Vec<Value> {
    let lines = stderr.iter().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    lines.filter(|line| line["target"] == "bearerd::access").collect()
}

#[tokio::test]
async fn each_request_is_one_json_line_without_its_query() {
    let (service, upstream) = surroundings().await;
    let process = Process::run(&configuration(&service, &upstream));
    let addresses = process.addresses().await;
    let mut client = Client::connect(addresses.callers[0]).await;
    assert_eq!(client.get("/api/x?key=query-key&page=query-page", &[]).await.status, 200);
    assert_eq!(client.get("/public", &[("x-request-id", "theirs-1")]).await.status, 200);
    assert_eq!(client.get("/nowhere?a=query-lost", &[]).await.status, 404);
    service.next(Operation::Create, Behaviour::status(500));
    let failed = client.get("/api", &[("x-api-key", "header-key"), ("x-request-id", "not fit for a log")]).await;
    assert_eq!(failed.status, 503);
    // A request is logged after its answer. Then a caller who leaves before one.
    until(addresses.metrics, "bearerd_requests_in_flight", |requests| requests == 0.0).await;
    upstream.reply_next(Reply::Hang);
    let mut leaves = Client::connect(addresses.callers[0]).await;
    leaves.send("GET /public/slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.wait_for_started(3).await;
    drop(leaves);
    until(addresses.metrics, "bearerd_requests_in_flight", |requests| requests == 0.0).await;
    drop(client);
    process.signal(Signal::TERM);
    let ended = process.ended().await;
    assert_eq!(ended.code(), 0);

    let lines = access_lines(&ended.stderr);
    let told = |line: &Value| {
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        (text("method"), text("path"), text("route"), line["status"].as_u64().unwrap(), text("reason"))
    };
    let expected = [
        ("GET", "/api/x", "api", 200, ""),
        ("GET", "/public", "public", 200, ""),
        ("GET", "/nowhere", "", 404, "no_route"),
        ("GET", "/api", "api", 503, "token_service_unavailable"),
        ("GET", "/public/slow", "public", 499, ""),
    ];
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(method, path, route, status, reason)| (method.to_owned(), path.to_owned(), route.to_owned(), status, reason.to_owned()))
        .collect();
    assert_eq!(lines.iter().map(told).collect::<Vec<_>>(), expected);
    for line in &lines {
        assert_eq!((line["level"].as_str(), line["peer"].as_str()), (Some("INFO"), Some("127.0.0.1")), "{line}");
        assert!(line["timestamp"].is_string() && line["duration_ms"].is_f64() && line["body_bytes"].is_u64(), "{line}");
    }
    assert!(lines[3]["cause"].as_str().unwrap().contains("500"), "{}", lines[3]);
    assert!(lines[0]["body_bytes"].as_u64() > Some(0));
    let decisions: Vec<_> = lines.iter().map(|line| line["decision"].as_str().unwrap()).collect();
    assert_eq!(decisions, ["allowed", "public", "denied", "error", "public"]);
    // By the first digits of its entry's id the credential is told from others.
    let credentials: Vec<_> = lines.iter().map(|line| line["credential"].as_str().map_or(0, str::len)).collect();
    assert_eq!(credentials, [8, 0, 0, 8, 0]);
    let asked: Vec<_> = lines.iter().map(|line| line["upstream"] == upstream.address().to_string()).collect();
    assert_eq!(asked, [true, true, false, false, true]);
    let timed: Vec<_> = lines.iter().map(|line| (line["exchange_ms"].is_f64(), line["upstream_ms"].is_f64())).collect();
    assert_eq!(timed, [(true, true), (true, true), (false, false), (true, false), (true, false)]);

    // The id in the log is the one that the upstream and the caller got.
    let ids: Vec<&str> = lines.iter().map(|line| line["request_id"].as_str().unwrap()).collect();
    let sent: Vec<String> = upstream.started().iter().map(|head| head.header("x-request-id").unwrap().to_owned()).collect();
    assert_eq!(sent, [ids[0], "theirs-1", ids[4]]);
    assert_eq!(ids[1], "theirs-1");
    assert_eq!(failed.body.json()["request_id"], ids[3]);
    assert_eq!(ids[3].len(), 32, "one that is not fit for a log is replaced");
    let all = ended.stderr.join("\n");
    assert!(!all.contains("query-") && !all.contains("header-key"), "{all}");
}

#[tokio::test]
async fn the_access_log_can_be_turned_off() {
    let (service, upstream) = surroundings().await;
    let process = Process::run(&format!("{}logging: {{ access: false }}\n", configuration(&service, &upstream)));
    let addresses = process.addresses().await;
    for (path, status) in [("/public", 200), ("/nowhere", 404)] {
        assert_eq!(get(addresses.callers[0], path, &[]).await.status, status);
    }
    process.signal(Signal::TERM);
    let ended = process.ended().await;
    assert_eq!(access_lines(&ended.stderr), [Value::Null; 0]);
}

#[tokio::test]
async fn of_a_sample_of_none_those_that_are_refused_are_left() {
    let (service, upstream) = surroundings().await;
    let process = Process::run(&format!("{}logging: {{ sample: 0 }}\n", configuration(&service, &upstream)));
    let addresses = process.addresses().await;
    for (path, status) in [("/public", 200), ("/nowhere", 404), ("/public", 200)] {
        assert_eq!(get(addresses.callers[0], path, &[]).await.status, status);
    }
    process.signal(Signal::TERM);
    let lines = access_lines(&process.ended().await.stderr);
    assert_eq!(lines.iter().map(|line| &line["path"]).collect::<Vec<_>>(), ["/nowhere"]);
}

#[tokio::test]
async fn ten_thousand_keys_and_paths_make_no_more_series_than_a_few() {
    let (service, upstream) = surroundings().await;
    let bearerd = Bearerd::start(&configuration(&service, &upstream));
    let ask = async |client: &mut Client, number: usize| {
        let (path, key) = (format!("/api/{number}?key={number}"), format!("key-{number}"));
        // Good keys, denied ones, and paths that no route has.
        match number % 3 {
            0 => client.get(&path, &[]).await,
            1 => client.get(&format!("/nowhere/{number}"), &[("x-api-key", &key)]).await,
            _ => client.get(&format!("/public/{number}"), &[("x-api-key", &key)]).await,
        }
    };
    let mut client = Client::connect(bearerd.address()).await;
    for number in 0..30 {
        ask(&mut client, number).await;
    }
    let before = bearerd.series().await.len();
    for number in 30..10_000 {
        ask(&mut client, number).await;
    }
    let after = bearerd.series().await;
    assert!(after.keys().all(|name| !name.contains("key-") && !name.contains("/api/")), "{after:?}");
    assert!(after.len() <= before + 4, "{before} series became {}", after.len());
}
