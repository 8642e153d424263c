//! What is remembered: tokens, and refusals.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::units;

/// Bounds of the caches.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Tokens kept; past it the least recently used go.
    #[schemars(range(min = 1))]
    pub max_tokens: u64,
    /// Refusals kept.
    pub negative: Negative,
}

impl Default for Cache {
    fn default() -> Self {
        Self { max_tokens: 100_000, negative: Negative::default() }
    }
}

/// How definite refusals of the token service are remembered.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Negative {
    /// For how long.
    #[serde(deserialize_with = "units::Duration::deserialize")]
    #[schemars(with = "units::Duration")]
    pub ttl: Duration,
    /// How many.
    pub max_entries: u64,
}

impl Default for Negative {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(30), max_entries: 100_000 }
    }
}
