//! Renewal ahead of expiry: a fresh token takes the place of one that is still good, and no request waits for it.

use std::sync::Arc;

use super::entry::Entry;
use super::mint::{Mint, Occasion};
use super::timetable::Plan;
use super::{Exchange, Keep};

/// Renews one entry's token. A failure leaves the old one and plans another attempt; a denial ends the entry.
pub(super) async fn renew(exchange: &Arc<Exchange>, entry: &Arc<Entry>) {
    let (flight, landing) = exchange.flights.board(entry.key);
    let Some(landing) = landing else {
        // Somebody mints for it already.
        let _ = flight.arrival().await;
        return entry.grant.service.plan(Plan::Watch(Arc::clone(entry)));
    };
    let outcome = Mint::renewal(exchange, entry, Occasion::Renewal).run(landing).await;
    let service = entry.grant.service();
    match outcome {
        Ok(_) => exchange.metrics.renewal("ok"),
        Err(error) if error.is_denial() && entry.grant.keep != Keep::Always => {
            exchange.metrics.renewal("denied");
            tracing::info!(entry = %entry.key.short(), service, %error, "renewal denied: the token is dropped");
            exchange.drop_entry(entry);
        }
        Err(error) => {
            exchange.metrics.renewal(if error.is_denial() { "denied" } else { "failed" });
            if entry.grant.service.is_failing() {
                tracing::debug!(entry = %entry.key.short(), service, %error, "renewal failed; the token at hand goes on");
            } else {
                tracing::warn!(entry = %entry.key.short(), service, %error, "renewal failed; the token at hand goes on");
            }
            entry.renewal_failed(exchange.clock.reading());
            entry.grant.service.plan(Plan::Watch(Arc::clone(entry)));
        }
    }
}
