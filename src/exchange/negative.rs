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
