//! Whatever bearerd depends on fails in every way that is known: what callers see is in the tables, and nothing else happens.
//!
//! `make chaos` puts the same faults together at random, for longer.

mod chaos;
mod ledger;
mod names;
mod resources;
mod stand;
mod table;

use stand::{Seen, Stand, unavailable};
use table::{Fault, Target, faults};

/// One fault after another. Cached keys are asked without a pause, from before it begins until all is well again.
async fn each(target: Target) {
    let mut stand = Stand::new().await;
    for fault in faults().into_iter().filter(|fault| fault.target == target) {
        let callers = stand.callers();
        callers.have(4).await;
        fault.begin(&mut stand).await;
        seen_during(&stand, &fault).await;
        callers.have(8).await;
        fault.end(&mut stand).await;
        let seen = callers.leave().await;
        assert!(seen.iter().all(|seen| *seen == Seen::Served || *seen == fault.cached), "{}: {seen:?}", fault.name);
        stand.recovers(fault.name, &[&fault.new[..], &[fault.cached, fault.jwt]].concat()).await;
    }
    stand.ends().await;
}

async fn seen_during(stand: &Stand, fault: &Fault) {
    let (name, key) = (fault.name, stand::cached(0));
    let (cached, new) = tokio::join!(stand.ask(&key), stand.ask_anew());
    assert_eq!(cached, fault.cached, "{name}: a cached key");
    assert!(fault.new.contains(&new), "{name}: a new key saw {new:?}");
    let (known, jwt) = tokio::join!(stand.ask_with_jwt(), stand.ask_with_new_jwt());
    assert_eq!(known, fault.cached, "{name}: a JWT that is known");
    assert_eq!(jwt, fault.jwt, "{name}: a new JWT");
    assert_eq!(stand.readiness().await, 200, "{name}: no restart would mend it");
}

#[tokio::test]
async fn when_the_token_service_fails_new_keys_are_told_to_come_again_and_no_other_caller_notices() {
    each(Target::Mints).await;
}

#[tokio::test]
async fn when_only_its_checks_fail_nobody_notices() {
    each(Target::Checks).await;
}

#[tokio::test]
async fn when_the_upstream_fails_it_is_said_that_it_does() {
    each(Target::Upstream).await;
}

#[tokio::test]
async fn when_the_key_set_fails_the_keys_at_hand_go_on_and_strange_ones_are_not_judged() {
    each(Target::KeySet).await;
}

#[tokio::test]
async fn a_key_that_no_set_at_hand_has_cannot_be_judged_while_its_source_fails() {
    for fault in faults().into_iter().filter(|fault| fault.target == Target::KeySet) {
        let mut stand = Stand::new().await;
        fault.begin(&mut stand).await;
        assert_eq!(stand.ask_with_strange_jwt().await, unavailable(), "{}", fault.name);
        fault.end(&mut stand).await;
        stand.recovers(fault.name, &[unavailable()]).await;
        stand.ends().await;
    }
}

#[tokio::test]
async fn without_a_first_key_set_no_jwt_is_judged_and_its_arrival_is_noticed() {
    for fault in faults().into_iter().filter(|fault| fault.target == Target::KeySet) {
        let mut stand = Stand::cold(&[]).await;
        fault.begin(&mut stand).await;
        assert_eq!(stand.ask_with_new_jwt().await, unavailable(), "{}", fault.name);
        assert_eq!(stand.ask_anew().await, Seen::Served, "{}: keys have nothing to do with it", fault.name);
        assert_eq!(stand.readiness().await, 200, "{}", fault.name);
        fault.end(&mut stand).await;
        stand.recovers(fault.name, &[unavailable()]).await;
        stand.ends().await;
    }
}

#[tokio::test]
async fn when_the_ledger_fails_requests_do_not_notice() {
    each(Target::Ledger).await;
}
