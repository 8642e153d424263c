//! Where keys come from, and what becomes of callers while they do not.

use serde_json::json;

use super::{Issued, RULES};
use crate::support::bearerd::Bearerd;
use crate::support::client::get;
use crate::support::events::{Gate, PATIENCE};
use crate::support::jwt::{Signer, key_set, publishes};
use crate::support::upstream::{RecordingUpstream, Reply};

fn text(body: &str) -> Reply {
    Reply::Fixed { status: 200, headers: Vec::new(), body: body.as_bytes().to_vec() }
}

/// CVE-2025-64527: bad tokens while there are no keys do no harm; rule 3: nor are they the callers' fault.
#[tokio::test]
async fn while_there_are_no_keys_nobody_is_judged() {
    let signer = Signer::new("k1");
    for broken in [
        Reply::status(500),
        Reply::status(404),
        Reply::Reset,
        Reply::ResetMidway,
        text(""),
        text("<html>"),
        text("[]"),
        text("{\"keys\":[]}"),
        text("{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}"),
        text(&format!("{{\"keys\":[],\"pad\":\"{}\"}}", "x".repeat(1 << 20))),
        Reply::Raw(b"nonsense\r\n\r\n".to_vec()),
    ] {
        let issued = Issued::by(&[], "").await;
        issued.keys.reply_always(broken);
        for token in [signer.token(&json!({})), "e30.e30.e30".to_owned(), "eyJhbGciOiJFUzI1NiJ9..".to_owned()] {
            let failed = issued.ask(&token).await;
            assert!(
                matches!((failed.status, failed.problem().as_str()), (503, "token_service_unavailable") | (401, "invalid_token")),
                "{failed:?}"
            );
        }
        let failed = issued.ask(&signer.token(&json!({}))).await;
        assert_eq!((failed.status, failed.problem().as_str()), (503, "token_service_unavailable"));
        assert!(failed.header("retry-after").is_some());
        assert_eq!(issued.upstream.requests().len(), 0);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let signer = Signer::new("k1");
    let elsewhere = RecordingUpstream::start().await;
    elsewhere.reply_always(publishes(&[&signer]));
    let issued = Issued::by(&[], "").await;
    let headers = vec![("Location".to_owned(), format!("http://{}/keys", elsewhere.address()))];
    issued.keys.reply_always(Reply::Fixed { status: 302, headers, body: Vec::new() });
    assert_eq!(issued.ask(&signer.token(&json!({}))).await.status, 503);
    assert_eq!(elsewhere.requests().len(), 0);
}

/// Who comes while the first set is on its way waits for it.
#[tokio::test]
async fn the_first_callers_wait_for_the_first_set() {
    let signer = Signer::new("k1");
    let (keys, upstream, gate) = (RecordingUpstream::start().await, RecordingUpstream::start().await, Gate::closed());
    let set = key_set(&[&signer]).into_bytes();
    let (first, second) = set.split_at(10);
    keys.reply_always(Reply::Gated { first: first.to_vec(), gate: gate.clone(), second: second.to_vec() });
    let bearerd = Bearerd::start(&format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\nroutes: [{{ upstream: app, credentials: [jwt], validate: {{ jwt: {{ jwks_url: \"http://{}/\", {RULES} }} }} }}]\n",
        upstream.address(),
        keys.address(),
    ));
    let address = bearerd.address();
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..10 {
        let bearer = format!("Bearer {}", signer.token(&json!({ "sub": n.to_string() })));
        asking.spawn(async move { get(address, "/", &[("Authorization", &bearer)]).await.status });
    }
    keys.wait_for_started(1).await;
    gate.open();
    assert_eq!(asking.join_all().await, [200; 10]);
    assert_eq!(keys.requests().len(), 1, "one fetch for all");
}

/// A rotated key is known as soon as somebody brings it, by one fetch; the old one lives on while it is published.
#[tokio::test]
async fn a_new_key_is_fetched_when_it_is_met() {
    let (old, new) = (Signer::new("k1"), Signer::new("k2"));
    let issued = Issued::by(&[&old], "").await;
    assert_eq!(issued.ask(&old.token(&json!({}))).await.status, 200);
    issued.refuses_now(&new.token(&json!({}))).await;
    assert_eq!(issued.keys.requests().len(), 2, "it might have been published meanwhile");
    issued.keys.reply_always(publishes(&[&new, &old]));
    let address = issued.bearerd.address();
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..20 {
        let bearer = format!("Bearer {}", new.token(&json!({ "sub": n.to_string() })));
        asking.spawn(async move { get(address, "/", &[("Authorization", &bearer)]).await.status });
    }
    assert_eq!(asking.join_all().await, [200; 20]);
    assert!(issued.keys.requests().len() <= 4, "{} fetches", issued.keys.requests().len());
    assert_eq!(issued.ask(&old.token(&json!({ "sub": "again" }))).await.status, 200);
}

/// CVE-2025-22149: a key that is published no more vouches for nobody, for whom it vouched before neither.
#[tokio::test]
async fn a_key_that_is_taken_out_takes_its_tokens_with_it() {
    let (old, new) = (Signer::new("k1"), Signer::new("k2"));
    let issued = Issued::by(&[&old], "").await;
    let token = old.token(&json!({}));
    assert_eq!(issued.ask(&token).await.status, 200);
    issued.keys.reply_always(publishes(&[&new]));
    assert_eq!(issued.ask(&new.token(&json!({}))).await.status, 200, "meeting the new key brings the new set");
    assert_eq!(issued.ask(&token).await.problem(), "invalid_token");
    assert_eq!(issued.ask(&old.token(&json!({ "sub": "x" }))).await.problem(), "invalid_token");
}

/// The last good set stays while its source is down; a key that nobody knows cannot be judged then.
#[tokio::test]
async fn while_the_source_is_down_known_keys_go_on() {
    let (old, new) = (Signer::new("k1"), Signer::new("k2"));
    let issued = Issued::by(&[&old], "").await;
    assert_eq!(issued.ask(&old.token(&json!({}))).await.status, 200);
    for broken in [Reply::status(503), text("{}"), Reply::Reset] {
        issued.keys.reply_always(broken);
        issued.asked_again().await;
        assert_eq!(issued.ask(&new.token(&json!({}))).await.status, 503);
        assert_eq!(issued.ask(&old.token(&json!({ "sub": "fresh" }))).await.status, 200);
    }
}

/// CVE-2026-59396: names of keys at random cause few fetches, and good callers do not notice.
#[tokio::test]
async fn random_names_of_keys_cause_few_fetches() {
    let (signer, stranger) = (Signer::new("k1"), Signer::new("x"));
    let issued = Issued::by(&[&signer], "").await;
    assert_eq!(issued.ask(&signer.token(&json!({}))).await.status, 200);
    let address = issued.bearerd.address();
    let mut asking = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let tokens: Vec<String> =
            (0..50).map(|n| stranger.sign(&json!({ "alg": "ES256", "kid": format!("{worker}-{n}") }).to_string(), "{}")).collect();
        asking.spawn(async move {
            for token in tokens {
                assert_eq!(get(address, "/", &[("Authorization", &format!("Bearer {token}"))]).await.status, 401);
            }
        });
    }
    for n in 0..50 {
        assert_eq!(issued.ask(&signer.token(&json!({ "sub": n.to_string() }))).await.status, 200);
    }
    asking.join_all().await;
    let fetches = issued.keys.requests().len();
    // The first, five at once, and one each five seconds of a slow machine.
    assert!(fetches <= 12, "{fetches} fetches for 400 names");
}

/// A file is followed; a broken one changes nothing.
#[tokio::test]
async fn a_key_file_is_followed() {
    let (old, new, upstream) = (Signer::new("k1"), Signer::new("k2"), RecordingUpstream::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, key_set(&[&old])).unwrap();
    let bearerd = Bearerd::start(&format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\nroutes: [{{ upstream: app, credentials: [jwt], validate: {{ jwt: {{ jwks_file: \"{}\", {RULES} }} }} }}]\n",
        upstream.address(),
        file.display(),
    ));
    let status = async |token: String| get(bearerd.address(), "/", &[("Authorization", &format!("Bearer {token}"))]).await.status;
    assert_eq!(status(old.token(&json!({}))).await, 200);
    assert_eq!(status(new.token(&json!({}))).await, 401);
    std::fs::write(folder.path().join("new"), key_set(&[&new])).unwrap();
    std::fs::rename(folder.path().join("new"), &file).unwrap();
    let taken = async { while status(new.token(&json!({}))).await != 200 {} };
    tokio::time::timeout(PATIENCE, taken).await.expect("the new file is read");
    assert_eq!(status(old.token(&json!({}))).await, 401);
    std::fs::write(&file, "broken").unwrap();
    assert_eq!(status(new.token(&json!({ "sub": "still" }))).await, 200);
}

impl Issued {
    /// Asks for a key that nobody has until the source is asked again.
    async fn asked_again(&self) {
        let token = Signer::new("nobody").token(&json!({}));
        let before = self.keys.started().len();
        let asked = async {
            while self.keys.started().len() == before {
                self.ask(&token).await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("another fetch");
    }

    async fn refuses_now(&self, token: &str) {
        let refused = self.ask(token).await;
        assert_eq!((refused.status, refused.problem().as_str()), (401, "invalid_token"));
    }
}
