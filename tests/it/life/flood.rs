//! Keys without number that the token service denies: they cost its budget and a bounded memory, and nobody whose token is at hand notices.

use std::borrow::Cow;
use std::time::Duration;

use bearerd::credential::{Kind, Presented};
use bearerd::exchange::{Bounds, Error, Lookup};
use bearerd::token_service;
use tokio::task::JoinSet;
use tokio::time;

use super::stand::{Answer, NEGATIVE, SECOND, Stand, bounds, terms};

/// How many come, each once; `make soak` sends a million.
fn strangers() -> usize {
    std::env::var("BEARERD_SOAK_STRANGERS").map_or(60_000, |text| text.parse().expect("a number in BEARERD_SOAK_STRANGERS"))
}

fn stranger(number: usize) -> String {
    format!("bad-{number}")
}

/// Whether the no to this key is remembered.
fn is_remembered(stand: &Stand, key: &str) -> bool {
    let hash = stand.grant.key(&Presented { kind: Kind::ApiKey, value: Cow::Borrowed(key) });
    matches!(stand.exchange.lookup(&stand.grant, hash, time::Instant::now().into_std()), Lookup::Refused(Error::Denied))
}

#[tokio::test(start_paused = true)]
async fn denied_keys_without_number_cost_the_budget_and_a_bounded_memory_and_no_cached_key_a_mint() {
    const FRIENDS: usize = 20;
    const AT_ONCE: usize = 2500;
    const RATE: usize = 500;
    let stand = Stand::bounded(terms(), Bounds { rate: 500, queue: 1000, ..bounds() }, 100);
    let friends: Vec<String> = (0..FRIENDS).map(|number| format!("good-{number}")).collect();
    for friend in &friends {
        stand.ask(friend).await.unwrap();
    }
    stand.script.always("create", Answer::Fails(token_service::Error::Denied));
    let (began, strangers) = (time::Instant::now(), strangers());
    let (mut denied, mut turned_away, mut served) = (Vec::new(), 0, 0);
    for first in (0..strangers).step_by(AT_ONCE) {
        let mut flood: JoinSet<_> = (first..strangers.min(first + AT_ONCE))
            .map(|number| {
                let ask = stand.ask_owned(stranger(number));
                async move { (number, ask.await.err()) }
            })
            .collect();
        while !flood.is_empty() {
            time::sleep(SECOND / 10).await;
            let warm = time::Instant::now();
            for friend in &friends {
                stand.ask(friend).await.unwrap();
            }
            assert_eq!(warm.elapsed(), Duration::ZERO, "a cached key waits for nobody");
            served += FRIENDS;
            while let Some(ended) = flood.try_join_next() {
                match ended.unwrap() {
                    (number, Some(Error::Denied)) => denied.push(number),
                    (_, Some(Error::Budget)) => turned_away += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    assert_eq!(denied.len() + turned_away, strangers);
    assert!(turned_away > 0, "more than the budget holds");
    let calls = stand.script.calls("create");
    assert_eq!(calls.len(), FRIENDS + denied.len(), "a call for each that was denied, and none for a cached key");
    let seconds = began.elapsed().as_secs() as usize + 1;
    let most = RATE / 10 + RATE * seconds;
    assert!(denied.len() <= most, "{} calls in {seconds} s, where {most} are in the budget", denied.len());
    assert_eq!(stand.value(r#"bearerd_cache_requests_total{result="hit"}"#), served as f64);
    // At this rate all of these came within the time that a no is kept: what is forgotten had to go for others.
    let late = &denied[denied.len().saturating_sub(10 * NEGATIVE)..];
    assert!(late.len() > 5 * NEGATIVE, "{} denied are too few to fill the memory", late.len());
    let remembered = late.iter().filter(|number| is_remembered(&stand, &stranger(**number))).count();
    println!(
        "{strangers} keys: {} denied in {seconds} s, {turned_away} turned away, {remembered} of {} remembered",
        denied.len(),
        late.len()
    );
    // It is kept to in batches.
    assert!((NEGATIVE / 2..=NEGATIVE * 3 / 2).contains(&remembered), "{remembered} remembered, where {NEGATIVE} are allowed");
}
