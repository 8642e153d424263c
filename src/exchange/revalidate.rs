//! Checks of tokens in use, by `get_token_details`: a definite no drops the token, anything else changes nothing.

use std::sync::Arc;

use super::Exchange;
use super::entry::Entry;
use super::mint::{Mint, Occasion};
use super::timetable::Plan;

/// Checks one entry's token.
pub(super) async fn check(exchange: &Arc<Exchange>, entry: &Arc<Entry>) {
    let service = &entry.grant.service;
    let Ok(turn) = service.check_turn().await else { return };
    let token = entry.token();
    let answer = service.get_token_details(&token.value()).await;
    drop(turn);
    let now = exchange.clock.reading();
    match answer {
        Ok(_) => entry.checked(now),
        // Replaced meanwhile: the verdict is on the old one.
        Err(failure) if failure.is_denial() && !Arc::ptr_eq(&token, &entry.token()) => entry.checked(now),
        Err(failure) if failure.is_denial() => return replace(exchange, entry).await,
        Err(failure) => {
            if !service.is_failing() {
                tracing::warn!(entry = %entry.key.short(), service = service.name(), %failure, "a token could not be checked; it goes on");
            }
            entry.check_failed(now);
        }
    }
    service.plan(Plan::Watch(Arc::clone(entry)));
}

/// The token is dead: nobody gets it any more, and one mint looks for another.
async fn replace(exchange: &Arc<Exchange>, entry: &Arc<Entry>) {
    tracing::warn!(entry = %entry.key.short(), service = entry.grant.service(), "get_token_details denied a token in use: it is dropped");
    exchange.drop_entry(entry);
    let (_, landing) = exchange.flights.board(entry.key);
    if let Some(landing) = landing {
        let _ = Mint::renewal(exchange, entry, Occasion::DetailsDenied).run(landing).await;
    }
}
