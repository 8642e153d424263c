//! What is remembered: tokens, and refusals.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units;

/// Bounds of the caches.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Tokens kept; past it the least recently used go.
    #[schemars(range(min = 1))]
    pub max_tokens: u64,
    /// Refusals kept.
    pub negative: Negative,
    /// Revoked tokens remembered.
    pub tombstones: Tombstones,
    /// Keeps tokens and pending revocations across restarts; off by default.
    pub ledger: Option<Ledger>,
}

impl Default for Cache {
    fn default() -> Self {
        Self { max_tokens: 100_000, negative: Negative::default(), tombstones: Tombstones::default(), ledger: None }
    }
}

/// How definite refusals of the token service are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Negative {
    /// For how long.
    #[serde(with = "units::Duration")]
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

/// How revoked tokens are remembered: they are dead here even where they would still be valid.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tombstones {
    /// For how long at most; a token that ends before is forgotten then.
    #[serde(with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub ttl: Duration,
    /// How many; past it new revocations get 503.
    #[schemars(range(min = 1))]
    pub max_entries: usize,
}

impl Default for Tombstones {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(720 * 3600), max_entries: 100_000 }
    }
}

/// A file that keeps tokens and pending revocations across restarts, encrypted. API keys are never in it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// The file; made if it is absent. One process at a time.
    #[schemars(with = "String", extend("format" = "path"))]
    pub path: PathBuf,
    /// Files with the keys that encrypt it, of at least 32 bytes each: the first writes, all read.
    #[schemars(with = "Vec<String>", length(min = 1), extend("items" = { "type": "string", "format": "path" }))]
    pub key_files: Vec<PathBuf>,
}
