//! When what rides on a token is over.

use super::stand::{Answer, SECOND, Stand, terms, text};
use bearerd::exchange::{Details, Error, Granted, Over, Terms};
use bearerd::token_service;
use tokio::time;

/// Longer than any end may go unnoticed.
const NOTICED: time::Duration = time::Duration::from_secs(10);

/// How what rides on this token ends; nothing where it goes on.
async fn end(stand: &Stand, granted: &Granted) -> Option<Over> {
    time::timeout(NOTICED, stand.exchange.end_of_minted(granted)).await.ok()
}

#[tokio::test(start_paused = true)]
async fn what_rides_on_a_token_ends_when_that_one_is_revoked_though_another_has_taken_its_place() {
    let stand = Stand::new(terms());
    let old = stand.ask("k").await.unwrap();
    let new = stand.exchange.reject(old.clone()).arrival().await.unwrap();
    assert_ne!(text(&old), text(&new));
    assert_eq!(end(&stand, &old).await, None, "an upstream's 401 is no revocation");
    stand.exchange.revoke(&stand.service, &old.token().value()).await.unwrap();
    assert_eq!(end(&stand, &old).await, Some(Over::Revoked));
    assert_eq!(end(&stand, &new).await, None, "the new one was not revoked");
    assert!(stand.is_warm("k").await);
}

#[tokio::test(start_paused = true)]
async fn what_rides_on_a_token_ends_when_its_credential_is_accepted_no_more() {
    let stand = Stand::new(Terms { details: Details::Every(5 * SECOND), ..terms() });
    let granted = stand.ask("k").await.unwrap();
    stand.ask("k").await.unwrap();
    stand.script.always("details", Answer::Fails(token_service::Error::Denied));
    stand.script.always("create", Answer::Fails(token_service::Error::Denied));
    assert_eq!(end(&stand, &granted).await, Some(Over::Revoked), "long before it expires");
    assert_eq!(stand.ask("k").await.err(), Some(Error::Denied));
}
