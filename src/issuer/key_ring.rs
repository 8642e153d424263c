//! All API keys of the embedded token service, found by the key that a caller presents.

use std::collections::HashMap;
use std::sync::Arc;

use super::api_key::{ApiKey, KeyHash};
use crate::secret::{BuildAlreadyHashed, HashKey, KeyedHash};

/// Why keys do not go together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Rename one of them: the name is the user of `Basic user:pass`.
    #[error("two API keys are named `{0}`: rename one of them")]
    DuplicateName(String),
    /// Remove one of them.
    #[error("the API keys `{0}` and `{1}` are the same key: remove one of them, or make it a key of its own with `bearerd keys new`")]
    DuplicateKey(String, String),
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    NoRandomness,
}

/// Keys under an HMAC of their hash with a random key, so that the time of a look-up tells nothing about the hashes.
pub struct KeyRing {
    keys: HashMap<KeyedHash, Arc<ApiKey>, BuildAlreadyHashed>,
    by_name: HashMap<String, Arc<ApiKey>>,
    index: HashKey,
}

impl KeyRing {
    /// Takes in all keys.
    ///
    /// # Errors
    /// When two have the same name or hash.
    pub fn new(keys: Vec<ApiKey>) -> Result<Self, Error> {
        let mut ring =
            Self { keys: HashMap::default(), by_name: HashMap::new(), index: HashKey::random().map_err(|_| Error::NoRandomness)? };
        for key in keys {
            if ring.by_name.contains_key(&key.name) {
                return Err(Error::DuplicateName(key.name));
            }
            let place = ring.place(&key.hash);
            if let Some(other) = ring.keys.get(&place) {
                return Err(Error::DuplicateKey(other.name.clone(), key.name));
            }
            let key = Arc::new(key);
            ring.by_name.insert(key.name.clone(), Arc::clone(&key));
            ring.keys.insert(place, key);
        }
        Ok(ring)
    }

    /// The entry of `key`, expired or not.
    pub fn find(&self, key: &str) -> Option<&Arc<ApiKey>> {
        let hash = KeyHash::of(key);
        self.keys.get(&self.place(&hash)).filter(|found| found.hash == hash)
    }

    /// The entry of this name, expired or not.
    pub fn named(&self, name: &str) -> Option<&Arc<ApiKey>> {
        self.by_name.get(name)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    fn place(&self, hash: &KeyHash) -> KeyedHash {
        let mut hasher = self.index.hasher();
        hasher.field(hash.as_bytes());
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::grants::Grants;
    use crate::secret::Secret;

    fn key(name: &str, key: &str) -> ApiKey {
        ApiKey::new(name, &Secret::from(key), Grants::default())
    }

    #[test]
    fn a_key_is_found_by_itself_alone() {
        let ring = KeyRing::new(vec![key("a", "one"), key("b", "two")]).unwrap();
        assert_eq!(ring.find("two").unwrap().name, "b");
        assert!(ring.find("three").is_none());
        assert!(ring.find(&KeyHash::of("two").to_string()).is_none());
        assert_eq!(ring.len(), 2);
    }

    #[test]
    fn twins_are_refused() {
        let refused = |keys| KeyRing::new(keys).err().unwrap().to_string();
        assert!(refused(vec![key("a", "one"), key("a", "two")]).starts_with("two API keys are named `a`"));
        assert!(refused(vec![key("a", "one"), key("b", "one")]).starts_with("the API keys `a` and `b` are the same key"));
    }
}
