//! Outages of the token service: invisible as long as a valid token is at hand, and short after that.

use std::time::Duration;

use super::stand::{Answer, SECOND, Stand, bounds, down, terms, text};
use bearerd::exchange::{Bounds, Details, Error, Terms};
use bearerd::secret::Secret;
use bearerd::token_service;
use tokio::task::JoinSet;
use tokio::time;

#[tokio::test(start_paused = true)]
async fn callers_see_nothing_until_the_token_expires_and_are_served_within_two_seconds_of_its_return() {
    let stand = Stand::new(terms());
    let first = text(&stand.ask("k").await.unwrap());
    stand.script.always("create", down());
    assert_eq!(stand.use_for("k", 3599).await, [first]);
    for _ in 0..600 {
        time::sleep(SECOND).await;
        let Err(Error::Unavailable { retry_after, .. }) = stand.ask("k").await else { panic!("served without a token") };
        assert!(retry_after > Duration::ZERO && retry_after <= SECOND, "{retry_after:?}");
    }
    assert_eq!(stand.value(r#"bearerd_breaker_open{service="scripted"}"#), 1.0);
    let calls = stand.script.calls("create");
    let late = calls.iter().filter(|call| call.at > 3605 * SECOND).count();
    assert!(late <= 601, "one probe a second: {late}");
    stand.script.works();
    let back = time::Instant::now();
    while stand.ask("k").await.is_err() {
        time::sleep(Duration::from_millis(100)).await;
    }
    assert!(back.elapsed() <= 2 * SECOND, "{:?}", back.elapsed());
    assert_eq!(stand.value(r#"bearerd_breaker_open{service="scripted"}"#), 0.0);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_lets_one_probe_a_second_through_whatever_the_number_of_keys() {
    let stand = Stand::new(terms());
    stand.script.always("create", down());
    for round in 0..60 {
        let callers: JoinSet<_> = (0..50).map(|number| stand.ask_owned(format!("{round}-{number}"))).collect();
        assert!(callers.join_all().await.iter().all(Result::is_err));
        time::sleep(SECOND).await;
    }
    let calls = stand.script.count("create");
    assert!((60..=70).contains(&calls), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn a_429_holds_every_call_off_for_as_long_as_it_says() {
    let stand = Stand::new(terms());
    stand.script.next("create", Answer::Fails(token_service::Error::RateLimited { retry_after: Some(30 * SECOND) }));
    assert!(matches!(stand.ask("a").await, Err(Error::Unavailable { .. })));
    for _ in 0..29 {
        time::sleep(SECOND).await;
        let Err(Error::Unavailable { retry_after, .. }) = stand.ask("b").await else { panic!("asked in spite of the 429") };
        assert!(retry_after <= 30 * SECOND);
    }
    assert_eq!(stand.script.count("create"), 1);
    time::sleep(SECOND).await;
    stand.ask("b").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_never_remembered_and_a_denial_is() {
    let stand = Stand::bounded(terms(), Bounds { breaker_failures: 1000, ..bounds() }, 10);
    for _ in 0..3 {
        stand.script.next("create", down());
        assert!(matches!(stand.ask("k").await, Err(Error::Unavailable { .. })));
    }
    stand.ask("k").await.unwrap();
    assert_eq!(stand.script.count("create"), 4);
    stand.script.next("create", Answer::Fails(token_service::Error::Denied));
    for _ in 0..3 {
        assert_eq!(stand.ask("bad").await.err(), Some(Error::Denied));
    }
    assert_eq!(stand.script.count("create"), 5);
    time::sleep(31 * SECOND).await;
    stand.ask("bad").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_anothers_mint_is_counted_and_who_leads_it_is_not() {
    let stand = Stand::new(terms());
    stand.script.next("create", Answer::Late(5 * SECOND));
    let asked: Vec<_> = (0..4).map(|_| tokio::spawn(stand.ask_owned("k".to_owned()))).collect();
    time::sleep(SECOND).await;
    assert_eq!(stand.value("bearerd_coalesced_waiters"), 3.0);
    for asked in asked {
        asked.await.unwrap().unwrap();
    }
    assert_eq!((stand.value("bearerd_coalesced_waiters"), stand.script.count("create")), (0.0, 1));
}

/// A no to a token that was minted a moment ago is the token service's trouble, never the caller's.
#[tokio::test(start_paused = true)]
async fn a_fresh_token_that_details_deny_is_minted_once_more() {
    let stand = Stand::new(Terms { details: Details::OnMint, ..terms() });
    let denied = Answer::Fails(token_service::Error::Denied);
    stand.script.next("details", denied.clone());
    stand.ask("k").await.unwrap();
    assert_eq!((stand.script.count("create"), stand.script.count("details")), (2, 2));
    stand.script.next("details", denied.clone());
    stand.script.next("details", denied);
    assert!(matches!(stand.ask("other").await, Err(Error::Unavailable { .. })));
    assert_eq!((stand.script.count("create"), stand.script.count("details")), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_bad_keys_stays_within_the_budget_and_delays_no_renewal() {
    let stand = Stand::bounded(terms(), Bounds { rate: 100, queue: 1000, ..bounds() }, 1000);
    *stand.script.lifetime.lock().unwrap() = 60;
    let first = text(&stand.ask("good").await.unwrap());
    stand.ask("good").await.unwrap();
    let began = stand.clock.reading().uptime;
    let mut refused = 0;
    let mut seen = vec![first];
    for second in 0..60u32 {
        let ask = |number| {
            let ask = stand.ask_owned(format!("bad-{second}-{number}"));
            async move { ask.await.is_err() }
        };
        let mut flood: JoinSet<_> = (0..2000).map(ask).collect();
        time::sleep(SECOND).await;
        let warm = time::Instant::now();
        let text = text(&stand.ask("good").await.unwrap());
        assert_eq!(warm.elapsed(), Duration::ZERO, "a cached key waits for nobody");
        if seen.last() != Some(&text) {
            seen.push(text);
        }
        while let Some(outcome) = flood.try_join_next() {
            refused += usize::from(outcome.unwrap());
        }
        flood.abort_all();
    }
    let spent = (stand.clock.reading().uptime - began).as_secs() as usize;
    let calls = stand.script.count("create");
    assert!(calls <= 1 + 100 * spent + 20, "{calls} calls in {spent} s");
    assert!(refused > 0, "the queue is bounded");
    assert!(seen.len() >= 2, "renewed in the middle of it");
}

#[tokio::test(start_paused = true)]
async fn a_revocation_without_a_verdict_is_tried_again_at_growing_pauses_until_there_is_one() {
    let stand = Stand::bounded(terms(), Bounds { breaker_failures: 1000, ..bounds() }, 1000);
    let token = text(&stand.ask("k").await.unwrap());
    stand.script.always("revoke", down());
    stand.exchange.revoke(&stand.service, &Secret::from(token)).await.unwrap();
    time::sleep(600 * SECOND).await;
    let tried: Vec<Duration> = stand.script.calls("revoke").iter().map(|call| call.at).collect();
    let pauses: Vec<Duration> = tried.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses.iter().all(|pause| *pause >= SECOND / 2), "{pauses:?}");
    assert!(pauses.iter().skip(6).all(|pause| (30 * SECOND..=61 * SECOND).contains(pause)) && pauses.len() > 12, "{pauses:?}");
    stand.script.works();
    time::sleep(600 * SECOND).await;
    assert_eq!(stand.script.count("revoke"), tried.len() + 1, "once more, and no longer");
    assert_eq!(stand.value(r#"bearerd_revocations_total{outcome="ok"}"#), 1.0);
    assert_eq!(stand.value("bearerd_revocations_pending"), 0.0);
}
