//! JWTs that callers bring, and that the token service vouches for.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bearerd::credential::{Kind, Presented};
use bearerd::exchange::{Details, Error, Verifier};
use bearerd::jwks::rules::Rules;
use bearerd::token_service;
use serde_json::json;
use tokio::time;

use super::stand::{Answer, SECOND, Stand, down, terms};

/// Details alone vouch.
fn verifier(stand: &Stand, details: Details) -> Arc<Verifier> {
    Arc::new(stand.exchange.verifier("api", None, Rules::default(), details, Some(&stand.service)))
}

fn jwt(stand: &Stand, seconds: i64) -> String {
    let claims = json!({ "sub": "alice", "exp": stand.clock.now().as_secs() + seconds }).to_string();
    format!("eyJhbGciOiJSUzI1NiJ9.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

/// What a request with this JWT comes to, and whether it was served from memory.
async fn ask(stand: &Stand, verifier: &Arc<Verifier>, token: &str) -> (Result<(), Error>, bool) {
    let presented = Presented { kind: Kind::Jwt, value: Cow::Borrowed(token) };
    let key = verifier.key(&presented);
    match stand.exchange.lookup_presented(verifier, key, time::Instant::now().into_std()) {
        Ok(Some(_)) => (Ok(()), true),
        Ok(None) => (stand.exchange.verify(verifier, &presented, key).await.map(drop), false),
        Err(error) => (Err(error), true),
    }
}

#[tokio::test(start_paused = true)]
async fn a_verdict_of_details_alone_is_a_minute_old_at_most() {
    let stand = Stand::new(terms());
    for details in [Details::OnMint, Details::Every(600 * SECOND)] {
        let (verifier, before) = (verifier(&stand, details), stand.script.count("details"));
        let token = jwt(&stand, 3600);
        assert_eq!(ask(&stand, &verifier, &token).await, (Ok(()), false));
        time::sleep(30 * SECOND).await;
        assert_eq!(ask(&stand, &verifier, &token).await, (Ok(()), true));
        assert_eq!(stand.script.count("details"), before + 1);
        time::sleep(30 * SECOND).await;
        assert_eq!(ask(&stand, &verifier, &token).await, (Ok(()), false), "asked again");
        assert_eq!(stand.script.count("details"), before + 2);
    }
}

/// Before its time is over, a verdict is renewed behind the request that uses it.
#[tokio::test(start_paused = true)]
async fn who_uses_a_token_all_the_time_waits_once() {
    let stand = Stand::new(terms());
    let (verifier, token) = (verifier(&stand, Details::OnMint), jwt(&stand, 3600));
    assert_eq!(ask(&stand, &verifier, &token).await, (Ok(()), false));
    for second in 1..600 {
        time::sleep(SECOND).await;
        assert_eq!(ask(&stand, &verifier, &token).await, (Ok(()), true), "in second {second}");
    }
    let asked = stand.script.count("details");
    assert!((11..=15).contains(&asked), "{asked}");
}

/// Rule 3: while nobody can be asked, a verdict counts until its time is over; then it is an outage, not a denial.
#[tokio::test(start_paused = true)]
async fn an_outage_ends_no_verdict_early_and_makes_none() {
    let stand = Stand::new(terms());
    let (verifier, token) = (verifier(&stand, Details::OnMint), jwt(&stand, 3600));
    assert_eq!(ask(&stand, &verifier, &token).await.0, Ok(()));
    stand.script.always("details", down());
    for _ in 0..58 {
        time::sleep(SECOND).await;
        assert_eq!(ask(&stand, &verifier, &token).await, (Ok(()), true));
    }
    time::sleep(3 * SECOND).await;
    assert!(matches!(ask(&stand, &verifier, &token).await.0, Err(Error::Unavailable { .. })));
    stand.script.works();
    time::sleep(5 * SECOND).await;
    assert_eq!(ask(&stand, &verifier, &token).await.0, Ok(()), "nothing of the outage is remembered");
}

#[tokio::test(start_paused = true)]
async fn a_denial_ends_a_verdict_and_is_remembered_for_a_while() {
    let stand = Stand::new(terms());
    let (verifier, token) = (verifier(&stand, Details::OnMint), jwt(&stand, 3600));
    assert_eq!(ask(&stand, &verifier, &token).await.0, Ok(()));
    stand.script.next("details", Answer::Fails(token_service::Error::Denied));
    time::sleep(50 * SECOND).await;
    assert_eq!(ask(&stand, &verifier, &token).await, (Ok(()), true), "this one starts the question");
    time::sleep(SECOND).await;
    for _ in 0..28 {
        assert_eq!(ask(&stand, &verifier, &token).await.0, Err(Error::Revoked));
        time::sleep(SECOND).await;
    }
    assert_eq!(stand.script.count("details"), 2);
    time::sleep(5 * SECOND).await;
    assert_eq!(ask(&stand, &verifier, &token).await.0, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn no_verdict_outlives_the_token() {
    let stand = Stand::new(terms());
    let (verifier, token) = (verifier(&stand, Details::OnMint), jwt(&stand, 20));
    assert_eq!(ask(&stand, &verifier, &token).await.0, Ok(()));
    time::sleep(18 * SECOND).await;
    assert_eq!(ask(&stand, &verifier, &token).await, (Ok(()), true));
    time::sleep(3 * SECOND).await;
    assert!(matches!(ask(&stand, &verifier, &token).await.0, Err(Error::InvalidToken(_))));
    assert_eq!(stand.script.count("details"), 1, "a token that has expired is not asked about");
}
