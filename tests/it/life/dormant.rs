//! Tokens of an earlier process, until their caller comes: they expire, are found by the names of older keys, and are never there twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bearerd::exchange::ledger::{Keys, Ledger};
use bearerd::exchange::{HashKeys, Which};
use tempfile::TempDir;
use tokio::time;

use super::stand::{SECOND, Stand, bounds, terms, text};

/// A ledger's folder, and keys to encrypt it with.
fn place(keys: &[u8]) -> (TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let files = keys.iter().map(|seed| {
        let file = folder.path().join(format!("{seed}.key"));
        fs::write(&file, [*seed; 32]).unwrap();
        file
    });
    let files = files.collect();
    (folder, files)
}

/// A process that goes on with what is in the ledger; the first key writes.
fn restarted(folder: &Path, keys: &[PathBuf]) -> Stand {
    let keys = Keys::read(keys).unwrap();
    let (current, former) = keys.index().split_first().unwrap();
    let stand = Stand::keyed(terms(), bounds(), 1000, HashKeys { current: current.clone(), former: former.to_vec() });
    let (ledger, contents) = Ledger::open(&folder.join("ledger.redb"), keys, stand.clock.now(), Arc::clone(&stand.metrics)).unwrap();
    stand.exchange.go_on(ledger, contents, &BTreeMap::from([("scripted".to_owned(), Arc::clone(&stand.service))]));
    stand
}

/// What a process leaves that minted a token for each of these keys, with so many seconds to live.
async fn leave(folder: &Path, keys: &[PathBuf], tokens: &[(&str, i64)]) -> Vec<String> {
    let stand = restarted(folder, keys);
    let mut texts = Vec::new();
    for (key, lifetime) in tokens {
        *stand.script.lifetime.lock().unwrap() = *lifetime;
        texts.push(text(&stand.ask(key).await.unwrap()));
    }
    stand.exchange.close();
    texts
}

#[tokio::test(start_paused = true)]
async fn what_expires_while_nobody_asks_is_neither_used_nor_revoked() {
    let (folder, keys) = place(b"a");
    leave(folder.path(), &keys, &[("short", 120), ("long", 3600)]).await;
    let stand = restarted(folder.path(), &keys);
    time::sleep(Duration::from_secs(200)).await;
    let purged = stand.exchange.purge(&Which::All, true).await.unwrap();
    assert_eq!((purged.purged, purged.revoked), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn one_that_expired_a_moment_ago_is_minted_anew() {
    let (folder, keys) = place(b"a");
    let left = leave(folder.path(), &keys, &[("short", 30), ("long", 3600)]).await;
    let stand = restarted(folder.path(), &keys);
    time::sleep(31 * SECOND).await;
    assert_eq!(text(&stand.ask("long").await.unwrap()), left[1]);
    assert_ne!(text(&stand.ask("short").await.unwrap()), left[0]);
    assert_eq!(stand.script.count("create"), 1);
    stand.exchange.close();
    let stand = restarted(folder.path(), &keys);
    // Its clock is the system's, which did not move with the paused one.
    stand.clock.step(31_000);
    assert_ne!(text(&stand.ask("short").await.unwrap()), left[0]);
    assert_eq!(stand.script.count("create"), 0, "the new one was kept in place of the old one");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_valid_yet_by_a_clock_that_was_put_back_is_minted_anew() {
    let (folder, keys) = place(b"a");
    let left = leave(folder.path(), &keys, &[("k", 3600)]).await;
    let stand = restarted(folder.path(), &keys);
    stand.clock.step(-60_000);
    *stand.script.nbf.lock().unwrap() = -60;
    assert_ne!(text(&stand.ask("k").await.unwrap()), left[0]);
    assert_eq!(stand.script.count("create"), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_is_as_old_as_it_was() {
    let (folder, keys) = place(b"a");
    let stand = restarted(folder.path(), &keys);
    let before = stand.ask("k").await.unwrap();
    stand.exchange.close();
    let stand = restarted(folder.path(), &keys);
    stand.clock.step(600_000);
    let after = stand.ask("k").await.unwrap();
    assert_eq!(text(&after), text(&before));
    assert_eq!((after.token().minted(), after.token().lifetime()), (before.token().minted(), before.token().lifetime()));
}

/// Under two names it would come back by one of them after it was revoked by the other.
#[tokio::test(start_paused = true)]
async fn a_token_that_an_older_key_named_is_kept_under_its_new_name_alone() {
    let (folder, keys) = place(b"ab");
    let left = leave(folder.path(), &keys[..1], &[("k", 3600)]).await;
    let both = [keys[1].clone(), keys[0].clone()];
    let stand = restarted(folder.path(), &both);
    assert_eq!(text(&stand.ask("k").await.unwrap()), left[0]);
    stand.exchange.close();
    let stand = restarted(folder.path(), &both);
    assert_eq!(stand.exchange.purge(&Which::All, false).await.unwrap().purged, 1);
}
