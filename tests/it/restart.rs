//! The ledger: what a restart finds again, the real binary killed and started over.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::bearerd::until;
use crate::support::client::{Client, get};
use crate::support::process::Process;
use crate::support::stage::{configuration, surroundings};
use crate::support::token_service::{Behaviour, Operation, ScriptedTokenService, subject};
use crate::support::upstream::RecordingUpstream;

const ROUTES: &str = "  - { name: tokens, token_api: default }\n  - { name: app, upstream: app, validate: { details: off } }";

/// A place for a ledger, with a key.
fn place() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ledger.key"), [7; 32]).unwrap();
    folder
}

fn text(service: &ScriptedTokenService, upstream: &RecordingUpstream, folder: &Path, keys: &str) -> String {
    let at = folder.display();
    let sections = format!("cache: {{ ledger: {{ path: {at}/ledger.redb, key_files: [{keys}] }} }}\nshutdown: {{ delay: 0s }}");
    configuration(service, upstream, &sections, ROUTES)
}

fn configured(service: &ScriptedTokenService, upstream: &RecordingUpstream, folder: &Path) -> String {
    text(service, upstream, folder, &format!("{}/ledger.key", folder.display()))
}

async fn revoke(address: std::net::SocketAddr, token: &str) -> u16 {
    let body = json!({ "access_token": token }).to_string();
    let mut client = Client::connect(address).await;
    let request =
        format!("DELETE /v1/tokens HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    client.exchange(request).await.status
}

#[tokio::test]
async fn after_an_end_in_order_no_live_token_is_minted_again() {
    let (service, upstream) = surroundings().await;
    let folder = place();
    let configuration = configured(&service, &upstream, folder.path());
    let mut seen = Vec::new();
    for round in 0..3 {
        let process = Process::run(&configuration);
        let addresses = process.addresses().await;
        for number in 0..50 {
            assert_eq!(get(addresses.callers[0], "/", &[("x-api-key", &format!("key-{number}"))]).await.status, 200);
            seen.push(upstream.requests().pop().unwrap().head.header("authorization").unwrap().to_owned());
        }
        assert_eq!(service.calls(Operation::Create), 50, "round {round}");
        process.signal(Signal::TERM);
        assert!(process.ended().await.status.success());
    }
    assert!(seen.chunks(50).all(|round| round == &seen[..50]), "each key its own token again");
    // Nobody gets a token without the credential that it was minted for.
    let process = Process::run(&configuration);
    let addresses = process.addresses().await;
    assert_eq!(get(addresses.callers[0], "/", &[("x-api-key", "key-x")]).await.status, 200);
    assert_eq!(service.calls(Operation::Create), 51);
    let bytes = fs::read(folder.path().join("ledger.redb")).unwrap();
    for secret in ["key-1", "Bearer", "eyJhbGciOi"] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
    }
}

#[tokio::test]
async fn killed_under_load_it_comes_back_with_its_tokens_and_its_revocations() {
    let (service, upstream) = surroundings().await;
    let folder = place();
    let configuration = configured(&service, &upstream, folder.path());
    let process = Process::run(&configuration);
    let addresses = process.addresses().await;
    let address = addresses.callers[0];
    for number in 0..100 {
        assert_eq!(get(address, "/", &[("x-api-key", &format!("key-{number}"))]).await.status, 200);
    }
    let doomed: Vec<String> = upstream.requests()[..10]
        .iter()
        .map(|request| request.head.header("authorization").unwrap()["Bearer ".len()..].to_owned())
        .collect();
    // A revocation's 2xx means that all that was queued before it is on disk too.
    service.always(Operation::Revoke, Behaviour::status(503));
    for token in &doomed {
        assert_eq!(revoke(address, token).await, 204);
    }
    let load = tokio::spawn(async move {
        for number in (0..100).cycle() {
            let Ok(mut client) = Client::try_connect(address).await else { return };
            let request = format!("GET / HTTP/1.1\r\nHost: h\r\nX-API-Key: key-{number}\r\n\r\n");
            if client.try_send(request).await.is_err() || client.try_receive().await.is_none() {
                return;
            }
        }
    });
    upstream.wait_for_requests(300).await;
    process.signal(Signal::KILL);
    assert!(!process.ended().await.status.success());
    load.await.unwrap();

    let before = service.calls(Operation::Create);
    service.always(Operation::Revoke, Behaviour::Works);
    let told = service.calls(Operation::Revoke);
    let process = Process::run(&configuration);
    let addresses = process.addresses().await;
    until(addresses.metrics, r#"bearerd_revocations_total{outcome="ok"}"#, |value| value == 10.0).await;
    assert_eq!(service.calls(Operation::Revoke) - told, 10);
    for number in 10..100 {
        assert_eq!(get(addresses.callers[0], "/", &[("x-api-key", &format!("key-{number}"))]).await.status, 200);
    }
    assert_eq!(service.calls(Operation::Create), before, "no mint for live entries");
    for (number, token) in doomed.iter().enumerate() {
        assert_eq!(get(addresses.callers[0], "/", &[("x-api-key", &format!("key-{number}"))]).await.status, 200);
        let sent = upstream.requests().pop().unwrap().head.header("authorization").unwrap().to_owned();
        assert_ne!(sent, format!("Bearer {token}"), "a revoked token stays dead");
        let details = get(addresses.callers[0], "/v1/tokens/details", &[("authorization", &format!("Bearer {token}"))]).await;
        assert_eq!(details.status, 401);
    }
}

async fn purge(admin: &mut Client, order: &Value) -> Value {
    let body = order.to_string();
    let head = format!("POST /api/purge HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Bearerd-Admin: 1\r\nContent-Length: {}\r\n\r\n", body.len());
    admin.exchange(head + &body).await.body.json()
}

#[tokio::test]
async fn what_nobody_has_asked_for_yet_is_purged_and_revoked_too() {
    let (service, upstream) = surroundings().await;
    let folder = place();
    let configuration = configured(&service, &upstream, folder.path());
    let process = Process::run(&configuration);
    let addresses = process.addresses().await;
    for number in 0..10 {
        assert_eq!(get(addresses.callers[0], "/", &[("x-api-key", &format!("key-{number}"))]).await.status, 200);
    }
    let token = upstream.requests()[0].head.header("authorization").unwrap()["Bearer ".len()..].to_owned();
    let mut admin = Client::connect(addresses.admin).await;
    let list = admin.exchange("GET /api/tokens HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await.body.json();
    let id = |key: &str| list.as_array().unwrap().iter().find(|entry| entry["subject"] == subject(key)).unwrap()["id"].clone();
    process.signal(Signal::TERM);
    process.ended().await;
    let process = Process::run(&configuration);
    let addresses = process.addresses().await;
    let mut admin = Client::connect(addresses.admin).await;
    for (which, expected) in [
        (json!({ "id": id("key-8") }), 1),
        (json!({ "id": id("key-8") }), 0),
        (json!({ "subject": subject("key-9") }), 1),
        (json!({ "subject": subject("key-9") }), 0),
        (json!({ "subject": "nobody" }), 0),
    ] {
        assert_eq!(purge(&mut admin, &which).await, json!({ "purged": expected, "revoked": 0 }), "{which}");
    }
    service.next(Operation::Revoke, Behaviour::status(503));
    assert_eq!(revoke(addresses.callers[0], &token).await, 204, "it is known as ours, and queued");
    assert_eq!(purge(&mut admin, &json!({ "all": true, "revoke": true })).await, json!({ "purged": 7, "revoked": 7 }));
    until(addresses.metrics, "bearerd_revocations_pending", |value| value == 0.0).await;
    for number in 0..10 {
        assert_eq!(get(addresses.callers[0], "/", &[("x-api-key", &format!("key-{number}"))]).await.status, 200);
    }
    assert_eq!(service.calls(Operation::Create), 20, "nothing came back");
}

/// What was dropped stays dropped, and a revocation that the service knows of is not told again.
#[tokio::test]
async fn what_is_over_is_over_after_a_restart_too() {
    let (service, upstream) = surroundings().await;
    let folder = place();
    let configuration = configured(&service, &upstream, folder.path());
    let process = Process::run(&configuration);
    let addresses = process.addresses().await;
    let bearer = || upstream.requests().pop().unwrap().head.header("authorization").unwrap().to_owned();
    for key in ["purged", "revoked"] {
        assert_eq!(get(addresses.callers[0], "/", &[("x-api-key", key)]).await.status, 200);
    }
    assert_eq!(revoke(addresses.callers[0], &bearer()["Bearer ".len()..]).await, 204);
    until(addresses.metrics, "bearerd_revocations_pending", |value| value == 0.0).await;
    purge(&mut Client::connect(addresses.admin).await, &json!({ "all": true })).await;
    process.signal(Signal::TERM);
    assert!(process.ended().await.status.success());

    let process = Process::run(&configuration);
    let addresses = process.addresses().await;
    assert_eq!(get(addresses.callers[0], "/", &[("x-api-key", "purged")]).await.status, 200);
    assert_eq!((service.calls(Operation::Create), service.calls(Operation::Revoke)), (3, 1));
    process.signal(Signal::TERM);
    assert!(process.ended().await.status.success());
    assert_eq!(service.calls(Operation::Revoke), 1);
}

#[tokio::test]
async fn a_restored_token_is_renewed_and_ends_in_its_time() {
    let (service, upstream) = surroundings().await;
    service.set_lifetime(Duration::from_secs(6));
    let folder = place();
    let configuration = configured(&service, &upstream, folder.path());
    let process = Process::run(&configuration);
    let addresses = process.addresses().await;
    assert_eq!(get(addresses.callers[0], "/", &[("x-api-key", "k")]).await.status, 200);
    process.signal(Signal::TERM);
    process.ended().await;
    let process = Process::run(&configuration);
    let addresses = process.addresses().await;
    let mut client = Client::connect(addresses.callers[0]).await;
    while service.calls(Operation::Create) < 2 {
        assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: h\r\nX-API-Key: k\r\n\r\n").await.status, 200);
    }
    until(addresses.metrics, r#"bearerd_token_renewals_total{outcome="ok"}"#, |value| value >= 1.0).await;
}

#[tokio::test]
async fn keys_rotate_and_a_wrong_one_refuses_to_start() {
    let (service, upstream) = surroundings().await;
    let folder = place();
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("new.key"), [9; 40]).unwrap();
    let serve = async |keys: String| {
        let process = Process::run(&text(&service, &upstream, folder.path(), &keys));
        let addresses = process.addresses().await;
        assert_eq!(get(addresses.callers[0], "/", &[("x-api-key", "k")]).await.status, 200);
        process.signal(Signal::TERM);
        assert!(process.ended().await.status.success());
        service.calls(Operation::Create)
    };
    assert_eq!(serve(at("ledger.key")).await, 1);
    assert_eq!(serve(format!("{}, {}", at("new.key"), at("ledger.key"))).await, 1, "the older key reads");
    assert_eq!(serve(at("new.key")).await, 1, "and was needed only until then");
    let ended = Process::run(&configured(&service, &upstream, folder.path())).ended().await;
    assert_eq!(ended.status.code(), Some(78));
    assert!(ended.stderr.join("\n").contains("key_files"), "{:?}", ended.stderr);
    assert!(fs::exists(at("ledger.redb")).unwrap());
}

#[tokio::test]
async fn a_broken_ledger_is_kept_aside_and_told() {
    let (service, upstream) = surroundings().await;
    let folder = place();
    fs::write(folder.path().join("ledger.redb"), "no ledger").unwrap();
    let process = Process::run(&configured(&service, &upstream, folder.path()));
    let addresses = process.addresses().await;
    until(addresses.metrics, r#"bearerd_ledger_errors_total{kind="lost"}"#, |value| value == 1.0).await;
    assert_eq!(get(addresses.callers[0], "/", &[("x-api-key", "k")]).await.status, 200);
    process.signal(Signal::TERM);
    let ended = process.ended().await;
    assert!(ended.stderr.iter().any(|line| line.contains("revocations that were pending may be lost")), "{:?}", ended.stderr);
    let kept = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_str().unwrap().contains(".unreadable-"));
    assert_eq!(fs::read_to_string(kept.unwrap()).unwrap(), "no ledger");
}

#[tokio::test]
async fn one_ledger_is_for_one_process() {
    let (service, upstream) = surroundings().await;
    let folder = place();
    let configuration = configured(&service, &upstream, folder.path());
    let process = Process::run(&configuration);
    process.addresses().await;
    let other = Process::run(&configuration).ended().await;
    assert_eq!(other.status.code(), Some(1));
    assert!(other.stderr.join("\n").contains("another process has it open"), "{:?}", other.stderr);
}
