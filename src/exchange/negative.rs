//! Refusals of the token service, remembered for a short while so that a bad key does not cost a call each time.

use std::time::Duration;

use moka::policy::EvictionPolicy;

use super::Error;
use crate::clock::Timestamp;
use crate::secret::{BuildAlreadyHashed, KeyedHash};

pub(super) struct Negative {
    refusals: moka::sync::Cache<KeyedHash, Remembered, BuildAlreadyHashed>,
    ttl: Duration,
}

#[derive(Clone)]
struct Remembered {
    error: Error,
    since: Timestamp,
    until: Timestamp,
}

impl Negative {
    pub(super) fn new(max_entries: u64, ttl: Duration) -> Self {
        let refusals = moka::sync::Cache::builder()
            .max_capacity(max_entries)
            .eviction_policy(EvictionPolicy::lru())
            // Garbage collection only: `until` decides.
            .time_to_live(ttl.max(super::HOLD_OFF).max(super::REJECTED_TTL))
            .build_with_hasher(BuildAlreadyHashed::default());
        Self { refusals, ttl }
    }

    /// The refusal that holds at `now`. A clock that stepped back before the refusal ends it: no key stays locked out for the length of the step.
    pub(super) fn get(&self, key: &KeyedHash, now: Timestamp) -> Option<Error> {
        self.refusals.get(key).filter(|refusal| (refusal.since..refusal.until).contains(&now)).map(|refusal| refusal.error)
    }

    /// Remembers a refusal, for the configured time unless `ttl` says otherwise.
    pub(super) fn remember(&self, key: KeyedHash, error: Error, now: Timestamp, ttl: Option<Duration>) {
        self.refusals.insert(key, Remembered { error, since: now, until: now.plus(ttl.unwrap_or(self.ttl)) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_without_number_take_the_room_of_as_many_as_are_configured() {
        const MOST: u64 = 1000;
        // What may wait to be cleared away.
        const BATCH: u64 = 1000;
        let negative = Negative::new(MOST, Duration::from_secs(30));
        let now = Timestamp::from_secs(0);
        for number in 0..100_000u64 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
            negative.remember(KeyedHash::from_bytes(key), Error::Denied, now, None);
            if number % 10_000 == 0 {
                let kept = negative.refusals.iter().count() as u64;
                assert!(kept <= MOST + BATCH, "{kept} kept after {number}");
            }
        }
        negative.refusals.run_pending_tasks();
        assert_eq!(negative.refusals.entry_count(), MOST);
    }
}
