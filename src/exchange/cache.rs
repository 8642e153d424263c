//! The tokens at hand, bounded; the least recently used go first.
//!
//! moka only collects garbage here: whether a token may be used is decided by our clock on every use (rule 10 of the design). Its default policy
//! would refuse new keys when full, so the policy is LRU.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;

use crate::clock::Timestamp;
use crate::secret::{BuildAlreadyHashed, KeyedHash};
use crate::telemetry::metrics::Metrics;
use crate::token::Token;

pub(super) struct Cache {
    tokens: moka::sync::Cache<KeyedHash, Cached, BuildAlreadyHashed>,
}

#[derive(Clone)]
struct Cached {
    token: Arc<Token>,
    /// What was left of its life when it came in.
    left: Duration,
}

impl Cache {
    pub(super) fn new(max_tokens: u64, metrics: Arc<Metrics>) -> Self {
        let tokens = moka::sync::Cache::builder()
            .max_capacity(max_tokens)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(EndOfLife)
            .eviction_listener(move |_, _, cause| {
                metrics.eviction(match cause {
                    RemovalCause::Expired => "expired",
                    RemovalCause::Size => "size",
                    RemovalCause::Replaced => "replaced",
                    RemovalCause::Explicit => "invalidated",
                });
            })
            .build_with_hasher(BuildAlreadyHashed::default());
        Self { tokens }
    }

    pub(super) fn get(&self, key: &KeyedHash) -> Option<Arc<Token>> {
        self.tokens.get(key).map(|cached| cached.token)
    }

    pub(super) fn insert(&self, key: KeyedHash, token: Arc<Token>, now: Timestamp) {
        let left = token.expires().since(now);
        self.tokens.insert(key, Cached { token, left });
    }

    /// Tokens held. Carries out pending removals first, so this is not for the request path.
    pub(super) fn len(&self) -> u64 {
        self.tokens.run_pending_tasks();
        self.tokens.entry_count()
    }
}

/// Lets moka drop a token at the end of its life.
struct EndOfLife;

impl Expiry<KeyedHash, Cached> for EndOfLife {
    fn expire_after_create(&self, _: &KeyedHash, cached: &Cached, _: Instant) -> Option<Duration> {
        Some(cached.left)
    }

    fn expire_after_update(&self, _: &KeyedHash, cached: &Cached, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(cached.left)
    }
}
