//! Signing keys replaced under load: whoever brings a token that is good is let in, and nobody with one that is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bearerd::clock::Clock;
use bearerd::config::token_service::Embedded;

use super::operation::{Followed, with_alice};
use super::served::ALICE;
use crate::support::bearerd::Bearerd;
use crate::support::client::Client;
use crate::support::events::PATIENCE;
use crate::support::token_service::claims;
use crate::support::upstream::RecordingUpstream;

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

fn end_of(token: &str) -> f64 {
    claims(token)["exp"].as_f64().unwrap()
}

async fn present(client: &mut Client, token: &str) -> (u16, String) {
    let answer = client.get("/", &[("Authorization", &format!("Bearer {token}"))]).await;
    (answer.status, answer.body.text())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_under_load() {
    const ROTATIONS: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    let config = Embedded { lifetime: Duration::from_secs(4), rate_per_key: 1_000_000, ..with_alice(folder.path()) };
    let service = Followed::start(config, Clock::system()).await;
    let upstream = RecordingUpstream::start().await;
    let bearerd = Bearerd::start(&format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\nroutes: [{{ upstream: app, credentials: [jwt], validate: {{ jwt: {{ jwks_url: \"http://{}/.well-known/jwks.json\", algorithms: [ES256], issuers: [me], audiences: [you] }} }} }}]\n",
        upstream.address(),
        service.served.address,
    ));
    let (proxy, issuer) = (bearerd.address(), service.served.address);
    let (done, served, dead) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (done, served, dead) = (Arc::clone(&done), Arc::clone(&served), Arc::clone(&dead));
        workers.spawn(async move {
            let (mut caller, mut minter) = (Client::connect(proxy).await, Client::connect(issuer).await);
            let mut old: Vec<String> = Vec::new();
            while !done.load(Ordering::SeqCst) {
                let minted = minter
                    .exchange(format!("POST /v1/tokens HTTP/1.1\r\nHost: x\r\nX-API-Key: {ALICE}\r\nContent-Length: 0\r\n\r\n"))
                    .await;
                let token = minted.body.json()["access_token"].as_str().expect("a token").to_owned();
                for _ in 0..3 {
                    let (status, why) = present(&mut caller, &token).await;
                    // Begun and ended within its life, it must have been taken.
                    assert!(status == 200 || now() >= end_of(&token), "{status} for a token that is good: {why}");
                    served.fetch_add(usize::from(status == 200), Ordering::SeqCst);
                }
                if served.load(Ordering::SeqCst) % 10 == 0 {
                    old.push(token);
                }
                while let Some(expired) = old.pop_if(|token| now() > end_of(token) + 0.1) {
                    assert_eq!(present(&mut caller, &expired).await.0, 401, "an expired one is dead, whoever signed it");
                    dead.fetch_add(1, Ordering::SeqCst);
                }
                old.sort_by(|one, other| end_of(other).total_cmp(&end_of(one)));
            }
        });
    }
    let more = async |wanted: usize| {
        let enough = served.load(Ordering::SeqCst) + wanted;
        let met = async {
            while served.load(Ordering::SeqCst) < enough {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(PATIENCE, met).await.expect("requests go on");
    };
    for _ in 0..ROTATIONS {
        more(300).await;
        service.rotate().await;
    }
    // Until the keys of all rotations but the last are gone, with their tokens.
    let gone = async {
        while service.key_ids().await.len() > 1 {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("old keys go with their tokens");
    let waited = async {
        while dead.load(Ordering::SeqCst) < 20 {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.expect("dead ones are tried");
    done.store(true, Ordering::SeqCst);
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
    assert!(served.load(Ordering::SeqCst) > 300 * ROTATIONS);
    service.stop().await;
}
