//! `bearerd doctor`, the real binary: what is there, what is not, and what to do.

use std::fs;
use std::process::Output;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::process::on_free_ports;
use crate::support::stage::{configuration, surroundings};
use crate::support::tls::{Authority, Pair};
use crate::support::token_service::{Behaviour, Operation};

const CANARY: &str = "canary-key-that-nobody-may-see";

async fn doctor(folder: &TempDir, configuration: &str, arguments: &[&str]) -> Output {
    fs::write(folder.path().join("bearerd.yaml"), on_free_ports(configuration)).unwrap();
    fs::write(folder.path().join("key"), CANARY).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    let output = command.args(["doctor"]).args(arguments).current_dir(folder.path()).env_clear().output().await.unwrap();
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(!String::from_utf8_lossy(&all).contains(CANARY), "{}", String::from_utf8_lossy(&all));
    output
}

fn findings(output: &Output) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(report["ok"], report["findings"].as_array().unwrap().iter().all(|finding| finding["ok"] == true));
    report["findings"].as_array().unwrap().clone()
}

fn finding<'f>(findings: &'f [Value], what: &str) -> &'f Value {
    findings.iter().find(|finding| finding["what"].as_str().unwrap().starts_with(what)).unwrap_or_else(|| panic!("{what}: {findings:?}"))
}

const OWN: &str =
    "  - { name: own, match: { path: /own }, upstream: app, credentials: [{ mounted: { file: key } }] }\n  - { upstream: app }";

#[tokio::test]
async fn where_all_is_well_each_thing_has_a_line_and_what_was_minted_is_revoked() {
    let (service, upstream) = surroundings().await;
    let folder = tempfile::tempdir().unwrap();
    let output = doctor(&folder, &configuration(&service, &upstream, "", OWN), &["--api-key-file", "key"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.lines().all(|line| line.starts_with("✓ ")), "{text}");
    for what in
        ["listeners[0].address", "admin.address", "token_services.default: create_token", "routes.own: mounted key", "upstreams.app"]
    {
        assert!(text.contains(what), "{what}: {text}");
    }
    assert_eq!((service.calls(Operation::Create), service.calls(Operation::Revoke)), (2, 2));
}

#[tokio::test]
async fn what_is_not_there_is_told_with_what_to_do_and_ends_with_69() {
    let (mut service, mut upstream) = surroundings().await;
    let folder = tempfile::tempdir().unwrap();
    let text = configuration(&service, &upstream, "", OWN).replace("servers: [", "servers: [\"nowhere.invalid:80\", ");
    service.always(Operation::Create, Behaviour::status(401));
    let denied = doctor(&folder, &text, &["--format", "json"]).await;
    assert_eq!(denied.status.code(), Some(69));
    let found = findings(&denied);
    assert_eq!(finding(&found, "token_services.default")["ok"], true, "it answers");
    assert_eq!(finding(&found, "routes.own: mounted key")["ok"], false, "and does not know the key");
    assert_eq!(finding(&found, "upstreams.app: nowhere.invalid:80")["ok"], false);

    service.stop().await;
    upstream.stop().await;
    let gone = doctor(&folder, &text, &["--format", "json"]).await;
    assert_eq!(gone.status.code(), Some(69));
    let found = findings(&gone);
    for what in ["token_services.default", "upstreams.app: 127.0.0.1"] {
        let finding = finding(&found, what);
        assert!(finding["ok"] == false && finding["advice"].is_string(), "{finding}");
    }
}

#[tokio::test]
async fn the_keys_of_sinks_are_tried_as_those_of_routes_are() {
    let (service, upstream) = surroundings().await;
    let folder = tempfile::tempdir().unwrap();
    let sink = "sinks: [{ credential: { mounted: { file: key } }, token: { scopes: [GDS.FILES.READ] }, path: token }]";
    let text = configuration(&service, &upstream, sink, "  - { upstream: app, auth: none }");
    let output = doctor(&folder, &text, &["--format", "json"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(finding(&findings(&output), "sinks[0]: mounted key key")["ok"], true);
    assert_eq!((service.calls(Operation::Create), service.calls(Operation::Revoke)), (1, 1));
    assert_eq!(service.recorded().iter().find_map(|call| call.parameter("scopes")).as_deref(), Some("GDS.FILES.READ"));

    service.always(Operation::Create, Behaviour::status(401));
    let output = doctor(&folder, &text, &["--format", "json"]).await;
    assert_eq!(output.status.code(), Some(69));
    assert_eq!(finding(&findings(&output), "sinks[0]: mounted key key")["ok"], false);
    assert!(!folder.path().join("token").exists());
}

/// What requests would meet: authorities, the name, the client certificate, `verify`.
#[tokio::test]
async fn upstreams_with_tls_are_greeted_as_requests_would_greet_them() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (service, plain) = surroundings().await;
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.issue_to("bearerd");
    let (certificate, key) = (authority.file("c.crt", &certificate), authority.file("c.key", &key));
    let client = format!("certificate: {}, private_key: {}", certificate.display(), key.display());
    let ca = format!("ca: {}", authority.ca().display());
    let day = Duration::from_secs(24 * 3600);
    let lasting = authority.issue("localhost");
    let ending = authority.issue_until("localhost", SystemTime::now() + 9 * day + day / 2);
    let expired = authority.issue_expired("localhost");
    let greet = async |shown: &Pair, wants_certificate: bool, tls: &str| {
        let upstream = plain.in_tls(authority.acceptor_with(shown, wants_certificate, &[b"http/1.1"])).await;
        let address = format!("localhost:{}", upstream.address().port());
        let text = configuration(&service, &plain, "", "  - { upstream: app, auth: none }")
            .replace(&format!("servers: [\"{}\"]", plain.address()), &format!("servers: [\"{address}\"], tls: {{ {tls} }}"));
        let output = doctor(&folder, &text, &["--format", "json"]).await;
        let finding = finding(&findings(&output), &format!("upstreams.app: {address}")).clone();
        assert_eq!(output.status.code(), Some(if finding["ok"] == true { 0 } else { 69 }), "{output:?}");
        finding
    };
    let good = greet(&lasting, true, &format!("{ca}, {client}")).await;
    assert!(good["ok"] == true && good["advice"].is_null() && good["seen"].as_str().unwrap().contains("ends on"), "{good}");
    // It works still; nobody should learn of its end from callers.
    let ending = greet(&ending, false, &ca).await;
    assert!(ending["ok"] == true && ending["seen"].as_str().unwrap().contains("in 9 days") && ending["advice"].is_string(), "{ending}");
    let unchecked = greet(&expired, false, "verify: false").await;
    assert!(unchecked["ok"] == true && unchecked["seen"].as_str().unwrap().contains("ended on"), "{unchecked}");
    for (shown, wants_certificate, tls, seen, advice) in [
        (&lasting, false, format!("ca: {}", other.ca().display()), "BadSignature", "`tls.ca`"),
        (&lasting, false, String::new(), "UnknownIssuer", "`tls.ca`"),
        (&lasting, false, format!("{ca}, sni: other.test"), "other.test", "`tls.sni`"),
        (&expired, false, ca.clone(), "expired", "renew"),
        (&lasting, true, ca.clone(), "", "`tls.certificate`"),
    ] {
        let bad = greet(shown, wants_certificate, &tls).await;
        assert!(bad["ok"] == false && bad["seen"].as_str().unwrap().contains(seen), "{tls}: {bad}");
        assert!(bad["advice"].as_str().unwrap().contains(advice), "{tls}: {bad}");
    }
    // In the clear.
    let text = configuration(&service, &plain, "", "  - { upstream: app, auth: none }")
        .replace(&format!("[\"{}\"]", plain.address()), &format!("[\"{}\"], tls: {{}}", plain.address()));
    let output = doctor(&folder, &text, &["--format", "json"]).await;
    assert!(finding(&findings(&output), "upstreams.app: 127")["advice"].as_str().unwrap().contains("speaks TLS"), "{output:?}");
}

#[tokio::test]
async fn the_clock_of_a_token_service_is_told_by_its_answers() {
    let (service, upstream) = surroundings().await;
    let folder = tempfile::tempdir().unwrap();
    let text = configuration(&service, &upstream, "", "  - { upstream: app, auth: none }");
    let now = SystemTime::now();
    let minute = Duration::from_secs(60);
    for (date, ok, seen) in [(now, true, "within"), (now - 10 * minute, false, "behind"), (now + 10 * minute, false, "ahead")] {
        let head = vec![("Date".to_owned(), httpdate::fmt_http_date(date))];
        service.always(Operation::Details, Behaviour::Status(401, "{}".to_owned(), head));
        let output = doctor(&folder, &text, &["--format", "json"]).await;
        let found = findings(&output);
        let clock = finding(&found, "token_services.default: clock");
        assert!(clock["ok"] == ok && clock["seen"].as_str().unwrap().contains(seen), "{clock}");
        assert_eq!(clock["advice"].as_str().is_some_and(|advice| advice.contains("NTP")), !ok, "{clock}");
        assert_eq!(output.status.code(), Some(if ok { 0 } else { 69 }));
    }
}

#[tokio::test]
async fn a_token_that_no_header_section_of_the_upstream_can_hold_is_told_of() {
    let (service, upstream) = surroundings().await;
    let folder = tempfile::tempdir().unwrap();
    for (header_bytes, ok) in [("32KiB", true), ("256B", false)] {
        let text = configuration(&service, &upstream, "", OWN).replace("servers: [", &format!("header_bytes: {header_bytes}, servers: ["));
        for arguments in [&["--format", "json"][..], &["--format", "json", "--api-key-file", "key"]] {
            let output = doctor(&folder, &text, arguments).await;
            let found = findings(&output);
            let budget = finding(&found, "upstreams.app.header_bytes");
            assert_eq!((&budget["ok"], output.status.code()), (&Value::Bool(ok), Some(if ok { 0 } else { 69 })), "{found:?}");
            assert_eq!(budget["advice"].is_string(), !ok);
        }
    }
}

#[tokio::test]
async fn key_sets_ledgers_and_mistakes() {
    let (service, upstream) = surroundings().await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ledger.key"), [7; 32]).unwrap();
    let sections = "cache: { ledger: { path: ledger.redb, key_files: [ledger.key] } }";
    // Nobody serves a key set there.
    let route = format!(
        "  - {{ name: api, upstream: app, credentials: [jwt], validate: {{ jwt: {{ jwks_url: \"http://{}/keys\", algorithms: [ES256] }} }} }}",
        upstream.address()
    );
    let output = doctor(&folder, &configuration(&service, &upstream, sections, &route), &["--format", "json"]).await;
    let found = findings(&output);
    assert_eq!(output.status.code(), Some(69));
    assert_eq!(finding(&found, "cache.ledger")["ok"], true);
    assert_eq!(finding(&found, "routes.api.validate.jwt")["ok"], false);

    let output = doctor(&folder, "routes: [{ upstrem: app }]", &[]).await;
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean"));
}
