//! Which tokens bearerd minted, and from which entry: who presents one of them may have it revoked.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Timestamp;
use crate::secret::{BuildAlreadyHashed, KeyedHash};

/// By the token's name. A token that was replaced stays until it expires: callers may still hold it.
pub(super) struct Issued {
    tokens: Mutex<HashMap<KeyedHash, Origin, BuildAlreadyHashed>>,
    max_entries: usize,
}

#[derive(Clone, Copy)]
pub(super) struct Origin {
    /// The entry's key.
    pub(super) entry: KeyedHash,
    pub(super) expires: Timestamp,
}

impl Issued {
    pub(super) fn new(max_entries: usize) -> Self {
        Self { tokens: Mutex::default(), max_entries }
    }

    /// Past the bound, what has expired goes first; what then finds no room counts as a stranger's token.
    pub(super) fn add(&self, name: KeyedHash, origin: Origin, now: Timestamp) {
        let mut tokens = self.lock();
        if tokens.len() >= self.max_entries {
            tokens.retain(|_, origin| origin.expires > now);
        }
        if tokens.len() < self.max_entries {
            tokens.insert(name, origin);
        }
    }

    pub(super) fn origin(&self, name: &KeyedHash) -> Option<Origin> {
        self.lock().get(name).copied()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyedHash, Origin, BuildAlreadyHashed>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_the_bound_what_has_expired_goes_and_nothing_else() {
        let issued = Issued::new(2);
        let name = |number| KeyedHash::from_bytes([number; 32]);
        let add = |number, expires, now| {
            issued.add(name(number), Origin { entry: name(0), expires: Timestamp::from_secs(expires) }, Timestamp::from_secs(now))
        };
        let known = || (1..=5).filter(|number| issued.origin(&name(*number)).is_some()).collect::<Vec<_>>();
        add(1, 10, 0);
        add(2, 20, 11);
        assert_eq!(known(), [1, 2], "there is room for what has expired");
        add(3, 30, 11);
        assert_eq!(known(), [2, 3]);
        add(4, 40, 11);
        assert_eq!(known(), [2, 3], "no room, and none of them has expired");
        add(5, 40, 20);
        assert_eq!(known(), [3, 5], "its end is the moment in which it expires");
    }
}
