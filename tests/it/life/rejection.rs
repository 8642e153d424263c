//! An upstream's 401 to an injected token.

use super::stand::{Answer, SECOND, Stand, bounds, down, terms, text};
use bearerd::exchange::Bounds;
use tokio::time;

#[tokio::test(start_paused = true)]
async fn one_mint_for_all_whose_token_was_refused_and_one_in_ten_seconds() {
    let stand = Stand::new(terms());
    let old = stand.ask("k").await.unwrap();
    stand.script.next("create", Answer::Late(SECOND));
    let both = tokio::join!(stand.exchange.reject(old.clone()).arrival(), stand.exchange.reject(old.clone()).arrival());
    let (one, other) = (both.0.unwrap(), both.1.unwrap());
    assert_eq!(text(&one), text(&other));
    assert_ne!(text(&one), text(&old));
    assert_eq!(stand.script.count("create"), 2);
    let late = stand.exchange.reject(old).arrival().await.unwrap();
    assert_eq!(text(&late), text(&one), "who comes late gets what was minted");
    for _ in 0..9 {
        assert!(stand.exchange.reject(one.clone()).arrival().await.is_none(), "the new one is refused too: no more for now");
        time::sleep(SECOND).await;
    }
    assert_eq!(stand.script.count("create"), 2);
    time::sleep(SECOND).await;
    assert!(stand.exchange.reject(one).arrival().await.is_some());
    assert_eq!(stand.value(r#"bearerd_mints_total{reason="upstream_401",service="scripted"}"#), 2.0);
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_the_old_token_stays() {
    let stand = Stand::bounded(terms(), Bounds { breaker_failures: 1, ..bounds() }, 10);
    let old = stand.ask("k").await.unwrap();
    stand.script.always("create", down());
    for _ in 0..100 {
        assert!(stand.exchange.reject(old.clone()).arrival().await.is_none());
        assert_eq!(text(&stand.ask("k").await.unwrap()), text(&old));
        time::sleep(SECOND).await;
    }
    assert!(stand.script.count("create") <= 12, "{}", stand.script.count("create"));
}
