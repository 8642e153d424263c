//! Steps of the clock, and tokens that are not valid yet.

use super::stand::{SECOND, Stand, bounds, terms, text};
use bearerd::exchange::{Bounds, Error};
use tokio::time;

const HOUR_MILLIS: i64 = 3_600_000;

#[tokio::test(start_paused = true)]
async fn a_clock_that_steps_back_lengthens_no_life() {
    let stand = Stand::new(terms());
    *stand.script.lifetime.lock().unwrap() = 100;
    let old = text(&stand.ask("k").await.unwrap());
    stand.clock.step(-HOUR_MILLIS);
    time::sleep(99 * SECOND).await;
    assert_eq!(text(&stand.ask("k").await.unwrap()), old, "the step ends nothing either");
    time::sleep(SECOND).await;
    // Its service's time has gone on: the token is dead there, whatever our wall clock says.
    *stand.script.lifetime.lock().unwrap() = 7200;
    assert_ne!(stand.ask("k").await.map(|granted| text(&granted)).ok(), Some(old));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_steps_forward_injects_nothing_expired_and_starts_no_storm() {
    let stand = Stand::new(terms());
    for number in 0..100 {
        stand.ask(&format!("k{number}")).await.unwrap();
        stand.ask(&format!("k{number}")).await.unwrap();
    }
    stand.clock.step(HOUR_MILLIS);
    time::sleep(60 * SECOND).await;
    assert_eq!(stand.script.count("create"), 100, "nothing is minted for those who do not ask");
    // By this clock every fresh token has expired already: an outage, with a hold-off for each key.
    for _ in 0..40 {
        assert!(matches!(stand.ask("k1").await, Err(Error::Unavailable { .. })));
        time::sleep(SECOND).await;
    }
    let calls = stand.script.count("create") - 100;
    assert!((1..=9).contains(&calls), "{calls}");
    stand.clock.step(-HOUR_MILLIS);
    time::sleep(6 * SECOND).await;
    stand.ask("k1").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_an_old_token_a_request_waits_for_nbf_or_is_told_when() {
    let stand = Stand::new(terms());
    *stand.script.nbf.lock().unwrap() = 8;
    let began = time::Instant::now();
    stand.ask("near").await.unwrap();
    assert!((7..=9).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    *stand.script.nbf.lock().unwrap() = 60;
    assert!(matches!(stand.ask("far").await, Err(Error::Unavailable { .. })));
}

/// `skew`: how far the clocks may be apart.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_valid_within_the_skew_is_used_at_once() {
    let stand = Stand::bounded(terms(), Bounds { skew: 30 * SECOND, ..bounds() }, 10);
    *stand.script.nbf.lock().unwrap() = 20;
    let asked = time::Instant::now();
    stand.ask("k").await.unwrap();
    assert!(asked.elapsed() < SECOND, "{:?}", asked.elapsed());
}
