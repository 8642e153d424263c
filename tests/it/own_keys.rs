//! bearerd's own mounted key: outbound routes and sinks.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use bearerd::app::Stop;
use tempfile::TempDir;

use crate::support::bearerd::Bearerd;
use crate::support::client::get;
use crate::support::stage::{configuration, surroundings};
use crate::support::token_service::{Behaviour, Operation, subject};

fn key_file() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("key"), "first\n").unwrap();
    let path = folder.path().join("key").to_str().unwrap().to_owned();
    (folder, path)
}

fn replace(path: &str, text: &str) {
    let fresh = format!("{path}.new");
    fs::write(&fresh, text).unwrap();
    fs::rename(fresh, path).unwrap();
}

#[tokio::test]
async fn callers_send_nothing_and_a_new_key_takes_over_with_its_token() {
    let (service, upstream) = surroundings().await;
    let (_folder, key) = key_file();
    let route = format!(
        "  - {{ name: out, upstream: app, keep_warm: true, credentials: [{{ mounted: {{ file: {key}, revoke_on_change: true }} }}] }}"
    );
    let bearerd = Bearerd::start(&configuration(&service, &upstream, "", &route));
    while bearerd.probe("/readyz").await != 200 {}
    assert_eq!(service.calls(Operation::Create), 1, "there before the first request");
    for _ in 0..3 {
        assert_eq!(get(bearerd.address(), "/", &[("authorization", "Bearer strangers")]).await.status, 200);
        assert_eq!(upstream.requests().pop().unwrap().subject(), subject("first"));
    }
    assert_eq!(service.calls(Operation::Create), 1);
    // While there is no token for the new key, the old one's goes on.
    service.next(Operation::Create, Behaviour::status(503));
    replace(&key, "second");
    service.wait_for_calls(Operation::Create, 2).await;
    assert_eq!(get(bearerd.address(), "/", &[]).await.status, 200);
    bearerd.until(r#"bearerd_revocations_total{outcome="ok"}"#, 1.0).await;
    assert_eq!(get(bearerd.address(), "/", &[]).await.status, 200);
    assert_eq!(upstream.requests().pop().unwrap().subject(), subject("second"));
    assert_eq!((service.calls(Operation::Create), service.calls(Operation::Revoke)), (3, 1));
}

#[tokio::test]
async fn a_denied_key_of_our_own_is_a_502_and_keeps_bearerd_unready() {
    let (service, upstream) = surroundings().await;
    service.always(Operation::Create, Behaviour::status(401));
    let (_folder, key) = key_file();
    let route = format!("  - {{ name: out, upstream: app, keep_warm: true, credentials: [{{ mounted: {{ file: {key} }} }}] }}");
    let bearerd = Bearerd::start(&configuration(&service, &upstream, "", &route));
    service.wait_for_calls(Operation::Create, 1).await;
    let response = get(bearerd.address(), "/", &[]).await;
    assert_eq!((response.status, response.problem().as_str()), (502, "mounted_credential_denied"));
    while bearerd.probe("/startupz").await != 200 {}
    assert_eq!(bearerd.probe("/readyz").await, 503);
    assert_eq!(bearerd.value(r#"bearerd_auth_decisions_total{reason="mounted_credential_denied",result="error",route="out"}"#).await, 1.0);
    service.always(Operation::Create, Behaviour::Works);
    replace(&key, "good");
    while bearerd.probe("/readyz").await != 200 {}
    assert_eq!(get(bearerd.address(), "/", &[]).await.status, 200);
}

fn held(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[tokio::test]
async fn a_sink_has_the_whole_token_from_the_start_to_the_end() {
    let (service, upstream) = surroundings().await;
    service.set_lifetime(std::time::Duration::from_secs(4));
    let (folder, key) = key_file();
    let path = folder.path().join("token");
    let sections = format!(
        "sinks: [{{ credential: {{ mounted: {{ file: {key} }} }}, path: {}, token: {{ scopes: [A] }} }}]\nshutdown: {{ delay: 0s }}",
        path.display()
    );
    let bearerd = Bearerd::start(&configuration(&service, &upstream, &sections, "  - { respond: { status: 204 } }"));
    while bearerd.probe("/readyz").await != 200 {}
    let first = held(&path).unwrap();
    assert_eq!(first.split('.').count(), 3);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
    let mut seen = vec![first];
    while seen.len() < 3 {
        tokio::task::yield_now().await;
        let text = held(&path).expect("there is always a file");
        assert_eq!(text.split('.').count(), 3, "and a whole token in it");
        if seen.last() != Some(&text) {
            seen.push(text);
        }
    }
    bearerd.stop(Stop::Drain);
    bearerd.ended().await;
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["key"], "the token is gone, and nothing else was left");
}

#[tokio::test]
async fn a_sink_writes_through_no_link_and_leaves_what_others_wrote() {
    let (service, upstream) = surroundings().await;
    let (folder, key) = key_file();
    let (path, target) = (folder.path().join("token"), folder.path().join("target"));
    let (left, theirs) = (folder.path().join(".bearerd-sink.token.Ab3dEf9h"), folder.path().join(".bearerd-sink-notes.txt"));
    let longer = folder.path().join(".bearerd-sink.token.Ab3dEf9h1");
    fs::write(&left, "of a process that was killed").unwrap();
    fs::write(&theirs, "not ours").unwrap();
    fs::write(&longer, "not ours").unwrap();
    symlink(&target, &path).unwrap();
    let sections =
        format!("sinks: [{{ credential: {{ mounted: {{ file: {key} }} }}, path: {} }}]\nshutdown: {{ delay: 0s }}", path.display());
    let bearerd = Bearerd::start(&configuration(&service, &upstream, &sections, "  - { respond: { status: 204 } }"));
    // The token is there, and the file is not.
    bearerd.until("bearerd_cache_entries", 1.0).await;
    while bearerd.probe("/startupz").await != 200 {}
    for _ in 0..50 {
        assert_eq!(bearerd.probe("/readyz").await, 503);
    }
    fs::remove_file(&path).unwrap();
    while bearerd.probe("/readyz").await != 200 {}
    assert!(!target.exists());
    assert_eq!((left.exists(), theirs.exists(), longer.exists()), (false, true, true));
    replace(path.to_str().unwrap(), "somebody else's");
    bearerd.stop(Stop::Drain);
    bearerd.ended().await;
    assert_eq!(held(&path).as_deref(), Some("somebody else's"));
}

#[tokio::test]
async fn tokens_are_revoked_at_the_end_where_that_is_wanted() {
    let (service, upstream) = surroundings().await;
    let sections = "shutdown: { delay: 0s, revoke: true }";
    let bearerd = Bearerd::start(&configuration(&service, &upstream, sections, "  - { upstream: app }"));
    for number in 0..20 {
        assert_eq!(get(bearerd.address(), "/", &[("x-api-key", &format!("k{number}"))]).await.status, 200);
    }
    bearerd.stop(Stop::Drain);
    bearerd.ended().await;
    assert_eq!(service.calls(Operation::Revoke), 20);
}
