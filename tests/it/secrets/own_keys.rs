//! Keys of bearerd's own, mounted for a route and a sink; a `token_api` route; and a ledger that remembers all of it over a restart.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::canary::{assert_clean, secret};
use super::http1::echo;
use super::scene::{Scene, assert_no_credential};
use super::token_api::{Api, places};
use crate::support::bearerd::until;
use crate::support::process::Process;
use crate::support::stage::surroundings;
use crate::support::token_service::{Behaviour, Operation, ScriptedTokenService};
use crate::support::upstream::RecordingUpstream;

/// Written at once, as a mount changes.
fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    fs::write(&fresh, text).unwrap();
    fs::rename(fresh, path).unwrap();
}

fn configuration(service: &ScriptedTokenService, upstream: &RecordingUpstream, at: &Path) -> String {
    let at = at.display();
    format!(
        "token_services: {{ default: {{ kind: iap, url: \"{}\", breaker: {{ failures: 1000 }} }} }}
upstreams: {{ app: {{ servers: [\"{}\"] }} }}
routes:
  - {{ name: tokens, token_api: default }}
  - name: out
    match: {{ path_prefix: /out }}
    upstream: app
    credentials: [{{ mounted: {{ file: {at}/out.key, revoke_on_change: true }} }}]
  - {{ name: denied, match: {{ path_prefix: /denied }}, upstream: app, credentials: [{{ mounted: {{ file: {at}/denied.key }} }}] }}
  - {{ name: app, upstream: app }}
sinks:
  - {{ credential: {{ mounted: {{ file: {at}/sink.key }} }}, path: {at}/sink, token: {{ scopes: [A] }} }}
  - {{ credential: {{ mounted: {{ file: {at}/sink.key }} }}, path: {at}/link, keep_warm: false }}
cache: {{ negative: {{ ttl: 1s }}, ledger: {{ path: {at}/ledger.redb, key_files: [{at}/ledger.key] }} }}
",
        service.url(),
        upstream.address(),
    )
}

/// Good keys, refused ones and malformed requests, at a route that stands in for the token service.
async fn at_the_token_api(scene: &mut Scene) {
    let api = Api(scene.callers[0]);
    for (query, header) in places(&secret("good")) {
        assert_eq!(api.create(scene, &query, &header).await, 201, "{query} {header}");
        assert_eq!(api.create(scene, &query, &header).await, 201, "{query} {header}");
    }
    assert_eq!(api.create(scene, "?returnSessionToken=true", &format!("X-API-Key: {}\r\n", secret("good"))).await, 201);
    let session = scene.tokens.last().unwrap().clone();
    assert_eq!(api.create(scene, "", &format!("Authorization: Bearer {session}\r\n")).await, 201);
    // Of strangers: these are canaries themselves.
    let strange = secret("session");
    assert_eq!(api.create(scene, "", &format!("Authorization: Bearer {strange}\r\n")).await, 201);
    assert_eq!(api.details(scene, &strange).await, 200);
    assert_eq!(api.refresh(scene, &session).await, 201);
    assert_eq!(api.refresh(scene, &strange).await, 201);
    let minted = scene.tokens[0].clone();
    assert_eq!(api.details(scene, &minted).await, 200);
    assert_eq!(api.revoke(scene, &minted).await, 204);
    assert_eq!(api.details(scene, &minted).await, 401);
    assert_eq!(api.revoke(scene, &strange).await, 204);
    for (theirs, ours) in [(401, 401), (403, 403), (400, 400), (429, 503), (500, 503)] {
        let key = secret(&format!("refused{theirs}"));
        for (query, header) in places(&key) {
            scene.service.next(Operation::Create, echo(theirs, &key, &header));
            assert_eq!(api.create(scene, &query, &header).await, ours, "{theirs} {query} {header}");
            scene.service.forget_next(Operation::Create);
        }
        scene.service.next(Operation::Details, echo(theirs, &key, ""));
        api.details(scene, &key).await;
        scene.service.next(Operation::Refresh, echo(theirs, &key, ""));
        assert_eq!(api.refresh(scene, &key).await, ours, "{theirs}");
        scene.service.next(Operation::Revoke, echo(theirs, &key, ""));
        assert_eq!(api.revoke(scene, &key).await, ours, "{theirs}");
        scene.service.forget_next(Operation::Details);
    }
    api.malformed(scene).await;
}

const NO_TOKEN: &str = "there is no token for the mounted key";

/// A mounted key that is good, then no key, then refused, then good again.
async fn with_mounted_keys(scene: &mut Scene, out: &Path) {
    assert_eq!(scene.ask("/out", "").await, 200);
    assert_eq!(scene.ask("/out", &format!("X-API-Key: {}\r\n", secret("out"))).await, 200);
    assert_eq!(scene.ask("/denied", "").await, 502);
    replace(out, &format!("{} {}", secret("out-malformed"), secret("out-malformed")));
    scene.told(1, &["the mounted key cannot be read again"]).await;
    let lines = scene.process.output().stderr.count(|line| line.contains(NO_TOKEN) && line.contains("\"out\""));
    scene.service.always(Operation::Create, echo(401, &secret("out-second"), ""));
    replace(out, &secret("out-second"));
    scene.told(lines + 1, &[NO_TOKEN, "\"out\""]).await;
    assert_eq!(scene.ask("/out", "").await, 200, "with the old key's token");
    scene.service.always(Operation::Create, Behaviour::Works);
    scene.told(1, &["the new mounted key has its token"]).await;
}

#[tokio::test]
async fn no_secret_leaves_bearerds_own_keys_its_token_api_or_its_ledger() {
    let (mut service, upstream) = surroundings().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["out", "denied", "sink"] {
        fs::write(at(&format!("{name}.key")), secret(name)).unwrap();
    }
    fs::write(at("ledger.key"), secret("the-key-of-the-ledger")).unwrap();
    symlink(at("elsewhere"), at("link")).unwrap();
    // While there is no token service, none of them has a token; then, one that refuses them all.
    service.stop().await;
    let text = configuration(&service, &upstream, folder.path());
    let mut scene = Scene::set(service, upstream, tempfile::tempdir().unwrap(), &text).await;
    scene.told(1, &[NO_TOKEN]).await;
    scene.service.always(Operation::Create, echo(401, &secret("denied"), ""));
    scene.service.restart().await;
    assert_eq!(scene.ask("/denied", "").await, 502);
    scene.service.deny_keys_that_begin_with("denied.");
    scene.service.always(Operation::Create, Behaviour::Works);
    scene.told(1, &["a sink has an old token or none"]).await;
    while !at("sink").exists() {
        tokio::task::yield_now().await;
    }
    scene.tokens.push(fs::read_to_string(at("sink")).unwrap());
    at_the_token_api(&mut scene).await;
    with_mounted_keys(&mut scene, &at("out.key")).await;

    scene.service.stop().await;
    let api = Api(scene.callers[0]);
    assert_eq!(api.create(&mut scene, "", &format!("X-API-Key: {}\r\n", secret("outage"))).await, 503);
    assert_eq!(api.refresh(&mut scene, &secret("outage")).await, 503);
    assert_eq!(api.revoke(&mut scene, &secret("outage")).await, 503);
    assert!(matches!(scene.ask("/denied", "").await, 502 | 503));
    assert_eq!(api.create(&mut scene, "", &format!("X-API-Key: {}\r\n", secret("good"))).await, 201);
    let minted = scene.tokens.last().unwrap().clone();
    assert_eq!(api.revoke(&mut scene, &minted).await, 204, "queued, and in the ledger");
    scene.ask_as_operator().await;
    // The service is still gone: what is in the ledger is all that there is.
    let mut scene = scene.start_again().await;
    let api = Api(scene.callers[0]);
    assert_eq!(api.details(&mut scene, &minted).await, 401);
    assert_eq!(scene.ask("/out", "").await, 200, "with the token of before");
    scene.service.restart().await;
    let metrics = scene.process.addresses().await.metrics;
    until(metrics, "bearerd_revocations_pending", |pending| pending == 0.0).await;
    assert_eq!(api.create(&mut scene, "", &format!("X-API-Key: {}\r\n", secret("good"))).await, 201);
    for number in 0..20 {
        assert_eq!(scene.ask("/", &format!("X-API-Key: {}\r\n", secret(&format!("app{number}")))).await, 200);
    }
    scene.ask_as_operator().await;
    let _hangs = scene.hang("/out", "").await;
    for head in scene.search(&[&at("ledger.redb")]).await {
        assert_no_credential(head);
    }

    // Nor where it does not start.
    fs::write(at("ledger.key"), secret("another-key-of-the-ledger")).unwrap();
    let ended = Process::run(&text).ended().await;
    assert_eq!(ended.code(), 78);
    assert_clean("a refusal to start", &ended.stderr.join("\n"));
}
