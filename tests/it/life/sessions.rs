//! psToken sessions.

use super::stand::{Answer, SECOND, Stand, down, terms};
use bearerd::credential::Kind;
use bearerd::exchange::Error;
use bearerd::secret::Secret;
use bearerd::token_service;
use tokio::time;

#[tokio::test(start_paused = true)]
async fn a_session_in_use_is_extended_and_its_jwt_minted_anew() {
    let stand = Stand::new(terms());
    stand.script.next("refresh", Answer::Gives("ps-2".to_owned()));
    for _ in 0..2 * 3600 {
        stand.present(Kind::SessionToken, "ps-1").await.unwrap();
        time::sleep(SECOND).await;
    }
    let refreshed: Vec<_> = stand.script.calls("refresh").into_iter().map(|call| (call.with, call.at.as_secs() / 60)).collect();
    assert_eq!(refreshed, [("ps-1".to_owned(), 30), ("ps-2".to_owned(), 60), ("ps-2".to_owned(), 90)]);
    let minted: Vec<_> = stand.script.calls("create").into_iter().map(|call| call.with).collect();
    assert_eq!(minted, ["ps-1", "ps-2", "ps-2"], "behind the caller's own psToken");
}

#[tokio::test(start_paused = true)]
async fn a_refused_refresh_ends_what_came_of_the_session() {
    let stand = Stand::new(terms());
    stand.present(Kind::SessionToken, "ps-1").await.unwrap();
    stand.script.next("refresh", down());
    stand.script.next("refresh", Answer::Fails(token_service::Error::Denied));
    time::sleep(1800 * SECOND).await;
    stand.present(Kind::SessionToken, "ps-1").await.unwrap();
    time::sleep(3 * SECOND).await;
    assert_eq!(stand.script.count("refresh"), 2, "a failure is tried again");
    assert_eq!(stand.present(Kind::SessionToken, "ps-1").await.err(), Some(Error::Denied));
    time::sleep(7200 * SECOND).await;
    assert_eq!(stand.script.count("refresh"), 2, "and then it is left alone");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_uses_is_left_to_end() {
    let stand = Stand::new(terms());
    stand.present(Kind::SessionToken, "ps-1").await.unwrap();
    time::sleep(24 * 3600 * SECOND).await;
    assert!(stand.script.count("refresh") <= 2, "{}", stand.script.count("refresh"));
    assert_eq!(stand.script.count("create"), 1);
    // It is used again: it is extended again.
    let before = stand.script.count("refresh");
    for _ in 0..2 * 3600 {
        stand.present(Kind::SessionToken, "ps-1").await.unwrap();
        time::sleep(SECOND).await;
    }
    assert_eq!(stand.script.count("refresh"), before + 3);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_revoked_mints_nothing_more() {
    let stand = Stand::new(terms());
    stand.present(Kind::SessionToken, "ps-1").await.unwrap();
    stand.exchange.revoke(&stand.service, &Secret::from("ps-1")).await.unwrap();
    assert_eq!(stand.present(Kind::SessionToken, "ps-1").await.err(), Some(Error::Denied));
    assert_eq!(stand.script.count("create"), 1, "nobody has to be asked");
    stand.ask("ps-1").await.unwrap();
    assert_eq!(stand.script.count("create"), 2, "an API key of the same text is another credential");
}

/// A mint that is under way then leaves no token behind: neither a renewal, nor a first one.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_revoked_while_it_mints_leaves_no_token() {
    let stand = Stand::new(terms());
    let granted = stand.present(Kind::SessionToken, "ps-1").await.unwrap();
    stand.script.next("create", Answer::Late(5 * SECOND));
    let renewal = stand.exchange.reject(granted);
    stand.script.next("create", Answer::Late(5 * SECOND));
    let (first, ()) = tokio::join!(stand.present(Kind::SessionToken, "ps-2"), async {
        time::sleep(SECOND).await;
        for session in ["ps-1", "ps-2"] {
            stand.exchange.revoke(&stand.service, &Secret::from(session)).await.unwrap();
        }
    });
    assert_eq!(first.err(), Some(Error::Denied));
    assert!(renewal.arrival().await.is_none());
    for session in ["ps-1", "ps-2"] {
        assert_eq!(stand.present(Kind::SessionToken, session).await.err(), Some(Error::Denied));
    }
    assert_eq!(stand.script.count("create"), 3);
    stand.exchange.refresh_gauges();
    assert_eq!(stand.value("bearerd_cache_entries"), 0.0);
}
