//! How tokens, sessions and keys end: by the clock, and by revocation.

use super::served::{ALICE, BOB, BOB_LIVES_MILLIS, LIFETIME_MILLIS, Reply, SESSION_MILLIS, Served};

/// Dead for `details`, whose 401 has no body; it says how to do better all the same.
fn is_dead(reply: &Reply) -> bool {
    assert!(reply.status == 200 || reply.body.is_empty());
    assert!(reply.status == 200 || reply.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer realm=\"bearerd\""));
    reply.status == 401
}

#[tokio::test]
async fn a_jwt_ends_by_the_clock() {
    let served = Served::start().await;
    let jwt = served.token("").await;
    served.clock.step(LIFETIME_MILLIS - 10_000);
    assert_eq!(served.details(&jwt).await.status, 200);
    served.clock.step(10_000);
    assert!(is_dead(&served.details(&jwt).await));
    // Nor is it good before its time.
    served.clock.step(-LIFETIME_MILLIS - 60_000);
    assert!(is_dead(&served.details(&jwt).await));
}

#[tokio::test]
async fn a_refresh_extends_a_session() {
    let served = Served::start().await;
    let (kept, left) = (served.token("?returnSessionToken=True").await, served.token("?returnSessionToken=True").await);
    for _ in 0..3 {
        served.clock.step(SESSION_MILLIS - 60_000);
        assert_eq!(served.refresh(&kept).await.token(), kept);
    }
    assert_eq!(served.details(&kept).await.status, 200);
    assert!(is_dead(&served.details(&left).await));
    assert_eq!(served.refresh(&left).await.error(401), "the credential is not valid");
    served.create("", ("Authorization", &format!("Bearer {left}"))).await.error(401);
}

#[tokio::test]
async fn what_is_no_session_cannot_be_refreshed() {
    let served = Served::start().await;
    for token in [served.token("").await, ALICE.to_owned(), "pst_unknown".to_owned()] {
        served.refresh(&token).await.error(401);
    }
}

#[tokio::test]
async fn a_revoked_jwt_is_dead_and_no_other() {
    let served = Served::start().await;
    let (revoked, other) = (served.token("").await, served.token("").await);
    for _ in 0..2 {
        let reply = served.revoke(&revoked).await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (204, 0));
    }
    assert!(is_dead(&served.details(&revoked).await));
    assert_eq!(served.details(&other).await.status, 200);
}

#[tokio::test]
async fn a_revoked_session_takes_all_along_that_was_made_in_it() {
    let served = Served::start().await;
    let session = served.token("?returnSessionToken=True").await;
    let bearer = format!("Bearer {session}");
    let jwt = served.create("", ("Authorization", &bearer)).await.token();
    let second = served.create("?returnSessionToken=True", ("Authorization", &bearer)).await.token();
    let unrelated = served.token("").await;
    assert_eq!(served.revoke(&session).await.status, 204);
    for token in [&session, &jwt, &second] {
        assert!(is_dead(&served.details(token).await));
    }
    for token in [&session, &second] {
        served.refresh(token).await.error(401);
        served.create("", ("Authorization", &format!("Bearer {token}"))).await.error(401);
    }
    assert_eq!(served.details(&unrelated).await.status, 200);
}

#[tokio::test]
async fn to_revoke_what_is_unknown_is_no_failure() {
    let served = Served::start().await;
    // RFC 7009 section 2.2.
    for token in ["pst_unknown", "a.b.c", ALICE] {
        assert_eq!(served.revoke(token).await.status, 204);
    }
    served.token("").await;
}

#[tokio::test]
async fn nothing_outlives_its_key() {
    let served = Served::start().await;
    let bob = ("X-API-Key", BOB);
    let (jwt, session) = (served.create("", bob).await.token(), served.create("?returnSessionToken=True", bob).await.token());
    served.clock.step(BOB_LIVES_MILLIS - 60_000);
    assert_eq!(served.details(&jwt).await.status, 200);
    served.clock.step(60_000);
    assert!(is_dead(&served.details(&jwt).await));
    assert!(is_dead(&served.details(&session).await));
    served.refresh(&session).await.error(401);
    served.create("", ("Authorization", &format!("Bearer {session}"))).await.error(401);
    served.create("", bob).await.error(401);
}

#[tokio::test]
async fn details_take_nothing_but_a_token() {
    let served = Served::start().await;
    let jwt = served.token("").await;
    let (head, signature) = jwt.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
    assert!(is_dead(&served.details(&forged).await));
    for headers in
        [&[][..], &[("X-API-Key", ALICE)], &[("Authorization", ALICE)], &[("Authorization", "Bearer x"), ("Authorization", "Bearer y")]]
    {
        assert!(is_dead(&served.send("GET", "/v1/tokens/details", headers, "").await));
    }
}
