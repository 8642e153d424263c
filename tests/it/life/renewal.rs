//! Renewal ahead of expiry.

use super::stand::{Answer, SECOND, Stand, bounds, down, terms, text};
use bearerd::exchange::{Bounds, Details, Error, Keep, Terms};
use bearerd::token_service;
use tokio::time;

const DENIED: Answer = Answer::Fails(token_service::Error::Denied);

#[tokio::test(start_paused = true)]
async fn a_token_in_use_is_renewed_before_its_end_and_nobody_waits() {
    let stand = Stand::new(terms());
    stand.ask("k").await.unwrap();
    // Slow, so that a request that waited for a renewal would be seen to.
    stand.script.always("create", Answer::Late(5 * SECOND));
    for _ in 0..4 * 3600 {
        time::sleep(SECOND).await;
        let began = time::Instant::now();
        stand.ask("k").await.unwrap();
        assert_eq!(began.elapsed(), time::Duration::ZERO);
    }
    let at: Vec<u64> = stand.script.calls("create").iter().map(|call| call.at.as_secs()).collect();
    assert!((4..=6).contains(&at.len()), "{at:?}");
    for pair in at.windows(2) {
        let span = pair[1] - pair[0];
        assert!((2880..=3030).contains(&span), "between L - L/5 and L - 0.8 L/5, and the answer's delay: {at:?}");
    }
    assert_eq!(stand.value(r#"bearerd_token_renewals_total{outcome="ok"}"#), (at.len() - 1) as f64);
}

#[tokio::test(start_paused = true)]
async fn an_unused_token_is_not_renewed_and_the_next_use_makes_up_for_it() {
    let stand = Stand::new(terms());
    stand.ask("once").await.unwrap();
    time::sleep(3500 * SECOND).await;
    assert_eq!(stand.script.count("create"), 1, "nobody used it since it was minted");
    let first = text(&stand.ask("once").await.unwrap());
    time::sleep(SECOND).await;
    assert_eq!(stand.script.count("create"), 2, "used after its time had come: renewed behind the request");
    assert_eq!(stand.script.count("details"), 0, "and not checked: the route does not ask for it");
    assert_ne!(text(&stand.ask("once").await.unwrap()), first);
    time::sleep(4000 * SECOND).await;
    stand.exchange.refresh_gauges();
    assert_eq!(stand.script.count("create"), 3, "that one use kept it once more");
    time::sleep(4000 * SECOND).await;
    stand.exchange.refresh_gauges();
    assert_eq!(stand.value("bearerd_cache_entries"), 0.0);
    assert_eq!(stand.value(r#"bearerd_cache_evictions_total{cause="expired"}"#), 1.0);
}

#[tokio::test(start_paused = true)]
async fn kept_warm_for_a_day_after_the_last_use_and_ones_own_for_ever() {
    for (keep, expected) in [(Keep::Warm, 28..=34), (Keep::Always, 56..=64)] {
        let stand = Stand::new(Terms { keep, ..terms() });
        stand.ask("k").await.unwrap();
        time::sleep(48 * 3600 * SECOND).await;
        let count = stand.script.count("create");
        assert!(expected.contains(&count), "{keep:?}: {count}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asks_for_is_kept_and_does_not_count_as_in_use() {
    let stand = Stand::new(Terms { keep: Keep::Always, ..terms() });
    let is_in_use = || stand.exchange.inventory()[0].in_use;
    let told = || {
        stand.exchange.refresh_gauges();
        stand.value(r#"bearerd_token_remaining_seconds{route="api"}"#)
    };
    stand.ask("k").await.unwrap();
    assert!(is_in_use(), "a caller has just come for it");
    time::sleep(3 * 3600 * SECOND).await;
    assert!(!is_in_use(), "renewed over and over, for nobody");
    assert_eq!(told(), 0.0);
    stand.ask("k").await.unwrap();
    assert!(is_in_use());
    assert!((1.0..=3600.0).contains(&told()));
    time::sleep(3600 * SECOND).await;
    assert!(is_in_use(), "used with the token before: it likely will be again");
}

#[tokio::test(start_paused = true)]
async fn what_cooled_down_is_warm_again_with_its_next_use() {
    let stand = Stand::new(Terms { keep: Keep::Warm, ..terms() });
    stand.ask("k").await.unwrap();
    // Past a day, in the time between the renewal that was not made and the end.
    let mut before = 0;
    while stand.clock.reading().uptime < 24 * 3600 * SECOND || stand.script.count("create") != before {
        before = stand.script.count("create");
        time::sleep(3000 * SECOND).await;
    }
    stand.ask("k").await.unwrap();
    time::sleep(SECOND).await;
    assert_eq!(stand.script.count("create"), before + 1);
    assert!(stand.is_warm("k").await);
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_backs_off_and_tries_once_more_just_before_the_end() {
    let stand = Stand::bounded(terms(), Bounds { breaker_failures: 1000, ..bounds() }, 10);
    let first = text(&stand.ask("k").await.unwrap());
    stand.script.always("create", down());
    assert_eq!(stand.use_for("k", 3598).await, [first], "the token at hand goes on");
    let at: Vec<_> = stand.script.calls("create").iter().map(|call| call.at).collect();
    // From the second one to the last.
    let pauses: Vec<f64> = at[1..].windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    assert!((0.5..=1.1).contains(&pauses[0]), "{pauses:?}");
    for (number, pause) in pauses[..pauses.len() - 1].iter().enumerate() {
        let most = f64::from(1 << number.min(6)).min(60.0);
        assert!((most / 2.0..=most + 0.1).contains(pause), "{number}: {pauses:?}");
    }
    let last = at.last().unwrap().as_secs_f64() - at[0].as_secs_f64();
    assert!((3594.0..3600.0).contains(&last), "{last}");
    stand.script.works();
    time::sleep(3 * SECOND).await;
    stand.ask("k").await.unwrap();
}

/// A tenth of its life before the end, where that is less than five seconds.
#[tokio::test(start_paused = true)]
async fn the_last_attempt_for_a_short_token_is_nearer_to_its_end() {
    let stand = Stand::bounded(terms(), Bounds { breaker_failures: 1000, ..bounds() }, 10);
    *stand.script.lifetime.lock().unwrap() = 20;
    stand.ask("k").await.unwrap();
    stand.script.always("create", down());
    stand.use_for("k", 19).await;
    let at: Vec<_> = stand.script.calls("create").iter().map(|call| call.at.as_secs_f64()).collect();
    let last = at.last().unwrap() - at[0];
    // `exp` is in whole seconds.
    assert!((17.0..=18.1).contains(&last), "{at:?}");
}

#[tokio::test(start_paused = true)]
async fn a_denied_renewal_ends_the_entry_at_once_and_is_remembered() {
    let stand = Stand::new(terms());
    stand.ask("k").await.unwrap();
    stand.use_for("k", 2000).await;
    stand.script.next("create", DENIED);
    while stand.script.count("create") < 2 {
        time::sleep(SECOND).await;
    }
    assert_eq!(stand.ask("k").await.err(), Some(Error::Denied));
    assert_eq!(stand.script.count("create"), 2, "remembered");
    assert_eq!(stand.value(r#"bearerd_token_renewals_total{outcome="denied"}"#), 1.0);

    let own = Stand::new(Terms { keep: Keep::Always, ..terms() });
    own.ask("k").await.unwrap();
    own.script.always("create", DENIED);
    time::sleep(3590 * SECOND).await;
    assert!(own.is_warm("k").await, "a mounted key's old token serves until it expires");
}

#[tokio::test(start_paused = true)]
async fn a_fresh_token_takes_over_only_when_it_is_valid() {
    let stand = Stand::new(terms());
    let first = text(&stand.ask("k").await.unwrap());
    *stand.script.nbf.lock().unwrap() = 120;
    let mut seen = Vec::new();
    let mut switched = time::Duration::ZERO;
    while seen.len() < 2 {
        time::sleep(SECOND).await;
        let text = text(&stand.ask("k").await.unwrap());
        if seen.last() != Some(&text) {
            switched = stand.clock.reading().uptime;
            seen.push(text);
        }
    }
    assert_eq!(seen[0], first);
    let renewed = stand.script.calls("create")[1].at;
    assert!((119..=122).contains(&(switched - renewed).as_secs()), "{:?}", switched - renewed);
}

#[tokio::test(start_paused = true)]
async fn max_age_renews_what_would_live_longer() {
    let mut terms = terms();
    terms.lifetimes.max_age = Some(300 * SECOND);
    let stand = Stand::new(terms);
    stand.ask("k").await.unwrap();
    assert!(stand.use_for("k", 900).await.len() >= 3);
}

#[tokio::test(start_paused = true)]
async fn tokens_minted_together_are_renewed_apart_however_many_they_are() {
    // More than may be under way at one time.
    const TOKENS: usize = 1100;
    let stand = Stand::bounded(terms(), bounds(), 2000);
    for number in 0..TOKENS {
        stand.ask(&format!("k{number}")).await.unwrap();
        stand.ask(&format!("k{number}")).await.unwrap();
    }
    time::sleep(3600 * SECOND).await;
    let renewed: Vec<u64> = stand.script.calls("create")[TOKENS..].iter().map(|call| call.at.as_secs()).collect();
    assert_eq!(renewed.len(), TOKENS);
    let busiest = renewed.iter().map(|second| renewed.iter().filter(|other| *other == second).count()).max();
    assert!(busiest < Some(44), "spread over the jitter's 144 s: {busiest:?}");
    assert_eq!(stand.value(r#"bearerd_token_renewals_total{outcome="ok"}"#), TOKENS as f64);
}

#[tokio::test(start_paused = true)]
async fn what_must_go_for_others_is_neither_renewed_nor_kept() {
    let stand = Stand::bounded(terms(), bounds(), 10);
    for number in 0..500 {
        stand.ask(&format!("k{number}")).await.unwrap();
        stand.ask(&format!("k{number}")).await.unwrap();
    }
    stand.exchange.refresh_gauges();
    let held = stand.value("bearerd_cache_entries");
    assert!((1.0..=10.0).contains(&held), "{held}");
    assert_eq!(stand.value(r#"bearerd_cache_evictions_total{cause="size"}"#), 500.0 - held);
    time::sleep(3100 * SECOND).await;
    assert_eq!(stand.script.count("create") as f64, 500.0 + held);
}

#[tokio::test(start_paused = true)]
async fn revalidation_is_spread_and_a_definite_no_drops_the_token() {
    let stand = Stand::new(Terms { details: Details::Every(60 * SECOND), ..terms() });
    stand.ask("k").await.unwrap();
    assert_eq!(stand.script.count("details"), 1, "before the first use");
    stand.use_for("k", 600).await;
    let checks = stand.script.count("details");
    assert!((10..=12).contains(&checks), "every minute: {checks}");

    stand.script.next("details", down());
    stand.script.next("details", Answer::Fails(token_service::Error::Forbidden("no".to_owned())));
    let unchanged = stand.use_for("k", 120).await;
    assert_eq!(unchanged.len(), 1, "anything but a 401 changes nothing");
    assert_eq!(stand.script.count("create"), 1);

    stand.script.next("details", DENIED);
    let seen = stand.use_for("k", 120).await;
    assert_ne!(seen.last(), unchanged.last(), "dropped, and minted once");
    assert_eq!(stand.value(r#"bearerd_mints_total{reason="details_401",service="scripted"}"#), 1.0);
    assert_eq!(stand.script.count("create"), 2);
}

/// A no to the old token says nothing of the one that took its place while it was on its way.
#[tokio::test(start_paused = true)]
async fn a_no_to_a_token_that_was_replaced_meanwhile_changes_nothing() {
    let stand = Stand::new(Terms { details: Details::Every(60 * SECOND), ..terms() });
    let old = stand.ask("k").await.unwrap();
    stand.script.next("details", Answer::FailsLate(30 * SECOND, token_service::Error::Denied));
    while stand.script.count("details") < 2 {
        stand.use_for("k", 1).await;
    }
    let new = stand.exchange.reject(old).arrival().await.unwrap();
    assert_eq!(stand.use_for("k", 40).await, [text(&new)]);
    assert_eq!(stand.script.count("create"), 2);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_checked_at_the_mint_is_checked_later() {
    let stand = Stand::new(Terms { details: Details::OnMint, ..terms() });
    stand.script.next("details", down());
    stand.ask("k").await.unwrap();
    stand.ask("k").await.unwrap();
    stand.script.next("details", DENIED);
    assert_eq!(stand.use_for("k", 10).await.len(), 2, "unchecked until the service is back; then the verdict counts");
}

#[tokio::test(start_paused = true)]
async fn what_was_checked_at_the_mint_is_not_checked_again_at_once() {
    for details in [Details::OnMint, Details::Every(30 * 24 * 3600 * SECOND)] {
        let stand = Stand::new(Terms { details, ..terms() });
        stand.use_for("k", 60).await;
        assert_eq!(stand.script.count("details"), 1, "{details:?}");
        // What was not is checked soon, however long the span is.
        stand.script.next("details", down());
        stand.use_for("other", 60).await;
        assert_eq!(stand.script.count("details"), 3, "{details:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn checks_that_fail_are_tried_again_ever_more_seldom() {
    let stand = Stand::bounded(Terms { details: Details::OnMint, ..terms() }, Bounds { breaker_failures: 1000, ..bounds() }, 10);
    stand.script.always("details", down());
    stand.use_for("k", 600).await;
    assert!((15..=28).contains(&stand.script.count("details")), "{}", stand.script.count("details"));
}

#[tokio::test(start_paused = true)]
async fn unused_tokens_are_not_checked_over_and_over() {
    let stand = Stand::new(Terms { details: Details::Every(10 * SECOND), ..terms() });
    stand.ask("k").await.unwrap();
    time::sleep(1000 * SECOND).await;
    assert_eq!(stand.script.count("details"), 1);
    stand.ask("k").await.unwrap();
    time::sleep(SECOND).await;
    assert_eq!(stand.script.count("details"), 2);
    assert_eq!(stand.script.count("create"), 1, "its renewal was not put off, and comes in its time");
}
