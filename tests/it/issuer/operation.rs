//! What running it for a team takes: other algorithms, files that change under it, restarts, abuse, and being looked at.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bearerd::clock::Clock;
use bearerd::config::token_service::{Embedded, SigningAlgorithm};
use bearerd::issuer::api_key::ApiKey;
use bearerd::issuer::keys_file::change::{add, revoke};
use bearerd::issuer::signing_key::SigningKey;
use bearerd::issuer::{Error, Issuer};
use bearerd::jwks::KeySet;
use bearerd::secret::Secret;
use jsonwebtoken::Algorithm;

use super::in_process::configuration;
use super::served::{ALICE, Served, grants};
use crate::support::events::PATIENCE;

/// A service whose files are followed.
pub struct Followed {
    pub served: Served,
    config: Embedded,
    following: tokio::task::JoinHandle<()>,
}

impl Followed {
    pub async fn start(config: Embedded, clock: Clock) -> Self {
        let issuer = opened(&config, &clock).await;
        let (followed, files) = (Arc::clone(&issuer), config.clone());
        let following = tokio::spawn(async move { followed.follow(&files).await });
        Self { served: Served::start_with(issuer, clock).await, config, following }
    }

    pub async fn stop(self) {
        self.following.abort();
        let _ = self.following.await;
        self.served.stop().await;
    }

    pub async fn key_ids(&self) -> Vec<String> {
        let keys = self.served.send("GET", "/.well-known/jwks.json", &[], "").await.json();
        keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    /// Puts another key in the file's place, and waits until it is in use.
    pub async fn rotate(&self) -> String {
        let other = self.config.signing_key_file.with_extension("new");
        let key = SigningKey::open(&other, self.config.algorithm).unwrap().public.id().to_owned();
        fs::rename(other, &self.config.signing_key_file).unwrap();
        until(async || self.key_ids().await[0] == key).await;
        key
    }
}

/// The last connections of a service before may hold its state file for a moment.
async fn opened(config: &Embedded, clock: &Clock) -> Arc<Issuer> {
    let opening = async {
        loop {
            match Issuer::open(config, clock.clone()) {
                Err(Error::State(_)) => tokio::task::yield_now().await,
                opened => return opened.unwrap(),
            }
        }
    };
    tokio::time::timeout(PATIENCE, opening).await.expect("the file is let go")
}

async fn until(met: impl AsyncFn() -> bool) {
    let wait = async { while !met().await {} };
    tokio::time::timeout(PATIENCE, wait).await.expect("it comes about");
}

pub fn with_alice(folder: &Path) -> Embedded {
    let config = configuration(folder);
    add(&config.keys_file, &ApiKey::new("alice", &Secret::from(ALICE), grants())).unwrap();
    config
}

#[tokio::test]
async fn every_algorithm_signs_what_its_published_key_verifies() {
    for (algorithm, name) in [
        (SigningAlgorithm::ES256, Algorithm::ES256),
        (SigningAlgorithm::EdDSA, Algorithm::EdDSA),
        (SigningAlgorithm::RS256, Algorithm::RS256),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = Embedded { algorithm, ..with_alice(folder.path()) };
        let clock = Clock::steppable();
        let served = Served::start_with(Issuer::open(&config, clock.clone()).unwrap(), clock).await;
        let token = served.token("").await;
        let keys = KeySet::parse(&served.send("GET", "/.well-known/jwks.json", &[], "").await.body).unwrap();
        assert!(keys.verify(&token, &[name]).is_ok(), "{name:?}");
        assert_eq!(served.details(&token).await.json()["name"], "alice");
    }
}

#[tokio::test]
async fn keys_come_change_and_go_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let service = Followed::start(with_alice(folder.path()), Clock::steppable()).await;
    let (served, file) = (&service.served, &service.config.keys_file);
    let (jwt, session) = (served.token("").await, served.token("?returnSessionToken=true").await);
    let status = async |key: &str| served.create("", ("X-API-Key", key)).await.status.as_u16();
    assert_eq!(status("key-of-carol").await, 401);
    add(file, &ApiKey::new("carol", &Secret::from("key-of-carol"), grants())).unwrap();
    until(async || status("key-of-carol").await == 201).await;
    assert_eq!(served.details(&session).await.status, 200, "others are not touched");
    // A file with a mistake changes nothing.
    let good = fs::read_to_string(file).unwrap();
    fs::write(file, "keys:\n  - nmae: x\n").unwrap();
    fs::write(file.with_extension("bad"), "").unwrap();
    assert_eq!(status("key-of-carol").await, 201);
    fs::write(file, good).unwrap();
    assert!(revoke(file, "alice").unwrap());
    until(async || status(ALICE).await == 401).await;
    for token in [&jwt, &session] {
        assert_eq!(served.details(token).await.status, 401, "what was made from it is dead");
    }
    assert_eq!(served.refresh(&session).await.status, 401);
    assert_eq!(status("key-of-carol").await, 201);
    service.stop().await;
}

#[tokio::test]
async fn a_session_ends_when_its_key_may_do_less() {
    let folder = tempfile::tempdir().unwrap();
    let service = Followed::start(with_alice(folder.path()), Clock::steppable()).await;
    let session = service.served.token("?returnSessionToken=true").await;
    assert_eq!(service.served.details(&session).await.status, 200);
    let text = fs::read_to_string(&service.config.keys_file).unwrap().replace("\"GDS.READ\",", "");
    fs::write(&service.config.keys_file, text).unwrap();
    until(async || service.served.details(&session).await.status == 401).await;
    service.stop().await;
}

#[tokio::test]
async fn a_key_that_was_replaced_stays_exactly_as_long_as_its_tokens_live() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::steppable();
    let config = Embedded { lifetime: std::time::Duration::from_secs(1000), ..with_alice(folder.path()) };
    let service = Followed::start(config, clock.clone()).await;
    let served = &service.served;
    let before = service.key_ids().await.remove(0);
    let old = served.token("").await;
    let after = service.rotate().await;
    assert_eq!(service.key_ids().await, [after.clone(), before]);
    assert_eq!(served.details(&old).await.status, 200);
    let new = served.token("").await;
    // A broken file is not taken, nor one of another kind.
    fs::write(&service.config.signing_key_file, "broken").unwrap();
    assert_eq!(served.details(&new).await.status, 200);
    clock.step(800_000);
    assert_eq!((served.details(&old).await.status.as_u16(), service.key_ids().await.len()), (200, 2));
    clock.step(200_000);
    assert_eq!((served.details(&old).await.status.as_u16(), service.key_ids().await), (401, vec![after]));
    service.stop().await;
}

#[tokio::test]
async fn an_overlap_of_nothing_ends_the_tokens_of_a_leaked_key() {
    let folder = tempfile::tempdir().unwrap();
    let config = Embedded { key_overlap: std::time::Duration::ZERO, ..with_alice(folder.path()) };
    let service = Followed::start(config, Clock::steppable()).await;
    let old = service.served.token("").await;
    let after = service.rotate().await;
    assert_eq!(service.served.details(&old).await.status, 401);
    assert_eq!(service.key_ids().await, [after]);
    service.stop().await;
}

#[tokio::test]
async fn sessions_revocations_and_replaced_keys_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = Embedded { state_file: Some(folder.path().join("state.redb")), ..with_alice(folder.path()) };
    let clock = Clock::steppable();
    let first = Followed::start(config.clone(), clock.clone()).await;
    let session = first.served.token("?returnSessionToken=true&scopes=GDS.READ&data=x").await;
    let ended = first.served.token("?returnSessionToken=true").await;
    let (good, dead) = (first.served.token("").await, first.served.token("").await);
    for token in [&ended, &dead] {
        assert_eq!(first.served.revoke(token).await.status, 204);
    }
    let refreshed = first.served.refresh(&session).await;
    assert_eq!(refreshed.status, 201);
    first.rotate().await;
    let newer = first.served.token("").await;
    first.stop().await;

    // Another swap while nobody looks.
    fs::remove_file(&config.signing_key_file).unwrap();
    let second = Followed::start(config.clone(), clock.clone()).await;
    assert_eq!(second.key_ids().await.len(), 3);
    for token in [&session, &good, &newer] {
        assert_eq!(second.served.details(token).await.status, 200);
    }
    for token in [&ended, &dead] {
        assert_eq!(second.served.details(token).await.status, 401);
    }
    // The session kept what it was limited to.
    let minted = second.served.create("", ("Authorization", &format!("Bearer {session}"))).await.token();
    let claims = crate::support::token_service::claims(&minted);
    assert_eq!((&claims["scope"], &claims["session"]), (&"GDS.READ".into(), &"x".into()));
    second.stop().await;

    // A key that may do less from then on ends its sessions, also where nobody looked.
    let text = fs::read_to_string(&config.keys_file).unwrap().replace("\"GDS.READ\",", "");
    fs::write(&config.keys_file, text).unwrap();
    let third = Followed::start(config.clone(), clock.clone()).await;
    assert_eq!(third.served.details(&session).await.status, 401);
    assert!(matches!(Issuer::open(&config, clock.clone()), Err(Error::State(_))), "one process at a time");
    third.stop().await;
    let content = fs::read(folder.path().join("state.redb")).unwrap();
    for token in [&session, &good] {
        assert!(!content.windows(token.len()).any(|window| window == token.as_bytes()), "no token is in the file");
    }
}

/// Abuse of one key is its own: another's calls go on.
#[tokio::test]
async fn a_key_that_asks_too_often_is_slowed_down_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = Embedded { rate_per_key: 5, ..with_alice(folder.path()) };
    add(&config.keys_file, &ApiKey::new("bob", &Secret::from("key-of-bob"), grants())).unwrap();
    let clock = Clock::steppable();
    let served = Served::start_with(Issuer::open(&config, clock.clone()).unwrap(), clock).await;
    let mut limited = None;
    for _ in 0..200 {
        let reply = served.create("", ("X-API-Key", ALICE)).await;
        if reply.status == 429 {
            limited = Some(reply);
            break;
        }
        assert_eq!(reply.status, 201);
    }
    let limited = limited.expect("a limit");
    assert_eq!(limited.error(429), "this key asks for tokens too often");
    assert_eq!(limited.headers["retry-after"], "1");
    // The same key in another spelling is the same key.
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("alice:{ALICE}"));
    assert_eq!(served.create("", ("Authorization", &format!("Basic {basic}"))).await.status, 429);
    assert_eq!(served.create("", ("X-API-Key", "key-of-bob")).await.status, 201);
    assert_eq!(served.create("", ("X-API-Key", "nobody")).await.status, 401);
}

#[tokio::test]
async fn it_says_that_it_lives() {
    let served = Served::start().await;
    let reply = served.send("GET", "/healthz", &[], "").await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (200, &b"ok\n"[..]));
    assert_eq!(served.send("GET", "/metrics", &[], "").await.status, 404, "what it counts is for operators");
}
