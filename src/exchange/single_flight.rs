//! One mint, or one question to a token service, per cache key at a time, however many wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::{Error, Granted};
use crate::secret::{BuildAlreadyHashed, KeyedHash};

type Outcome<T> = Result<T, Error>;
type UnderWay<T> = Mutex<HashMap<KeyedHash, watch::Receiver<Option<Outcome<T>>>, BuildAlreadyHashed>>;

/// The mints under way.
pub(super) struct Flights<T = Granted> {
    under_way: Arc<UnderWay<T>>,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { under_way: Arc::default() }
    }
}

impl<T: Clone> Flights<T> {
    /// Joins the mint under way for `key`; where there is none, the caller also gets the [`Landing`] and must see to it that one happens.
    pub(super) fn board(&self, key: KeyedHash) -> (Flight<T>, Option<Landing<T>>) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = under_way.get(&key) {
            return (Flight { outcome: outcome.clone() }, None);
        }
        let (sender, outcome) = watch::channel(None);
        under_way.insert(key, outcome.clone());
        (Flight { outcome }, Some(Landing { key, sender, under_way: Arc::clone(&self.under_way), is_clear: false }))
    }
}

/// A mint to wait for.
pub struct Flight<T = Granted> {
    outcome: watch::Receiver<Option<Outcome<T>>>,
}

impl<T: Clone> Flight<T> {
    /// Waits for the outcome. A mint that ended without one (its task panicked) is an outage, not a denial.
    pub(super) async fn arrival(mut self) -> Outcome<T> {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(Error::Budget)),
            Err(_) => Err(super::unavailable("the mint ended without an outcome".to_owned(), super::RETRY)),
        }
    }
}

/// The duty to end a mint. However it is dropped, the key is free again.
pub(super) struct Landing<T = Granted> {
    key: KeyedHash,
    sender: watch::Sender<Option<Outcome<T>>>,
    under_way: Arc<UnderWay<T>>,
    /// The key is free again; it may be another's by now.
    is_clear: bool,
}

impl<T> Landing<T> {
    /// Tells all who wait. Who comes from here on joins no more: what was true when they waited need not be true for him.
    pub(super) fn land(mut self, outcome: Outcome<T>) {
        self.clear();
        self.sender.send_replace(Some(outcome));
    }

    fn clear(&mut self) {
        if !self.is_clear {
            self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
            self.is_clear = true;
        }
    }
}

impl<T> Drop for Landing<T> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::HashKey;

    #[tokio::test]
    async fn all_who_board_get_the_one_outcome_and_the_next_starts_anew() {
        let key = HashKey::random().unwrap().hasher().finish();
        let flights = Flights::<Granted>::default();
        let (first, landing) = flights.board(key);
        let (second, none) = flights.board(key);
        assert!(none.is_none());
        landing.unwrap().land(Err(Error::Denied));
        assert_eq!(first.arrival().await.err(), Some(Error::Denied));
        assert_eq!(second.arrival().await.err(), Some(Error::Denied));
        assert!(flights.board(key).1.is_some());
    }

    #[tokio::test]
    async fn a_lost_mint_frees_its_key_and_is_an_outage() {
        let key = HashKey::random().unwrap().hasher().finish();
        let flights = Flights::<Granted>::default();
        let (flight, landing) = flights.board(key);
        drop(landing);
        assert!(matches!(flight.arrival().await, Err(Error::Unavailable { .. })));
        assert!(flights.board(key).1.is_some());
    }
}
