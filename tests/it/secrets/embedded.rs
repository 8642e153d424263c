//! The embedded token service: over HTTP, in process, and its files.

use std::fs;

use bearerd::issuer::api_key::ApiKey;
use bearerd::issuer::grants::Grants;
use bearerd::issuer::keys_file::change::add;
use bearerd::secret::Secret;

use super::canary::{CANARY, secret};
use super::scene::{Scene, assert_no_credential};
use super::token_api::{Api, places};
use crate::support::server::Server;
use crate::support::stage::surroundings;

/// Sessions and tokens of a key, and the ways not to get one.
async fn asked_for_tokens(scene: &mut Scene, api: Api) {
    for (query, header) in places(&secret("alice")) {
        assert_eq!(api.create(scene, &query, &header).await, 201, "{query} {header}");
    }
    assert_eq!(api.create(scene, "?returnSessionToken=true", &format!("X-API-Key: {}\r\n", secret("alice"))).await, 201);
    let session = scene.tokens.last().unwrap().clone();
    assert!(session.starts_with("pst_"), "a session");
    assert_eq!(api.create(scene, "", &format!("Authorization: Bearer {session}\r\n")).await, 201);
    let token = scene.tokens.last().unwrap().clone();
    assert_eq!((api.details(scene, &token).await, api.refresh(scene, &session).await), (200, 201));
    assert_eq!((api.revoke(scene, &token).await, api.details(scene, &token).await), (204, 401));
    assert_eq!(api.revoke(scene, &session).await, 204);
    assert_eq!(api.create(scene, "", &format!("Authorization: Bearer {session}\r\n")).await, 401);
    for (query, header) in places(&secret("stranger")).into_iter().chain(places(&secret("revoked"))) {
        assert_eq!(api.create(scene, &query, &header).await, 401, "{query} {header}");
    }
    assert_eq!(api.create(scene, "?scopes=NOT.GRANTED", &format!("X-API-Key: {}\r\n", secret("alice"))).await, 403);
    assert_eq!(api.details(scene, &secret("stranger")).await, 401);
    assert_eq!(api.refresh(scene, &secret("stranger")).await, 401);
    api.revoke(scene, &secret("stranger")).await;
    api.malformed(scene).await;
}

#[tokio::test]
async fn no_secret_leaves_the_embedded_token_service() {
    let (service, upstream) = surroundings().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["alice", "revoked"] {
        let key = ApiKey { revoked: name == "revoked", ..ApiKey::new(name, &Secret::from(secret(name)), Grants::default()) };
        add(&at("keys.yaml"), &key).unwrap();
    }
    let free = {
        let mut server = Server::start(|_, _| async {}).await;
        server.stop().await;
        server.address()
    };
    let configuration = format!(
        "token_services:
  default:
    kind: embedded
    address: {free}
    keys_file: {0}/keys.yaml
    signing_key_file: {0}/signing.pem
    state_file: {0}/state.redb
upstreams: {{ app: {{ servers: [\"{1}\"] }} }}
routes:
  - {{ name: tokens, token_api: default }}
  - {{ name: app, upstream: app, credentials: [api_key, {{ api_key: {{ query: key }} }}, basic, session_token] }}
cache: {{ ledger: {{ path: {0}/ledger.redb, key_files: [{0}/ledger.key] }} }}
",
        folder.path().display(),
        upstream.address(),
    );
    fs::write(at("ledger.key"), secret("the-key-of-the-ledger")).unwrap();
    let mut scene = Scene::set(service, upstream, tempfile::tempdir().unwrap(), &configuration).await;
    asked_for_tokens(&mut scene, Api(free)).await;
    let route = Api(scene.callers[0]);
    asked_for_tokens(&mut scene, route).await;
    for (query, header) in places(&secret("alice")) {
        let (target, expected) = (query.replace("?api_key=", "/?key="), if header.starts_with("Authorization: a") { 401 } else { 200 });
        let target = if target.is_empty() { "/" } else { &target };
        assert_eq!(scene.ask(target, &header).await, expected, "{target} {header}");
    }
    for (_, header) in places(&secret("stranger")) {
        assert_eq!(scene.ask("/", &header).await, 401, "{header}");
    }

    // Files that are no good any more: what they said before goes on.
    let private = fs::read_to_string(at("signing.pem")).unwrap();
    fs::write(at("keys.yaml"), format!("keys:\n  - name: alice\n    hash: {}\n    {CANARY}: [\n", secret("hash"))).unwrap();
    scene.told(1, &["\"keys_file\"", "is no good"]).await;
    fs::write(at("signing.pem"), format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", secret("signing"))).unwrap();
    scene.told(1, &["\"signing_key_file\"", "is no good"]).await;
    assert_eq!(Api(free).create(&mut scene, "", &format!("X-API-Key: {}\r\n", secret("alice"))).await, 201);
    fs::write(at("signing.pem"), &private).unwrap();
    fs::remove_file(at("keys.yaml")).unwrap();
    add(&at("keys.yaml"), &ApiKey::new("alice", &Secret::from(secret("alice")), Grants::default())).unwrap();
    scene.told(1, &["\"keys_file\"", "was read again"]).await;

    scene.ask_as_operator().await;
    let mut scene = scene.start_again().await;
    asked_for_tokens(&mut scene, Api(free)).await;
    scene.ask_as_operator().await;
    // The private key is a token of nobody, and shows in nothing either.
    scene.tokens.extend(private.lines().filter(|line| !line.starts_with('-')).map(str::to_owned));
    let _hangs = scene.hang("/", &format!("X-API-Key: {}\r\n", secret("alice"))).await;
    for head in scene.search(&[&at("state.redb"), &at("ledger.redb"), &at("keys.yaml")]).await {
        assert_no_credential(head);
    }
}
