//! The signing key in use, and those before it for as long as their tokens live.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::JwkSet;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::signing_key::{Error, PublicKey, SigningKey};
use crate::clock::Timestamp;

/// A key that signs no more; until its last token has ended it verifies, and all may see it.
#[derive(Clone)]
pub struct Retired {
    /// What is left of it.
    pub key: PublicKey,
    /// When its last token ends.
    pub until: Timestamp,
}

/// All keys of an issuer.
pub struct SigningKeys {
    current: ArcSwap<SigningKey>,
    /// When the last token that the current key signed ends, in seconds since 1970.
    last_end: AtomicI64,
    retired: Mutex<Vec<Retired>>,
    /// Held for a moment by whoever takes the key in use, alone by whoever replaces it: no token is counted for the wrong one.
    swap: RwLock<()>,
}

impl SigningKeys {
    /// Begins with this key. `last_end`: when the last token that it may have signed before ends.
    pub fn new(current: SigningKey, last_end: Timestamp, retired: Vec<Retired>) -> Self {
        Self {
            current: ArcSwap::from_pointee(current),
            last_end: AtomicI64::new(last_end.as_secs()),
            retired: Mutex::new(retired),
            swap: RwLock::new(()),
        }
    }

    /// A JWT of `claims`, which end at `end`, and the name of the key that signed it.
    ///
    /// # Errors
    /// When the library fails, which it has no reason to.
    pub fn sign(&self, claims: &impl Serialize, end: Timestamp) -> Result<(String, Arc<SigningKey>), Error> {
        let key = {
            let _swap = self.swap.read().unwrap_or_else(PoisonError::into_inner);
            self.last_end.fetch_max(end.as_secs(), Ordering::Relaxed);
            self.current.load_full()
        };
        Ok((key.sign(claims)?, key))
    }

    /// The claims of a JWT that the key in use or one of those before it signed.
    pub fn verify<C: DeserializeOwned>(&self, token: &str, now: Timestamp) -> Option<C> {
        let id = jsonwebtoken::decode_header(token).ok()?.kid?;
        let current = self.current.load();
        if current.public.id() == id {
            return current.public.verify(token);
        }
        let retired = self.lock().iter().find(|retired| retired.key.id() == id && now < retired.until).cloned()?;
        retired.key.verify(token)
    }

    /// Another key signs from now on. The one before verifies until its last token ends, at most for `overlap`. What is retired by that; nothing where
    /// it is the same key.
    pub fn replace(&self, key: SigningKey, overlap: Duration, now: Timestamp) -> Option<Retired> {
        let mut retired = self.lock();
        if self.current.load().public.id() == key.public.id() {
            return None;
        }
        retired.retain(|old| old.key.id() != key.public.id() && now < old.until);
        let _swap = self.swap.write().unwrap_or_else(PoisonError::into_inner);
        let before = self.current.swap(Arc::new(key));
        let last = Timestamp::from_secs(self.last_end.swap(0, Ordering::Relaxed));
        let gone = Retired { key: before.public.clone(), until: last.min(now.plus(overlap)) };
        retired.push(gone.clone());
        Some(gone)
    }

    /// Takes in a key that an earlier process used, unless it is the one in use.
    pub fn take_back(&self, retired: Retired) {
        if self.current.load().public.id() != retired.key.id() {
            self.lock().push(retired);
        }
    }

    /// Those that sign no more.
    pub fn retired(&self) -> Vec<Retired> {
        self.lock().clone()
    }

    /// The key in use.
    pub fn current(&self) -> Arc<SigningKey> {
        self.current.load_full()
    }

    /// The public halves of all whose tokens may live, the one in use first (RFC 7517 section 5).
    pub fn key_set(&self, now: Timestamp) -> JwkSet {
        let mut keys = vec![self.current.load().public.jwk().clone()];
        keys.extend(self.lock().iter().filter(|retired| now < retired.until).map(|retired| retired.key.jwk().clone()));
        JwkSet { keys }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Retired>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn keys() -> SigningKeys {
        SigningKeys::new(SigningKey::generate().unwrap(), at(0), Vec::new())
    }

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_key_stays_exactly_as_long_as_its_tokens_live() {
        let keys = keys();
        let token = keys.sign(&json!({}), at(100)).unwrap().0;
        keys.sign(&json!({}), at(50)).unwrap();
        let gone = keys.replace(SigningKey::generate().unwrap(), DAY, at(10)).unwrap();
        assert_eq!(gone.until, at(100));
        for (now, there) in [(10, true), (99, true), (100, false)] {
            assert_eq!(keys.key_set(at(now)).keys.len(), if there { 2 } else { 1 }, "{now}");
            assert_eq!(keys.verify::<Value>(&token, at(now)).is_some(), there, "{now}");
        }
        assert_eq!(keys.key_set(at(10)).keys[0].common.key_id.as_deref(), Some(keys.current().public.id()), "the one in use is first");
    }

    #[test]
    fn an_overlap_of_nothing_ends_them_at_once() {
        let keys = keys();
        let token = keys.sign(&json!({}), at(100)).unwrap().0;
        keys.replace(SigningKey::generate().unwrap(), Duration::ZERO, at(10)).unwrap();
        assert!(keys.verify::<Value>(&token, at(10)).is_none());
        assert_eq!(keys.key_set(at(10)).keys.len(), 1);
    }

    #[test]
    fn a_key_that_comes_back_is_in_use_and_not_retired() {
        let directory = tempfile::tempdir().unwrap();
        let read =
            |name: &str| SigningKey::open(&directory.path().join(name), crate::config::token_service::SigningAlgorithm::ES256).unwrap();
        let keys = SigningKeys::new(read("a"), at(0), Vec::new());
        assert!(keys.replace(read("a"), DAY, at(0)).is_none());
        let token = keys.sign(&json!({}), at(100)).unwrap().0;
        keys.replace(read("b"), DAY, at(1)).unwrap();
        keys.sign(&json!({}), at(200)).unwrap();
        keys.replace(read("a"), DAY, at(2)).unwrap();
        assert_eq!(keys.key_set(at(2)).keys.len(), 2);
        assert!(keys.verify::<Value>(&token, at(2)).is_some());
    }
}
