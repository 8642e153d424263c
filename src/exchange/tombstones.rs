//! Tokens that were revoked: dead in this process from then on, whatever they say themselves. Bounded: where there is no room, a revocation is refused
//! rather than another one forgotten.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::secret::{BuildAlreadyHashed, HashKey, KeyedHash, Secret};

/// There is no room for another one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

pub(super) struct Tombstones {
    hash_key: HashKey,
    until: Mutex<HashMap<KeyedHash, Timestamp, BuildAlreadyHashed>>,
    max_entries: usize,
    ttl: Duration,
    /// Grows with each one.
    count: AtomicU64,
}

impl Tombstones {
    pub(super) fn new(hash_key: HashKey, max_entries: usize, ttl: Duration) -> Self {
        Self { hash_key, until: Mutex::default(), max_entries, ttl, count: AtomicU64::new(0) }
    }

    /// What a token of a token service (its kind and URL) is called here. The same text at another service is another token.
    pub(super) fn name(&self, (kind, url): &(&'static str, String), token: &Secret) -> KeyedHash {
        let mut hasher = self.hash_key.hasher();
        hasher.field(kind.as_bytes()).field(url.as_bytes()).field(token.expose().as_bytes());
        hasher.finish()
    }

    /// Remembers a token as revoked until it ends by itself, at most for the configured time. `expires` must be known for sure: a stranger's token
    /// may say anything.
    pub(super) fn set(&self, name: KeyedHash, expires: Option<Timestamp>, now: Timestamp) -> Result<(), Full> {
        let longest = now.plus(self.ttl);
        let until = expires.map_or(longest, |expires| expires.min(longest));
        let mut tombstones = self.lock();
        if tombstones.len() >= self.max_entries && !tombstones.contains_key(&name) {
            tombstones.retain(|_, until| *until > now);
            if tombstones.len() >= self.max_entries {
                return Err(Full);
            }
        }
        tombstones.insert(name, until);
        self.count.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// How many there ever were: whoever looked for a token at this count need not look again.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Takes it back: the revocation could not be accepted.
    pub(super) fn unset(&self, name: &KeyedHash) {
        self.lock().remove(name);
    }

    pub(super) fn has(&self, name: &KeyedHash, now: Timestamp) -> bool {
        self.lock().get(name).is_some_and(|until| *until > now)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyedHash, Timestamp, BuildAlreadyHashed>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_end_with_the_token_and_a_full_house_takes_no_more() {
        let tombstones = Tombstones::new(HashKey::random().unwrap(), 2, Duration::from_secs(100));
        let name = |text: &str| tombstones.name(&("iap", String::new()), &Secret::from(text));
        let at = Timestamp::from_secs;
        tombstones.set(name("a"), Some(at(10)), at(0)).unwrap();
        tombstones.set(name("b"), None, at(0)).unwrap();
        assert_eq!(tombstones.set(name("c"), None, at(9)), Err(Full));
        tombstones.set(name("b"), None, at(9)).unwrap();
        assert!(tombstones.has(&name("a"), at(9)) && !tombstones.has(&name("a"), at(10)));
        assert!(tombstones.has(&name("b"), at(108)) && !tombstones.has(&name("b"), at(109)));
        tombstones.set(name("c"), Some(at(1000)), at(10)).unwrap();
        assert!(!tombstones.has(&name("c"), at(110)), "no longer than configured");
        tombstones.unset(&name("c"));
        assert!(!tombstones.has(&name("c"), at(11)));
    }
}
